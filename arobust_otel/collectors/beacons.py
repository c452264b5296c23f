"""Progress and sticky facts that ranks and launchers write about themselves.

Reads no file: the beacons come with the `Node`. The two side files (traceback text) are read once per fact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from arobust_otel.collectors.procfs import read_text
from arobust_otel.model import signals
from arobust_otel.model.beacon import GAPS, PHASES, STATES, RankBeacon
from arobust_otel.model.samples import ERROR, INFO, WARN, Attributes, Event, Point
from arobust_otel.plugins import Clock, Item, LauncherProcess, Node, RankProcess

_TRACEBACK_BYTES = 64 * 1024
_SECOND_NS = 1_000_000_000


@dataclass(slots=True)
class BeaconsCollector:
    """Step, state, phase, collective counters and first facts of every rank of the node."""

    name: ClassVar[str] = "beacons"
    _told: set[tuple[object, ...]] = field(default_factory=set, init=False)

    def collect(self, now: Clock, node: Node) -> Iterator[Item]:
        """Gauges of living ranks; each fact once, also of ranks that are gone."""
        for rank in node.ranks:
            if rank.beacon is not None and rank.alive:
                yield from progress(rank, rank.beacon, now)
            yield from self._new(facts(rank, now))
        for launcher in node.launchers:
            yield from self._new(launcher_facts(launcher, now))

    def _new(self, found: Iterator[tuple[tuple[object, ...], Event]]) -> Iterator[Event]:
        for key, event in found:
            if key not in self._told:
                self._told.add(key)
                yield event


def progress(rank: RankProcess, page: RankBeacon, now: Clock) -> Iterator[Point]:
    """Gauges of one rank; what the beacon does not know is left out."""
    attributes = rank.attributes()

    def point(name: str, value: float) -> Point:
        return Point(name, value, now.wall_ns, attributes)

    yield point(signals.STEP, page.step)
    yield point(signals.STATE, STATES.index(page.state) if page.state in STATES else 0)
    yield point(signals.PHASE, PHASES.index(page.phase) if page.phase in PHASES else 0)
    if page.phase_since_mono_ns:
        yield point(signals.PHASE_AGE, _age(now, page.phase_since_mono_ns))
    if page.step_duration_ns:
        yield point(signals.STEP_DURATION, page.step_duration_ns / _SECOND_NS)
    if page.loss is not None:
        yield point(signals.LOSS, page.loss)
    if rank.event_mono_ns is not None:
        yield point(signals.EVENT_AGE, _age(now, rank.event_mono_ns))
    if page.tick_count:
        yield point(signals.TICK_AGE, _age(now, page.tick_mono_ns))
    yield from _groups(rank, page, now)


def _groups(rank: RankProcess, page: RankBeacon, now: Clock) -> Iterator[Point]:
    for group in page.groups:
        attributes: Attributes = {
            **rank.attributes(),
            signals.GROUP_NAME: group.name,
            signals.GROUP_RANKS: group.ranks,
            signals.BACKEND: group.backend,
        }
        yield Point(signals.ENQUEUED, group.enqueued, now.wall_ns, attributes)
        yield Point(signals.COMPLETED, group.completed, now.wall_ns, attributes)
        if page.groups_read_mono_ns:
            yield Point(signals.READ_AGE, _age(now, page.groups_read_mono_ns), now.wall_ns, attributes)


def facts(rank: RankProcess, now: Clock) -> Iterator[tuple[tuple[object, ...], Event]]:
    """Every fact that holds of a rank, with the key under which it is told once."""
    page = rank.beacon
    born: Attributes = rank.event_attributes()
    if rank.world_size:
        born[signals.WORLD_SIZE] = rank.world_size
    born_ns = page.born_ns if page is not None else now.wall_ns
    yield (
        (*rank.key, signals.RANK_BORN),
        Event(signals.RANK_BORN, born_ns, f"rank {rank.rank} runs as process {rank.pid}", born),
    )
    if page is None:
        return
    if page.exception is not None:
        # the main thread's exception may replace that of another thread
        yield (*rank.key, signals.RANK_EXCEPTION, page.exception.time_ns), _exception(rank, page)
    if page.nonfinite_step is not None:
        attributes: Attributes = {**rank.event_attributes(), signals.STEP_ATTRIBUTE: page.nonfinite_step}
        body = f"the loss of rank {rank.rank} is not finite since step {page.nonfinite_step}"
        at = page.nonfinite_ns or now.wall_ns
        yield (*rank.key, signals.RANK_NONFINITE), Event(signals.RANK_NONFINITE, at, body, attributes, WARN)
    if page.exit_begun_ns is not None:
        body = f"the interpreter of rank {rank.rank} has begun to end"
        yield (
            (*rank.key, signals.RANK_EXITING),
            Event(signals.RANK_EXITING, page.exit_begun_ns, body, rank.event_attributes()),
        )
    for code in page.gaps:
        yield (code,), _gap(rank, code, now)


def _exception(rank: RankProcess, page: RankBeacon) -> Event:
    seen = page.exception
    if seen is None:
        raise ValueError("this beacon holds no exception")
    attributes: Attributes = {
        **rank.event_attributes(),
        signals.EXCEPTION_TYPE: seen.type,
        signals.EXCEPTION_MESSAGE: seen.message,
        signals.STEP_ATTRIBUTE: seen.step,
        signals.THREAD_NAME: seen.thread,
    }
    if seen.function or seen.file:
        attributes[signals.CODE_FUNCTION] = seen.function
        attributes[signals.CODE_FILE] = seen.file
        attributes[signals.CODE_LINE] = seen.line
    text = read_text(rank.path.with_suffix(".exception")) if rank.path is not None else None
    if text:
        attributes[signals.EXCEPTION_STACK] = text[-_TRACEBACK_BYTES:]
    body = f"rank {rank.rank}: {seen.type}: {seen.message}"
    return Event(signals.RANK_EXCEPTION, seen.time_ns, body, attributes, ERROR)


def _gap(rank: RankProcess, code: str, now: Clock) -> Event:
    text, remedy = GAPS.get(code, (f"{code} is missing", "use the same version of arobust_otel everywhere"))
    attributes: Attributes = {**rank.event_attributes(), signals.CAPABILITY: code, signals.REMEDY: remedy}
    return Event(signals.CAPABILITY_MISSING, now.wall_ns, f"{text}; {remedy}", attributes, INFO)


def launcher_facts(launcher: LauncherProcess, now: Clock) -> Iterator[tuple[tuple[object, ...], Event]]:
    """That the launcher ended or was told to end, at the first sign of it."""
    page = launcher.beacon
    if launcher.alive and page.exit_begun_ns is None and page.signal_received is None:
        return
    attributes: Attributes = {signals.PID: page.pid}
    body = f"the launcher (process {page.pid}) ended"
    if page.signal_received is not None:
        attributes[signals.EXIT_SIGNAL] = page.signal_received
        body = f"the launcher (process {page.pid}) received signal {page.signal_received}"
    at = page.exit_begun_ns or now.wall_ns
    yield (
        (page.pid, page.start_ticks, signals.LAUNCHER_EXITED),
        Event(signals.LAUNCHER_EXITED, at, body, attributes, WARN),
    )


def _age(now: Clock, since_mono_ns: int) -> float:
    return max(0, now.mono_ns - since_mono_ns) / _SECOND_NS
