"""What this process's control group may use and uses: memory and processors, in versions 1 and 2.

Readers return None for what is not there or not limited; roots are arguments, so that tests bring files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from arobust_otel.collectors.oom import CGROUP, parse_cgroup_paths
from arobust_otel.collectors.procfs import PROC, parse_pairs, read_text

_NO_LIMIT_BYTES = 1 << 60  # version 1 says a number near 2**63 where there is no limit


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that count against the limit, without file cache that can be dropped, and the limit."""

    used_bytes: int
    limit_bytes: int


def read_memory(cgroup: Path = CGROUP, proc: Path = PROC) -> Memory | None:
    """Memory of the innermost limited group; None where no group limits it."""
    for folder, names in _folders(cgroup, proc, "memory"):
        used, limit = (_number(folder / name) for name in names)
        if used is None or limit is None or limit >= _NO_LIMIT_BYTES:
            continue
        stat = parse_pairs(read_text(folder / "memory.stat") or "")
        cache = stat.get("inactive_file", stat.get("total_inactive_file", "0"))
        return Memory(max(0, used - (int(cache) if cache.isdecimal() else 0)), limit)
    return None


def read_processors(cgroup: Path = CGROUP, proc: Path = PROC) -> tuple[float, float] | None:
    """Processor seconds that the group has used, and how many processors it may use; None without a limit."""
    for folder, _ in _folders(cgroup, proc, "cpu"):
        used = parse_pairs(read_text(folder / "cpu.stat") or "").get("usage_usec", "")
        quota, _, period = (read_text(folder / "cpu.max") or "").partition(" ")
        if used.isdecimal() and quota.isdecimal() and period.strip().isdecimal():
            return int(used) / 1e6, int(quota) / int(period)
        spent = _number(folder / "cpuacct.usage")
        quota_us, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if spent is not None and quota_us is not None and quota_us > 0 and period_us:
            return spent / 1e9, quota_us / period_us
    return None


def _folders(cgroup: Path, proc: Path, controller: str) -> list[tuple[Path, tuple[str, str]]]:
    """Folders that may belong to this process, innermost first; inside a container the root is its own."""
    paths = parse_cgroup_paths(read_text(proc / "self" / "cgroup") or "")
    found = []
    for version, top, names in (
        ("v2", cgroup, ("memory.current", "memory.max")),
        ("v1", cgroup / controller, ("memory.usage_in_bytes", "memory.limit_in_bytes")),
    ):
        inner = top / paths.get(version, "/").lstrip("/")
        places = [inner, *(parent for parent in inner.parents if parent.is_relative_to(top))]
        found += [(place, names) for place in places]
    return found


def _number(path: Path) -> int | None:
    text = (read_text(path) or "").strip()
    return int(text) if text.lstrip("-").isdecimal() else None
