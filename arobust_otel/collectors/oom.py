"""Who was ended for memory: the kernel's own counters, per control group (v1 and v2) and for the host."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from arobust_otel.collectors.procfs import PROC, parse_pairs, read_text

CGROUP = Path("/sys/fs/cgroup")


def parse_cgroup_paths(text: str) -> dict[str, str]:
    """/proc/PID/cgroup -> path by version: ``v2`` (``0::/path``) and ``v1`` (the memory controller's)."""
    paths = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        if parts[0] == "0" and not parts[1]:
            paths["v2"] = parts[2]
        elif "memory" in parts[1].split(","):
            paths["v1"] = parts[2]
    return paths


def parse_kills(text: str) -> int | None:
    """The ``oom_kill`` counter of memory.events, memory.oom_control or vmstat; None where it has none."""
    value = parse_pairs(text).get("oom_kill", "")
    return int(value) if value.isdecimal() else None


@dataclass(slots=True)
class OomWitness:
    """Counters as they stood when a rank was first seen; each kill is charged to one death only."""

    proc: Path = PROC
    cgroup: Path = CGROUP
    _baseline: dict[Path, int] = field(default_factory=dict)
    _files: dict[tuple[int, int], tuple[tuple[str, Path], ...]] = field(default_factory=dict)

    def first_seen(self, pid: int, start_ticks: int) -> None:
        """Note where this process's kills would be counted, and how many there were."""
        if (pid, start_ticks) in self._files:
            return
        text = read_text(self.proc / str(pid) / "cgroup")
        paths = parse_cgroup_paths(text) if text is not None else {}
        sources = [("cgroup", file) for file in self._counter_files(paths)]
        sources.append(("host", self.proc / "vmstat"))
        kept = []
        for place, file in sources:
            count = parse_kills(read_text(file) or "")
            if count is not None:
                self._baseline.setdefault(file, count)
                kept.append((place, file))
        self._files[pid, start_ticks] = tuple(kept)

    def claim(self, pid: int, start_ticks: int) -> str | None:
        """Where a kill for memory is seen that no earlier death explains: ``cgroup``, ``host`` or None."""
        found = None
        for place, file in self._files.pop((pid, start_ticks), ()):
            count = parse_kills(read_text(file) or "")
            if count is not None and count > self._baseline[file]:
                self._baseline[file] += 1
                found = found or place
        return found

    def _counter_files(self, paths: dict[str, str]) -> list[Path]:
        """Existing counter files; a container sees its own group at the root of the mount."""
        files: list[list[Path]] = []
        if "v2" in paths:
            tail = paths["v2"].lstrip("/")
            files.append([self.cgroup / folder / "memory.events" for folder in (tail, f"unified/{tail}", "")])
        if "v1" in paths:
            tail = paths["v1"].lstrip("/")
            files.append([self.cgroup / "memory" / folder / "memory.oom_control" for folder in (tail, "")])
        first = (next((file for file in choices if file.is_file()), None) for choices in files)
        return [file for file in first if file is not None]
