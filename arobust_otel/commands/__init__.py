"""Subcommands of `arobust`: one module each, which holds `command`. The work is done elsewhere."""
