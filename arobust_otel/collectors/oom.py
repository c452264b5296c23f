"""Who was ended for memory: the kernel's log, and its counters per control group (v1 and v2) and host.

The log names the process, so it decides wherever it may be read. The counters only say that somebody was
ended: they count where they rose within the last samples before the death.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from arobust_otel.collectors.kmsg import KERNEL_LOG, KernelLog
from arobust_otel.collectors.procfs import PROC, read_text

CGROUP = Path("/sys/fs/cgroup")
RECENT_SAMPLES = 5  # 2.5 s: the death is told up to half a second after it was seen
MAX_LOG_RECORDS = 50_000
_KILLS = re.compile(r"^oom_kill[: ]\s*(\d+)$", re.MULTILINE)


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
    found = _KILLS.search(text)
    return int(found[1]) if found else None


def names_victim(record: str, pid: int) -> bool:
    """Whether a record of the kernel's log says that this process was ended for memory."""
    return re.search(rf"\b[Kk]illed process {pid}\b", record) is not None


def log_names_victim(path: Path, pid: int) -> bool | None:
    """Whether the kernel's log names the process; None where it may not be read."""
    try:
        log = KernelLog(path)
    except OSError:
        return None
    try:
        return any(names_victim(record.text, pid) for record in log.read(MAX_LOG_RECORDS))
    except OSError:
        return None
    finally:
        log.close()


@dataclass(slots=True)
class OomWitness:
    """Counters of the last samples; each kill is charged to one death only."""

    proc: Path = PROC
    cgroup: Path = CGROUP
    kernel_log: Path = KERNEL_LOG
    _recent: dict[Path, list[int]] = field(default_factory=dict)
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
                self._recent.setdefault(file, [count])
                kept.append((place, file))
        self._files[pid, start_ticks] = tuple(kept)

    def sample(self) -> None:
        """Read the counters once; called with every sample, before deaths are told."""
        for file, counts in self._recent.items():
            count = parse_kills(read_text(file) or "")
            if count is not None:
                counts.append(count)
                del counts[:-RECENT_SAMPLES]

    def claim(self, pid: int, start_ticks: int) -> str | None:
        """Where a kill for memory is seen that no earlier death explains.

        Returns:
            ``kernel log``, ``cgroup``, ``host``, or None.
        """
        found = None
        for place, file in self._files.pop((pid, start_ticks), ()):
            count, counts = parse_kills(read_text(file) or ""), self._recent[file]
            if count is not None and count > counts[0]:
                counts[:] = [min(count, known + 1) for known in counts]
                found = found or place
        named = log_names_victim(self.kernel_log, pid)
        if named:
            return "kernel log"
        # In a container the log has other process ids; the process's own group is a witness all the same.
        return found if named is None or found == "cgroup" else None

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
