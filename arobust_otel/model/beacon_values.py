"""What a beacon says, as frozen values; no bytes and no files here (see `beacon` and `beacon_codec`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GroupCounters:
    """Counters of one process group; `ranks` is the text of model/ranks.py, global ranks."""

    name: str
    ranks: str
    backend: str
    enqueued: int
    completed: int


@dataclass(frozen=True, slots=True)
class SeenException:
    """The first exception that nobody caught; function, file and line are the innermost of user code."""

    time_ns: int
    step: int
    type: str
    message: str
    function: str
    file: str
    line: int
    thread: str


@dataclass(frozen=True, slots=True)
class RankBeacon:
    """One rank as it describes itself. `*_mono_ns` are CLOCK_MONOTONIC, other `*_ns` since the epoch.

    `torn` is true where a writer stood inside a section in every read (a process stopped or killed there):
    the values of that section may belong to two events.
    """

    pid: int
    start_ticks: int
    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    node_rank: int | None
    incarnation: int
    job_id: str
    host: str
    role: str
    script: str
    born_ns: int
    main_tid: int
    watcher_tid: int
    state: str
    step: int
    step_end_mono_ns: int
    step_duration_ns: int
    phase: str
    phase_since_mono_ns: int
    event_mono_ns: int
    event_count: int
    tick_count: int
    tick_mono_ns: int
    groups: tuple[GroupCounters, ...]
    groups_read_mono_ns: int
    device_counters: bool
    exception: SeenException | None
    exit_begun_ns: int | None
    nonfinite_step: int | None
    nonfinite_ns: int | None
    loss: float | None  # newest loss that was read; None before the first, and once it is not finite
    stack_request: int
    stack_done: int
    capabilities: tuple[str, ...]
    gaps: tuple[str, ...]
    torn: bool = False


@dataclass(frozen=True, slots=True)
class Child:
    """A process that the launcher started. `wait_status` is Popen's return code: negative is a signal."""

    pid: int
    start_ticks: int
    rank: int | None
    local_rank: int | None
    born_ns: int
    ended_ns: int | None
    wait_status: int | None


@dataclass(frozen=True, slots=True)
class LauncherBeacon:
    """A launcher as it describes itself."""

    pid: int
    start_ticks: int
    job_id: str
    incarnation: int
    host: str
    born_ns: int
    argv: str
    exit_begun_ns: int | None
    signal_received: int | None
    children: tuple[Child, ...]
    torn: bool = False
