"""Whether process ids that the kernel or a driver names are those that we see."""

from __future__ import annotations

import os
from pathlib import Path

_HOST_PID_NAMESPACE = 0xEFFFFFFC  # include/linux/proc_ns.h, PROC_PID_INIT_INO


def sees_host_pids(proc: Path) -> bool:
    """False in a container with process ids of its own, and where it cannot be told."""
    try:
        return os.stat(proc / "self/ns/pid").st_ino == _HOST_PID_NAMESPACE
    except OSError:
        return False
