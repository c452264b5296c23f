"""One file = one source on a node. `plugins.py` finds them; nothing is registered here.

Collectors: `beacons`, `processes`, `host`, `logs`; `stacks` answers commands. They never import each other.
What several of them read stands in modules of its own that are no collectors: `procfs` (the kernel's texts),
`scan` (who lives on this node), `faulttext` (what faulthandler writes), `exits` (how a process ended),
`oom` (who was ended for memory), `waits` (what a process waits for).
"""
