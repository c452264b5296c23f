"""How ranks ended, and who began: the first fact of each rank, told apart into roots and consequences.

After one rank is gone its peers die too, within milliseconds and in any order. Order in time alone
misleads: the words "connection reset by peer", a SIGTERM from the launcher or a plain exit code 1 are
consequences as long as anything better is known.
"""

from __future__ import annotations

import re
import signal as _signal_numbers
from dataclasses import dataclass

from arobust_otel.model import signals
from arobust_otel.model.columns import Fact
from arobust_otel.model.samples import Frame
from arobust_otel.state.job import MAIN_THREAD, JobState, RankLife

EXCEPTION, CRASH, KILLED, TERMINATED, EXIT, CLEAN = (
    "exception",
    "crash",
    "killed",
    "terminated",
    "exit",
    "clean",
)
FATAL = {
    int(number)
    for number in (
        _signal_numbers.SIGSEGV,
        _signal_numbers.SIGBUS,
        _signal_numbers.SIGFPE,
        _signal_numbers.SIGILL,
        _signal_numbers.SIGABRT,
        _signal_numbers.SIGTRAP,
        _signal_numbers.SIGSYS,
    )
}
_KEYBOARD = int(_signal_numbers.SIGINT)
_ASKED = {int(_signal_numbers.SIGTERM), int(_signal_numbers.SIGINT), int(_signal_numbers.SIGHUP)}
# Ends that are often a consequence lose against any other root that comes within this time.
WEAK_NS = 5_000_000_000
STANDS_SECONDS = 5.0  # a rank that stands still for that long after a thread's exception stands because of it
THREAD_ENDS_NS = 60_000_000_000  # a thread's exception this long before a bad end may be its reason

_CASCADE = re.compile(
    r"connection (was )?(reset|closed|refused|aborted)|closed by peer|reset by peer|broken pipe|remote worker"
    r"|peer .{0,40}(exited|closed|disconnected)|socket (closed|error)|timed? ?out waiting|recvbytes|sendbytes"
    r"|DistNetworkError|DistStoreError|ncclRemoteError|NCCL communicator was aborted|watchdog",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class End:
    """The end of one rank. `time_ns` is its first fact; `code` is None where nobody saw it."""

    rank: int
    time_ns: int
    kind: str
    fact: Fact
    exited: Fact | None
    cascade: bool
    weak: bool

    @property
    def code(self) -> int | None:
        """Exit code; None after a signal, before the end, or where nobody saw it."""
        value = self.exited.attributes.get(signals.EXIT_CODE) if self.exited else None
        return value if isinstance(value, int) else None

    @property
    def signal(self) -> int | None:
        """Signal that ended the process, as far as it is known."""
        for fact in (self.exited, self.fact):
            value = fact.attributes.get(signals.EXIT_SIGNAL) if fact else None
            if isinstance(value, int):
                return value
        return None

    @property
    def frame(self) -> Frame | None:
        """Where in user code it happened."""
        for fact in (self.fact, self.exited):
            function = fact.attributes.get(signals.CODE_FUNCTION) if fact else None
            if fact and function:
                line = fact.attributes.get(signals.CODE_LINE, 0)
                path = str(fact.attributes.get(signals.CODE_FILE, ""))
                return Frame(str(function), path, int(line) if isinstance(line, (int, float)) else 0)
        return None


def signal_name(number: int) -> str:
    """``SIGSEGV``; ``signal 70`` where the number has no name."""
    try:
        return _signal_numbers.Signals(number).name
    except ValueError:
        return f"signal {number}"


def read_ends(job: JobState) -> list[End]:
    """Ends of all ranks that have one, earliest first."""
    ends = [end for rank, life in job.lives.items() if (end := _read_end(job, rank, life))]
    return sorted(ends, key=lambda end: (end.time_ns, end.rank))


def _read_end(job: JobState, rank: int, life: RankLife) -> End | None:
    exception = life.exception if _ends_the_rank(job, rank, life) else None
    facts = [fact for fact in (exception, life.crashing, life.exited) if fact is not None]
    if not facts:
        return None
    fact = min(facts, key=lambda item: item.time_ns)
    if life.crashing is not None and fact is life.exited:
        fact = life.crashing
    kind = _kind(life, fact)
    cascade = kind == EXCEPTION and _is_cascade(fact)
    number = life.exited.attributes.get(signals.EXIT_SIGNAL) if life.exited else None
    aborted = kind == CRASH and number == int(_signal_numbers.SIGABRT)
    return End(
        rank=rank,
        time_ns=min(item.time_ns for item in facts),
        kind=kind,
        fact=fact,
        exited=life.exited,
        cascade=cascade,
        weak=aborted or kind in (EXIT, TERMINATED),
    )


def _ends_the_rank(job: JobState, rank: int, life: RankLife) -> bool:
    """An exception of the main thread ends the process; one of another thread may leave it at work."""
    fact = life.exception
    if fact is None or fact.attributes.get(signals.THREAD_NAME, MAIN_THREAD) == MAIN_THREAD:
        return fact is not None
    if life.exited is None:
        return (job.at(signals.EVENT_AGE, rank) or 0.0) >= STANDS_SECONDS
    clean = life.exited.attributes.get(signals.EXIT_CODE) == 0
    return not clean and life.exited.time_ns - fact.time_ns <= THREAD_ENDS_NS


def _kind(life: RankLife, fact: Fact) -> str:
    if fact is life.exception:
        return EXCEPTION
    if fact is life.crashing:
        return CRASH
    number = fact.attributes.get(signals.EXIT_SIGNAL)
    if isinstance(number, int):
        if number in FATAL:
            return CRASH
        return TERMINATED if number in _ASKED else KILLED
    return CLEAN if fact.attributes.get(signals.EXIT_CODE) == 0 else EXIT


def _is_cascade(fact: Fact) -> bool:
    texts = (signals.EXCEPTION_TYPE, signals.EXCEPTION_MESSAGE, signals.EXCEPTION_STACK)
    return any(_CASCADE.search(str(fact.attributes.get(name, ""))) for name in texts)


def find_root(job: JobState, ends: list[End], waited_for: tuple[int, ...]) -> End | None:
    """The end that began it; None where no end needs an explanation.

    waited_for: ended ranks that living peers have been waiting for.
    """
    roots = [end for end in ends if not end.cascade and _needs_explanation(job, end, ends, waited_for)]
    if not roots:
        return None
    return min(roots, key=lambda end: (end.time_ns + (WEAK_NS if end.weak else 0), end.rank))


def _needs_explanation(job: JobState, end: End, ends: list[End], waited_for: tuple[int, ...]) -> bool:
    if end.kind == CLEAN:
        bad_after = any(
            other.rank != end.rank
            and (other.cascade or other.kind == EXIT)
            and other.time_ns >= end.time_ns - 500_000_000
            for other in ends
        )
        return bad_after or end.rank in waited_for
    if end.kind == TERMINATED:
        return not _job_was_stopped(job, ends)
    return True


def _job_was_stopped(job: JobState, ends: list[End]) -> bool:
    """Somebody ended the whole job: at the keyboard, through the launcher, or rank by rank politely."""
    asked = [end for end in ends if end.kind == TERMINATED]
    if job.launcher_signal is not None or any(end.signal == _KEYBOARD for end in asked):
        return True
    everybody = len(asked) >= max(job.world_size, len(job.lives)) > 1
    return everybody and asked[-1].time_ns - asked[0].time_ns <= 3_000_000_000
