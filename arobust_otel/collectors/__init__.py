"""One file = one source on a node. `plugins.py` finds them; nothing is registered here."""
