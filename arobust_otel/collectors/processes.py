"""The ranks' processes, seen from outside: state, work, stops, stalls, crashes and ends.

Works for ranks without a beacon too. `activity` decides whether a process works, `exits` how it ended.
"""

from __future__ import annotations

import os
import signal as unix_signals
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from arobust_otel.collectors import activity, exits
from arobust_otel.collectors.activity import Activity, Reading
from arobust_otel.collectors.crashes import crash_attributes, read_crash
from arobust_otel.collectors.exits import Death, ExitWatch
from arobust_otel.collectors.oom import CGROUP, OomWitness
from arobust_otel.collectors.procfs import PROC
from arobust_otel.collectors.waits import describe_wait
from arobust_otel.model import signals
from arobust_otel.model.beacon import PROCESS_STATES, Child
from arobust_otel.model.samples import ERROR, INFO, WARN, Attributes, Event, Point
from arobust_otel.plugins import Clock, Item, Node, RankProcess

_SECOND_NS = 1_000_000_000
_TICK_NS = _SECOND_NS // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LETTERS = dict(zip(PROCESS_STATES, "?RSDTtZX", strict=True))


@dataclass(slots=True)
class _Track:
    """What is remembered of one process."""

    rank: RankProcess
    activity: Activity
    since_wall_ns: int
    stopped_told: bool = False
    stalled_told: bool = False
    crash_told: bool = False
    crash_seen: bool = False
    ended: bool = False


@dataclass(slots=True)
class ProcessesCollector:
    """State, processor time, memory, I/O, stops, stalls, crashes and ends of the ranks' processes."""

    name: ClassVar[str] = "processes"
    proc: Path = PROC
    cgroup: Path = CGROUP
    stopped_seconds: float = 3.0  # shorter stops are a debugger's or a shell's
    stalled_seconds: float = 3.0
    quiet_seconds: float = 1.0  # without an event for that long a rank is looked at closely
    witness_seconds: float = 0.5  # how long the launcher is waited for before lesser witnesses count
    on_exit: Callable[[], None] | None = None  # called from the watching thread: sample at once
    _tracks: dict[tuple[int, int], _Track] = field(default_factory=dict, init=False)
    _dead: dict[tuple[int, int], Death] = field(default_factory=dict, init=False)
    _watch: ExitWatch = field(init=False)
    _oom: OomWitness = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is watched before the first sample."""
        self._watch = ExitWatch(self.on_exit, self.proc)
        self._oom = OomWitness(self.proc, self.cgroup)

    def close(self) -> None:
        """End the watching thread."""
        self._watch.close()

    def states(self) -> dict[tuple[int, int], str]:
        """Last state of each process by (pid, start ticks), as a letter of /proc; ``X`` when gone."""
        return {
            key: "X" if track.ended else _LETTERS.get(track.activity.state, "?")
            for key, track in self._tracks.items()
        }

    def collect(self, now: Clock, node: Node) -> Iterator[Item]:
        """Sample every living rank; tell stops, stalls, crashes and ends, each once."""
        for launcher in node.launchers:
            if launcher.alive:  # its end is told by its beacon; watching it only wakes the runner
                self._watch.watch(launcher.beacon.pid, launcher.beacon.start_ticks)
        for rank in node.ranks:
            yield from self._sample(self._track(rank, now), now)
        yield from self._ends(node, now)
        self._oom.sample()

    def _track(self, rank: RankProcess, now: Clock) -> _Track:
        track = self._tracks.get(rank.key)
        watcher_tid = rank.beacon.watcher_tid if rank.beacon is not None else 0
        if track is None:
            if rank.alive:
                self._oom.first_seen(*rank.key)
            self._watch.watch(*rank.key)
            born_ns = rank.beacon.born_ns if rank.beacon is not None else now.wall_ns
            track = self._tracks[rank.key] = _Track(rank, Activity(watcher_tid, _TICK_NS), born_ns)
        track.rank = rank
        track.activity.watcher_tid = watcher_tid
        return track

    def _sample(self, track: _Track, now: Clock) -> Iterator[Item]:
        if track.ended:
            return
        rank = track.rank
        reading = self._look(track, now)
        if reading is None or not rank.alive or (rank.start_ticks not in (0, reading.stat.start_ticks)):
            return
        track.activity.update(reading)
        yield from gauges(track.rank, track.activity, track.since_wall_ns, now)
        yield from self._stops(track, now)
        yield from self._stalls(track, now)
        yield from self._crashes(track, now)

    def _look(self, track: _Track, now: Clock) -> Reading | None:
        """Look closely at a rank that has been quiet for a second, or whose main task is not just at work."""
        rank = track.rank
        event = rank.event_mono_ns
        if event is not None and _seconds(now.mono_ns - event) < self.quiet_seconds:
            reading = activity.glance(self.proc, rank.pid, now.mono_ns)
            if reading is None or reading.stat.state in "RS":
                return reading
        return activity.read(self.proc, rank.pid, track.activity.watcher_tid, now.mono_ns)

    def _stops(self, track: _Track, now: Clock) -> Iterator[Event]:
        since = track.activity.stopped_mono_ns
        rank = track.rank
        if since is None and track.stopped_told:
            track.stopped_told = False
            body = f"rank {rank.rank} (process {rank.pid}) runs again"
            yield Event(signals.RANK_CONTINUED, now.wall_ns, body, rank.event_attributes())
        if since is None or track.stopped_told or _seconds(now.mono_ns - since) < self.stopped_seconds:
            return
        track.stopped_told = True
        body = f"rank {rank.rank} (process {rank.pid}): every task is stopped by a signal"
        at = now.wall_ns - (now.mono_ns - since)
        yield Event(signals.RANK_STOPPED, at, body, rank.event_attributes(), ERROR)

    def _stalls(self, track: _Track, now: Clock) -> Iterator[Event]:
        rank = track.rank
        last = last_progress(rank, track.activity)
        if last is None:
            return
        stalled = _seconds(now.mono_ns - last) >= self.stalled_seconds
        if stalled and not track.stalled_told:
            track.stalled_told = True
            wait = describe_wait(rank.pid, self.proc)
            body = f"rank {rank.rank} makes no progress" + (f": main thread {wait}" if wait else "")
            at = now.wall_ns - (now.mono_ns - last)
            yield Event(signals.RANK_STALLED, at, body, rank.event_attributes(), WARN)
        elif track.stalled_told and not stalled:
            track.stalled_told = False
            body = f"rank {rank.rank} makes progress again"
            yield Event(signals.RANK_RESUMED, now.wall_ns, body, rank.event_attributes())

    def _crashes(self, track: _Track, now: Clock) -> Iterator[Event]:
        """Once, when the kernel writes a core or the crash file names a fatal error with its stack.

        A report without a stack may be half written: it gets one more sample.
        """
        reading = track.activity.reading
        if track.crash_told or reading is None or not reading.is_deep:
            return
        report = read_crash(track.rank.path)
        attributes = crash_attributes(report) if report is not None else {}
        complete = signals.EXCEPTION_STACK in attributes or (report is not None and track.crash_seen)
        track.crash_seen = report is not None
        if not complete and not reading.is_dumping_core:
            return
        track.crash_told = True
        rank = track.rank
        what = report.reason if report is not None else "the kernel writes a core of it"
        body = f"rank {rank.rank} (process {rank.pid}) crashes: {what}"
        yield Event(
            signals.RANK_CRASHING, now.wall_ns, body, {**rank.event_attributes(), **attributes}, ERROR
        )

    def _ends(self, node: Node, now: Clock) -> Iterator[Item]:
        """Ends whose witness is found or awaited no longer, in the order of death."""
        for death in self._watch.deaths():
            self._dead.setdefault((death.pid, death.start_ticks), death)
        for key, track in self._tracks.items():
            unseen = key not in self._dead and not self._watch.is_watching(*key)
            if unseen and not track.rank.alive and not track.ended:
                self._dead[key] = Death(*key, now.wall_ns, now.mono_ns, None, seen_end=False)
        for key, death in list(self._dead.items()):
            dead = self._tracks.get(key)
            if dead is None or dead.ended:
                del self._dead[key]
            else:
                yield from self._end(dead, death, node, now)

    def _end(self, track: _Track, death: Death, node: Node, now: Clock) -> Iterator[Item]:
        key = (death.pid, death.start_ticks)
        child, launcher_lives = find_child(node, death.pid)
        found = decide_exit(
            launcher=child.wait_status if child is not None else None,
            pidfd=self._watch.exit_code(*key),
            zombie=death.code,
            may_wait=_seconds(now.mono_ns - death.mono_ns) < self.witness_seconds,
            launcher_lives=launcher_lives,
        )
        if found is None:
            return
        code, witness = found
        track.ended = True
        self._watch.forget(*key)
        place = self._oom.claim(*key) if code == -unix_signals.SIGKILL else None
        at = child.ended_ns if child is not None and child.ended_ns and not death.seen_end else death.wall_ns
        yield exited(track.rank, at, code, witness, place)
        gone = PROCESS_STATES.index("gone")
        yield Point(signals.PROCESS_STATE, gone, now.wall_ns, track.rank.attributes())


def gauges(rank: RankProcess, seen: Activity, since_wall_ns: int, now: Clock) -> Iterator[Point]:
    """Points of one living process; what /proc does not tell is left out."""
    attributes = rank.attributes()

    def point(name: str, value: float) -> Point:
        return Point(name, value, now.wall_ns, attributes)

    stopped_ns = now.mono_ns - seen.stopped_mono_ns if seen.stopped_mono_ns is not None else 0
    yield point(signals.PROCESS_STATE, PROCESS_STATES.index(seen.state))
    yield point(signals.STOPPED_FOR, _seconds(stopped_ns))
    if seen.cpu_mono_ns is not None:
        yield point(signals.CPU_AGE, _seconds(now.mono_ns - seen.cpu_mono_ns))
    if seen.io_mono_ns is not None:
        yield point(signals.IO_AGE, _seconds(now.mono_ns - seen.io_mono_ns))
    if seen.cpu_share is not None:
        yield point(signals.CPU_UTILIZATION, seen.cpu_share)
    reading = seen.reading
    if reading is None:
        return
    yield point(signals.MEMORY_USAGE, reading.stat.resident_pages * _PAGE_BYTES)
    yield Point(signals.PROCESS_INFO, 1, now.wall_ns, rank.event_attributes())
    if reading.io is not None:
        for direction, value in (("read", reading.io.read_bytes), ("write", reading.io.written_bytes)):
            to: Attributes = {**attributes, signals.DISK_DIRECTION: direction}
            yield Point(signals.DISK_IO, value, now.wall_ns, to, since_wall_ns)


def last_progress(rank: RankProcess, seen: Activity) -> int | None:
    """When the rank last did anything that we can see, on the monotonic clock; None where we see nothing."""
    times = [time for time in (rank.event_mono_ns, seen.cpu_mono_ns, seen.io_mono_ns) if time is not None]
    return max(times) if times else None


def find_child(node: Node, pid: int) -> tuple[Child | None, bool]:
    """The launcher's record of a process, and whether that launcher can still add to it."""
    for launcher in node.launchers:
        for child in launcher.beacon.children:
            if child.pid == pid:
                return child, launcher.alive
    return None, False


def decide_exit(
    *, launcher: int | None, pidfd: int | None, zombie: int | None, may_wait: bool, launcher_lives: bool
) -> tuple[int | None, str] | None:
    """Exit code and who saw it, best witness first; None where it is worth waiting for a better one.

    The launcher waited for its child, so it is sure. The kernel's record appears when the process is reaped.
    """
    if launcher is not None:
        return launcher, exits.LAUNCHER
    if launcher_lives and may_wait:
        return None
    for code, witness in ((pidfd, exits.PIDFD), (zombie, exits.ZOMBIE)):
        if code is not None:
            return code, witness
    return None if may_wait else (None, exits.NOBODY)


def exited(rank: RankProcess, at_ns: int, code: int | None, witness: str, oom: str | None) -> Event:
    """The event of a process's end; with the stack of a fatal signal where faulthandler kept one."""
    attributes: Attributes = {**rank.event_attributes(), signals.EXIT_WITNESS: witness}
    report = read_crash(rank.path)
    if report is not None:
        attributes |= crash_attributes(report)
        attributes.pop(signals.EXIT_SIGNAL, None)  # the witness's word counts, not the handler's
    if code is None:
        how = "ended; nobody saw its exit code"
    elif code < 0:
        attributes[signals.EXIT_SIGNAL] = -code
        how = f"was ended by signal {-code} ({_signal_name(-code)})"
    else:
        attributes[signals.EXIT_CODE] = code
        how = f"ended with exit code {code}"
    if oom is not None:
        attributes[signals.EXIT_OOM] = oom
        how += ", by the kernel, for lack of memory"
    if rank.beacon is not None:
        attributes[signals.STEP_ATTRIBUTE] = rank.beacon.step
    body = f"rank {rank.rank} (process {rank.pid}) {how}"
    return Event(signals.RANK_EXITED, at_ns, body, attributes, INFO if code == 0 else ERROR)


def _signal_name(number: int) -> str:
    try:
        return unix_signals.Signals(number).name
    except ValueError:
        return "unknown"


def _seconds(duration_ns: int) -> float:
    return max(0, duration_ns) / _SECOND_NS
