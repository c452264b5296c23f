"""Process end: a rank is gone, or about to be, and the others cannot go on without it."""

from __future__ import annotations

import signal as _signal_numbers
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from arobust_otel.model import signals
from arobust_otel.model.finding import Finding, StacksWanted
from arobust_otel.model.incident import Evidence, Incident
from arobust_otel.state.book import AgentState
from arobust_otel.state.ends import (
    CLEAN,
    CRASH,
    EXCEPTION,
    EXIT,
    KILLED,
    End,
    find_root,
    read_ends,
    signal_name,
)
from arobust_otel.state.job import JobState
from arobust_otel.state.waiting import find_waiting
from arobust_otel.state.words import agent_of, name_rank, others, place

SOFTWARE_SPREAD_NS = 10_000_000_000


@dataclass(frozen=True, slots=True)
class ProcessEndRule:
    """A rank ended, or began to end, while the job still needed it.

    Sees:
        The first fact of each rank: an uncaught exception (written by the rank itself before anything
        else), a fatal signal or a core being written, or the exit with code or signal as the launcher, a
        pidfd or a zombie showed it.

    Means:
        python_exception, process_crashed, process_killed, out_of_memory_host, process_exit or early_exit on
        the rank that began; ranks that only lost their peer are victims. The same exception in the same
        line on all ranks is software_error, and nobody is to blame.

    Do:
        An exception or a data end is for the job's owner. A crash or a kill: restart the worker, and look
        at the host's kernel log where it repeats. Out of memory: lower the memory need, or raise the limit.

    Silent when:
        All ranks end with code 0, somebody stopped the whole job (SIGTERM to launcher or all ranks), or a
        rank ended long after an incident that is already open.
    """

    name: ClassVar[str] = "process_end"
    family: ClassVar[str] = "stall"
    priority: ClassVar[int] = 0

    hold_seconds: float = 1.0
    clear_seconds: float = 5.0
    waited_seconds: float = 10.0
    fresh_ticks: int = 12

    def judge(self, job: JobState, agents: Sequence[AgentState]) -> Iterator[Finding | StacksWanted]:
        """One finding for the end that began it."""
        ends = read_ends(job)
        if not ends:
            return
        dead = find_waiting(job, self.waited_seconds, self.fresh_ticks).dead
        root = find_root(job, ends, dead)
        if root is not None:
            yield _same_everywhere(job, root, ends) or _finding(job, root, ends)

    def cleared(self, job: JobState, agents: Sequence[AgentState], incident: Incident) -> str | None:
        """A later attempt of the job makes steps, or the rank was born again and does."""
        if job.successor_runs:
            return "a later attempt of the job makes steps"
        ranks = [c.rank for c in incident.culprits if c.rank is not None]
        alive = [rank for rank in ranks if rank in job.lives and job.lives[rank].alive]
        ages = [job.at(signals.EVENT_AGE, rank) for rank in alive]
        if not ranks or len(alive) < len(ranks) or any(age is None or age >= 5.0 for age in ages):
            return None
        if any(job.lives[rank].exception or job.lives[rank].crashing for rank in ranks):
            return None
        return "the rank was started again and makes steps"


def _same_everywhere(job: JobState, root: End, ends: list[End]) -> Finding | None:
    """The same exception in the same line on every rank: code or configuration."""
    if root.kind != EXCEPTION or max(job.world_size, len(job.lives)) < 2:
        return None
    keys = (signals.EXCEPTION_TYPE, signals.CODE_FUNCTION, signals.CODE_LINE)
    same = [
        end
        for end in ends
        if end.kind == EXCEPTION
        and all(end.fact.attributes.get(key) == root.fact.attributes.get(key) for key in keys)
        and end.time_ns - root.time_ns <= SOFTWARE_SPREAD_NS
    ]
    if len(same) < max(job.world_size, len(job.lives)):
        return None
    what = _what(root)
    return Finding(
        cause="software_error",
        summary=f"All {len(same):,} ranks {what}: code or configuration, nobody is to blame.",
        first_evidence_ns=root.time_ns,
        victims=tuple(end.rank for end in same),
        grade="two_witnesses",
        evidence=tuple(_evidence(job, end) for end in same[:4]),
        refuted_by="a rank that does the same work without this error",
    )


def _finding(job: JobState, root: End, ends: list[End]) -> Finding:
    cause = _cause(root)
    victims = tuple(sorted({*(end.rank for end in ends), *job.lives} - {root.rank}))
    text = f"{name_rank(job, root.rank)} {_what(root)}"
    if victims:
        text += f"; {others(victims)} only lost {'its' if len(victims) == 1 else 'their'} peer"
    witness = root.exited.attributes.get(signals.EXIT_WITNESS) if root.exited else None
    nobody_saw = witness in (None, "none")
    return Finding(
        cause=cause,
        summary=text + ".",
        first_evidence_ns=root.time_ns,
        culprits=(root.rank,),
        victims=victims,
        grade="one_witness" if nobody_saw else "hard_fact",
        evidence=tuple(_evidence(job, end) for end in [root, *[e for e in ends if e is not root][:4]]),
        unseen=("exit code",) if root.exited and nobody_saw else (),
        refuted_by="an earlier end of another rank",
        action_why=_WHY[cause],
        stacks_of=(),
    )


_WHY = {
    "python_exception": "the error is in the job's own code or data; the node is not to blame",
    "process_crashed": "a native crash; look for repetition on the same node before evicting it",
    "process_killed": "somebody or something outside the process sent the signal",
    "process_exit": "the process chose to end; its log says why",
    "early_exit": "uneven data or an early return; the node is not to blame",
    "out_of_memory_host": "the host's memory, or the limit of its control group, was exhausted",
}


def _cause(end: End) -> str:
    if end.kind == KILLED and end.exited is not None and signals.EXIT_OOM in end.exited.attributes:
        return "out_of_memory_host"
    if end.kind == EXIT:
        return "process_exit"
    if end.kind == CLEAN:
        return "early_exit"
    return {EXCEPTION: "python_exception", CRASH: "process_crashed"}.get(end.kind, "process_killed")


def _what(end: End) -> str:
    where = place(end.frame)
    inside = f" in {where}" if where else ""
    step = end.fact.attributes.get(signals.STEP_ATTRIBUTE)
    at_step = f" at step {step}" if isinstance(step, int) else ""
    if end.kind == EXCEPTION:
        kind = str(end.fact.attributes.get(signals.EXCEPTION_TYPE, "an exception"))
        message = str(end.fact.attributes.get(signals.EXCEPTION_MESSAGE, ""))[:160]
        return f"raised {kind}{f': {message}' if message else ''}{inside}{at_step}"
    if end.kind == CRASH:
        number = end.signal
        name = signal_name(number) if number is not None else "a fatal signal (the kernel writes a core)"
        return f"crashed with {name}{inside}{at_step}"
    if end.kind == EXIT:
        code = "an exit code that nobody saw" if end.code is None else f"exit code {end.code}"
        return f"ended with {code} and without an exception{inside}"
    if end.kind == CLEAN:
        return "ended with exit code 0 while its peers still needed it"
    return _killed(end)


def _killed(end: End) -> str:
    number = end.signal if end.signal is not None else int(_signal_numbers.SIGKILL)
    where = end.exited.attributes.get(signals.EXIT_OOM) if end.exited else None
    if where is not None:
        return f"was ended by the kernel's out-of-memory killer (seen in: {where})"
    return f"was ended by {signal_name(number)} from outside the process"


def _evidence(job: JobState, end: End) -> Evidence:
    agent = agent_of(job, end.rank)
    kind = "beacon" if end.kind == EXCEPTION else "process"
    witness = end.exited.attributes.get(signals.EXIT_WITNESS) if end.exited else None
    source = f"{agent} ({witness})" if witness else agent
    role = " (it lost its peer)" if end.cascade else ""
    return Evidence(end.time_ns, kind, f"rank {end.rank} {_what(end)}{role}", source)
