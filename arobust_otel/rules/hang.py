"""Hang: some ranks wait for others that do nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from arobust_otel.model import signals
from arobust_otel.model.beacon import STATES
from arobust_otel.model.finding import Finding, StacksWanted
from arobust_otel.model.incident import Evidence, Incident
from arobust_otel.model.samples import StackCapture
from arobust_otel.state.book import AgentState
from arobust_otel.state.frames import same_place
from arobust_otel.state.job import JobState
from arobust_otel.state.rings import Bools
from arobust_otel.state.stall import Stall, read_stall
from arobust_otel.state.waiting import Lag, Waiting, find_waiting, seen_ranks
from arobust_otel.state.words import agent_of, last_place, name_rank, name_ranks, others, place, seconds

STACKS = 8  # ranks of one kind whose stacks are taken: more say nothing new
RUNNING = STATES.index("running")
FIRST_STEP = STATES.index("first_step")
INIT_GROUP = STATES.index("init_group")
TEARDOWN = STATES.index("teardown")


@dataclass(frozen=True, slots=True)
class HangRule:
    """The job stands still because one rank hangs, or because all do.

    Sees:
        Ranks that entered a collective and do not leave it, while another member of the group has not
        entered it (enqueued counters of the flight recorder, two equal reads). That laggard shows no
        progress of any kind for `idle_seconds` (step, phase, collective, processor time, I/O), and two
        captures of its stack are equal. A laggard that only burns processor time in one unchanged stack
        gets `busy_seconds`, and has to spend most of that on a processor (a crowded host stretches wall
        time), since healthy native calls have been seen to hold the interpreter lock for 18 s. Where nobody
        lags, all ranks without progress (spinning in one unchanged stack for twice as long) for
        `symmetric_seconds`, or for one and a half times the longest
        pause that this phase has been seen to survive.

    Means:
        hang_user_code: the rank is blocked in its own code or in what it called. hang_interpreter_lock: a
        native call keeps the interpreter lock, so that not even the watcher thread runs. hang_collective:
        everybody entered, nobody leaves: look at the network or the devices. deadlock: groups wait for each
        other in opposite order. unknown: all stand still outside of any collective, for example for their
        input. init_hang, teardown_hang: before the first and after the last step.

    Do:
        Restart the worker; the stack says where to look first. For hang_collective capture the flight
        recorder of all ranks before anything is restarted.

    Silent when:
        The laggard works (see rank_busy), is stopped (see process_stopped), has ended (see process_end),
        waits in another group itself, or cannot be seen.
    """

    name: ClassVar[str] = "hang"
    family: ClassVar[str] = "stall"
    priority: ClassVar[int] = 2

    idle_seconds: float = 10.0
    busy_seconds: float = 30.0
    symmetric_seconds: float = 60.0
    ask_seconds: float = 4.0
    fresh_ticks: int = 12
    hold_seconds: float = 0.0
    clear_seconds: float = 5.0

    def judge(self, job: JobState, agents: Sequence[AgentState]) -> Iterator[Finding | StacksWanted]:
        """Asymmetric hang first; the symmetric one only where nobody holds the job."""
        waiting = find_waiting(job, self.ask_seconds, self.fresh_ticks)
        if waiting.holders:
            yield from self._asymmetric(job, waiting)
        elif not waiting.dead:
            yield from self._symmetric(job, waiting)

    def cleared(self, job: JobState, agents: Sequence[AgentState], incident: Incident) -> str | None:
        """The ranks move again, or the job ended."""
        if job.ended() or job.superseded:
            return "the job ended"
        ranks = [c.rank for c in incident.culprits if c.rank is not None] or list(incident.victims)
        ages = [job.at(signals.EVENT_AGE, rank) for rank in ranks]
        if not ranks or any(age is None or age >= self.ask_seconds for age in ages):
            return None
        if not all(job.fresh(self.fresh_ticks)[rank] for rank in ranks):
            return None
        return f"{name_ranks(ranks)} made progress again"

    # -- one rank holds the others ---------------------------------------------------------------------

    def _asymmetric(self, job: JobState, waiting: Waiting) -> Iterator[Finding | StacksWanted]:
        stalls = {lag.rank: read_stall(job, lag.rank) for lag in waiting.holders}
        holders = tuple(lag.rank for lag in waiting.holders[:STACKS])
        yield StacksWanted(
            holders + waiting.waiters[:1], every_seconds=3.0, why="somebody waits for these ranks"
        )
        yield StacksWanted(waiting.waiters[1:STACKS], every_seconds=60.0, why="where the others wait")
        hung = [lag for lag in waiting.holders if self._hangs(job, stalls[lag.rank])]
        if hung:
            yield self._finding(job, hung, stalls, waiting)

    def _hangs(self, job: JobState, stall: Stall) -> bool:
        if stall.stopped or stall.in_disk_wait:
            return False
        captures = _captures_within(job, stall)
        if stall.burns:
            return (
                stall.quiet_seconds >= self.busy_seconds
                and stall.burned_seconds >= 0.75 * self.busy_seconds
                and _unchanged(captures, self.busy_seconds * 0.25)
            )
        if stall.idle_seconds < self.idle_seconds:
            return False
        return _equal_twice(captures) or (not captures and stall.idle_seconds >= 2 * self.idle_seconds)

    def _finding(self, job: JobState, hung: list[Lag], stalls: dict[int, Stall], waiting: Waiting) -> Finding:
        first = stalls[hung[0].rank]
        ranks = tuple(lag.rank for lag in hung)
        captures = _captures_within(job, first)
        cause = "hang_interpreter_lock" if first.lock_held else "hang_user_code"
        return Finding(
            cause=cause,
            summary=_summary(job, hung, first, waiting),
            first_evidence_ns=min(stalls[rank].since_ns for rank in ranks),
            culprits=ranks,
            victims=tuple(rank for rank in waiting.waiters if rank not in ranks),
            grade="two_witnesses" if _equal_twice(captures) else "one_witness",
            evidence=_evidence(job, hung, stalls, waiting),
            unseen=tuple(f"rank {rank}" for rank in waiting.unseen)
            + (() if captures else (f"stack of {name_ranks(ranks)}",)),
            refuted_by=f"{name_ranks(ranks)} entering collective {hung[0].front} of group {hung[0].group}",
            action_why=f"{name_ranks(ranks)} does not come back by itself; nothing points to the hardware",
            stacks_of=ranks + waiting.waiters[:STACKS],
        )

    # -- all of them stand still -----------------------------------------------------------------------

    def _symmetric(self, job: JobState, waiting: Waiting) -> Iterator[Finding | StacksWanted]:
        seen = seen_ranks(job, self.fresh_ticks)
        if not seen.any():
            return
        ranks = [int(rank) for rank in np.flatnonzero(seen)]
        stalls = [read_stall(job, rank) for rank in ranks] if self._all_quiet(job, seen) else []
        if not stalls or any(stall.stopped or stall.in_disk_wait for stall in stalls):
            return
        if min(stall.quiet_seconds for stall in stalls) < self.symmetric_seconds / 2:
            return
        yield StacksWanted(tuple(ranks[:STACKS]), every_seconds=10.0, why="all ranks stand still")
        if min(self._still_seconds(job, stall) for stall in stalls) >= self._patience(job, ranks):
            yield from self._stand_still(job, ranks, stalls, waiting)

    def _still_seconds(self, job: JobState, stall: Stall) -> float:
        """Ranks on an accelerator spin while they wait: with one unchanged stack that is no work.

        Half of that time counts, since a long computation in one native call looks the same.
        """
        if not stall.burns:
            return stall.idle_seconds
        still = _unchanged(_captures_within(job, stall), self.symmetric_seconds / 3)
        return stall.quiet_seconds / 2 if still else 0.0

    def _all_quiet(self, job: JobState, seen: Bools) -> bool:
        states = job.value(signals.STATE)[seen]
        if (states > TEARDOWN).all() or (states <= STATES.index("imported")).all():
            return False
        return bool((job.value(signals.EVENT_AGE)[seen] >= self.symmetric_seconds / 2).all())

    def _patience(self, job: JobState, ranks: list[int]) -> float:
        phases = {job.at(signals.PHASE, rank) for rank in ranks}
        longest = max((job.longest_pause.get(int(p), 0.0) for p in phases if p is not None), default=0.0)
        return max(self.symmetric_seconds, 1.5 * longest)

    def _stand_still(
        self, job: JobState, ranks: list[int], stalls: list[Stall], waiting: Waiting
    ) -> Iterator[Finding]:
        states = [int(job.at(signals.STATE, rank) or 0) for rank in ranks]
        alone = max(job.world_size, len(ranks)) == 1
        cause = _symmetric_cause(states, alone, waiting, set(ranks))
        where = place(last_place(job, ranks[0], stalls[0].since_ns))
        quiet = seconds(min(stall.quiet_seconds for stall in stalls))
        subject = name_rank(job, ranks[0]) if alone else f"All {len(ranks):,} ranks"
        text = f"{subject} without any progress for {quiet}"
        text += f", {'in' if alone else 'the first of them in'} {where}" if where else ""
        unseen = [rank for rank in range(job.world_size) if rank not in ranks and job.alive()[rank]]
        yield Finding(
            cause=cause,
            summary=text + ("." if alone else "; nobody lags behind, so nobody is to blame."),
            first_evidence_ns=min(stall.since_ns for stall in stalls),
            culprits=tuple(ranks) if alone else (),
            victims=() if alone else tuple(ranks),
            grade="cannot_see" if unseen else "one_witness",
            evidence=tuple(_stall_evidence(job, stall) for stall in stalls[:4]),
            unseen=tuple(f"rank {rank}" for rank in unseen[:16]),
            refuted_by="any rank finishing a step",
            stacks_of=tuple(ranks[:STACKS]),
        )


def _symmetric_cause(states: list[int], alone: bool, waiting: Waiting, ranks: set[int]) -> str:
    if waiting.cyclic:
        return "deadlock"
    if min(states) >= TEARDOWN:
        return "teardown_hang"
    if max(states) in (INIT_GROUP, FIRST_STEP) and not alone:
        return "init_hang"
    if alone:
        return "hang_user_code"
    return "hang_collective" if ranks <= set(waiting.waiters) else "unknown"


def _captures_within(job: JobState, stall: Stall) -> list[StackCapture]:
    life = job.lives.get(stall.rank)
    return [item for item in (life.stacks if life else []) if item.time_ns >= stall.since_ns]


def _unchanged(captures: list[StackCapture], span_seconds: float) -> bool:
    """Three captures or more, over at least that time, all in the very same lines."""
    if len(captures) < 3 or captures[-1].time_ns - captures[0].time_ns < span_seconds * 1e9:
        return False
    return all(same_place(captures[0], later) for later in captures[1:])


def _equal_twice(captures: list[StackCapture]) -> bool:
    """The newest two captures are equal and far enough apart to mean something."""
    if len(captures) < 2:
        return False
    first, second = captures[-2:]
    return second.time_ns - first.time_ns >= 1_500_000_000 and same_place(first, second)


def _summary(job: JobState, hung: list[Lag], stall: Stall, waiting: Waiting) -> str:
    lag = hung[0]
    where = place(last_place(job, lag.rank, stall.since_ns))
    text = name_rank(job, lag.rank) + (f" in {where}" if where else " somewhere (no stack to be had)")
    text += f" for {seconds(stall.quiet_seconds)}"
    if stall.lock_held:
        text += ", a native call that keeps the interpreter lock"
    if _equal_twice(_captures_within(job, stall)):
        text += ", the same stack twice"
    text += ", burning CPU, 0 I/O" if stall.burns else ", 0 CPU, 0 I/O"
    text += f"; {others(lag.waiters)} wait{'s' if len(lag.waiters) == 1 else ''}"
    text += f" in collective {lag.front} of group {lag.group}"
    if len(hung) > 1:
        text += f"; so does {name_ranks(other.rank for other in hung[1:])} hang"
    return text + "."


def _stall_evidence(job: JobState, stall: Stall) -> Evidence:
    text = f"rank {stall.rank}: no step, phase or collective for {seconds(stall.quiet_seconds)}"
    text += ", processor time is used" if stall.burns else ", no processor time, no I/O"
    return Evidence(stall.read_ns, "beacon", text, agent_of(job, stall.rank))


def _evidence(
    job: JobState, hung: list[Lag], stalls: dict[int, Stall], waiting: Waiting
) -> tuple[Evidence, ...]:
    items: list[Evidence] = []
    for lag in hung[:8]:
        stall = stalls[lag.rank]
        source = agent_of(job, lag.rank)
        items.append(_stall_evidence(job, stall))
        says = f"rank {lag.rank} entered {lag.entered} of {lag.front} collectives of group {lag.group}"
        items.append(Evidence(stall.read_ns, "flight_recorder", says, source))
        if stall.lock_held:
            says = f"rank {lag.rank}: its watcher thread has not run for {seconds(stall.tick_seconds)}"
            items.append(Evidence(stall.read_ns, "beacon", says, source))
        for capture in _captures_within(job, stall)[-2:]:
            where = place(last_place(job, lag.rank, stall.since_ns)) or "no frame"
            says = f"rank {lag.rank}: main thread in {where} ({capture.method})"
            items.append(Evidence(capture.time_ns, "stack", says, source))
    busy = [lag for lag in waiting.holders if lag.rank not in {item.rank for item in hung}]
    for lag in busy[:4]:
        stall = stalls[lag.rank]
        items.append(
            Evidence(
                stall.read_ns,
                "beacon",
                f"rank {lag.rank} lags too, and works",
                agent_of(job, lag.rank),
                supports=False,
            )
        )
    return tuple(items)
