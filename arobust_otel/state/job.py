"""One incarnation of one job: what its ranks last reported, their facts, stacks and groups.

State changes only in `apply_*` and `forget`; everything else reads. Times are the agents'; freshness is
counted in the master's ticks, so that the master's own downtime ages nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from arobust_otel.model import signals
from arobust_otel.model.columns import Fact, MetricColumns
from arobust_otel.model.ranks import parse_ranks
from arobust_otel.model.samples import StackCapture
from arobust_otel.state.groups import GroupState
from arobust_otel.state.rings import Bools, Floats, Ints, Rings

SIGNALS: tuple[str, ...] = (
    signals.STEP,
    signals.STATE,
    signals.PHASE,
    signals.PHASE_AGE,
    signals.STEP_DURATION,
    signals.EVENT_AGE,
    signals.CPU_AGE,
    signals.IO_AGE,
    signals.TICK_AGE,
    signals.PROCESS_STATE,
    signals.STOPPED_FOR,
    signals.CPU_UTILIZATION,
    signals.MEMORY_USAGE,
    signals.DISK_IO,
)
INDEX: dict[str, int] = {name: index for index, name in enumerate(SIGNALS)}
SLOTS = 32
MAX_RANKS = 1 << 17
MAX_GROUPS = 4096
MAX_STACKS = 4
MAIN_THREAD = "MainThread"


@dataclass(slots=True)
class RankLife:
    """Facts of one process that is, or was, this rank."""

    pid: int | None = None
    local_rank: int | None = None
    role: str | None = None
    node: str | None = None
    agent: str = ""
    born: Fact | None = None
    exited: Fact | None = None
    exception: Fact | None = None
    crashing: Fact | None = None
    exiting: Fact | None = None
    nonfinite: Fact | None = None
    stacks: list[StackCapture] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """No end of the process was reported."""
        return self.exited is None


_FACT_FIELDS = {
    signals.RANK_EXITED: "exited",
    signals.RANK_EXCEPTION: "exception",
    signals.RANK_CRASHING: "crashing",
    signals.RANK_EXITING: "exiting",
    signals.RANK_NONFINITE: "nonfinite",
}


def _replaces(old: Fact, new: Fact) -> bool:
    """The main thread's exception takes the place of another thread's."""
    thread = old.attributes.get(signals.THREAD_NAME)
    return new.attributes.get(signals.THREAD_NAME) == MAIN_THREAD and thread not in (None, MAIN_THREAD)


@dataclass(slots=True)
class JobState:
    """latest: (signals, ranks) newest value, NaN where the newest report lacks it.

    point_ns: (ranks,) time of the newest report, agent's clock. heard_tick: (ranks,) tick at which it came,
    -1 where none did. longest_pause: by phase code, the longest time without an event that ended by itself.
    """

    job_id: str
    incarnation: int
    tick: int = 0
    now_ns: int = 0
    first_tick: int = 0
    world_size: int = 0
    superseded: bool = False  # a newer incarnation exists
    successor_runs: bool = False  # and it makes steps
    late_points: int = 0
    foreign_ranks: int = 0
    latest: Floats = field(default_factory=lambda: np.full((len(SIGNALS), 0), np.nan))
    point_ns: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    heard_tick: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    rings: Rings = field(default_factory=lambda: Rings.empty(len(SIGNALS), 0, SLOTS))
    groups: dict[str, GroupState] = field(default_factory=dict)
    lives: dict[int, RankLife] = field(default_factory=dict)
    launcher_signal: Fact | None = None
    longest_pause: dict[int, float] = field(default_factory=dict)
    last_pause: Floats = field(default_factory=lambda: np.zeros(0))

    # -- writing ---------------------------------------------------------------------------------------

    def grow(self, ranks: int) -> None:
        """Make room for `ranks` ranks."""
        missing = ranks - len(self.point_ns)
        if missing <= 0:
            return
        self.latest = np.concatenate([self.latest, np.full((len(SIGNALS), missing), np.nan)], axis=1)
        self.point_ns = np.concatenate([self.point_ns, np.zeros(missing, dtype=np.int64)])
        self.heard_tick = np.concatenate([self.heard_tick, np.full(missing, -1, dtype=np.int64)])
        self.last_pause = np.concatenate([self.last_pause, np.zeros(missing)])
        self.rings.grow(ranks)

    def apply_metrics(self, columns: MetricColumns) -> None:
        """Take the points of one resource; points of unknown names or without a rank are none of ours."""
        if not len(columns):
            return
        lookup = np.array([INDEX.get(name, -1) for name in columns.names] or [-1])
        signal = lookup[columns.signal]
        inside = (columns.rank >= 0) & (columns.rank < MAX_RANKS)
        self.foreign_ranks += int(np.count_nonzero(columns.rank >= MAX_RANKS))
        plain = inside & (columns.group < 0) & (signal >= 0)
        if plain.any():
            self.grow(int(columns.rank[plain].max()) + 1)
            for time_ns in np.unique(columns.time_ns[plain]):
                self._apply_sample(columns, signal, plain & (columns.time_ns == time_ns), int(time_ns))
        if (inside & (columns.group >= 0)).any():
            self._apply_groups(columns, inside)

    def _apply_sample(self, columns: MetricColumns, signal: Ints, chosen: Bools, time_ns: int) -> None:
        rank = columns.rank[chosen].astype(np.int64)
        current = self.point_ns[rank] <= time_ns
        self.late_points += int(np.count_nonzero(~current))
        rank, row = rank[current], signal[chosen][current]
        value = columns.value[chosen][current]
        touched = np.unique(rank)
        fresh = self.point_ns[touched] < time_ns
        self.latest[:, touched[fresh]] = np.nan
        self.point_ns[touched] = time_ns
        self.heard_tick[touched] = self.tick
        counter = row == INDEX[signals.DISK_IO]
        self.latest[row[~counter], rank[~counter]] = value[~counter]
        self._add_io(rank[counter], value[counter])
        self._note_pauses(touched)
        self.rings.write(touched, fresh, time_ns, self.latest[:, touched])

    def _add_io(self, rank: Ints, value: Floats) -> None:
        row = self.latest[INDEX[signals.DISK_IO]]
        row[rank] = 0.0  # both directions come in one request; a request delivered twice counts once
        np.add.at(row, rank, value)

    def _note_pauses(self, ranks: Ints) -> None:
        age = self.latest[INDEX[signals.EVENT_AGE], ranks]
        known = ~np.isnan(age)
        ranks, age = ranks[known], age[known]
        before = self.last_pause[ranks]
        for rank, pause in zip(ranks[age < before], before[age < before], strict=True):
            phase = self.latest[INDEX[signals.PHASE], rank]
            code = -1 if np.isnan(phase) else int(phase)
            self.longest_pause[code] = max(self.longest_pause.get(code, 0.0), float(pause))
        self.last_pause[ranks] = age

    def _apply_groups(self, columns: MetricColumns, inside: Bools) -> None:
        names = np.array(columns.names, dtype=object)[columns.signal]
        for index in np.unique(columns.group[inside & (columns.group >= 0)]):
            group = self._group(*columns.groups[index])
            if group is None:
                continue
            mine = inside & (columns.group == index)
            for name in (signals.ENQUEUED, signals.COMPLETED, signals.READ_AGE):
                chosen = mine & (names == name)
                rank = columns.rank[chosen].astype(np.int64)
                if not len(rank):
                    continue
                if name == signals.ENQUEUED:
                    group.enter(rank, columns.time_ns[chosen], columns.value[chosen])
                elif name == signals.COMPLETED:
                    group.complete(rank, columns.value[chosen])
                else:
                    group.age(rank, columns.value[chosen])

    def _group(self, name: str, ranks_text: str) -> GroupState | None:
        key = f"{name} {ranks_text}"
        if key not in self.groups and len(self.groups) < MAX_GROUPS:
            try:
                members = parse_ranks(ranks_text)
            except ValueError:
                members = ()
            if not members or members[-1] >= MAX_RANKS:
                return None
            self.groups[key] = GroupState.empty(name, members)
        return self.groups.get(key)

    def life(self, rank: int) -> RankLife:
        """The life of a rank, begun where it is not known yet."""
        if rank not in self.lives:
            self.lives[rank] = RankLife()
            self.grow(rank + 1)
        return self.lives[rank]

    def apply_fact(self, fact: Fact, node: str, agent: str) -> None:
        """Take one fact. The first of a kind holds: a repetition is the same fact delivered twice."""
        if fact.name == signals.LAUNCHER_EXITED:
            if signals.EXIT_SIGNAL in fact.attributes and self.launcher_signal is None:
                self.launcher_signal = fact
            return
        if fact.rank is None or not 0 <= fact.rank < MAX_RANKS:
            return
        life = self.life(fact.rank)
        pid = fact.attributes.get(signals.PID)
        if fact.name == signals.RANK_BORN:
            self._born(fact, pid)
            life = self.lives[fact.rank]
        elif isinstance(pid, int) and life.pid is not None and pid != life.pid:
            return  # a late word about an earlier process of this rank
        life.node, life.agent = node or life.node, agent or life.agent
        local_rank, role = fact.attributes.get(signals.LOCAL_RANK), fact.attributes.get(signals.ROLE)
        life.local_rank = local_rank if isinstance(local_rank, int) else life.local_rank
        life.role = str(role) if role is not None else life.role
        name = _FACT_FIELDS.get(fact.name)
        if name is not None and (getattr(life, name) is None or _replaces(getattr(life, name), fact)):
            setattr(life, name, fact)

    def _born(self, fact: Fact, pid: object) -> None:
        rank = fact.rank if fact.rank is not None else 0
        life = self.lives[rank]
        if life.born is not None and pid != life.pid:
            self.forget(rank)
            life = self.life(rank)
        life.born = life.born or fact
        life.pid = pid if isinstance(pid, int) else life.pid
        size = fact.attributes.get(signals.WORLD_SIZE)
        if isinstance(size, int) and 0 < size <= MAX_RANKS:
            self.world_size = max(self.world_size, size)
            self.grow(self.world_size)

    def forget(self, rank: int) -> None:
        """A new process took this rank: nothing of the old one may speak for it."""
        self.lives[rank] = RankLife()
        self.latest[:, rank] = np.nan
        self.point_ns[rank] = 0
        self.heard_tick[rank] = -1
        self.last_pause[rank] = 0.0
        self.rings.times[rank] = np.nan
        self.rings.values[:, rank] = np.nan
        self.rings.written[rank] = 0
        for group in self.groups.values():
            group.forget(rank)

    def apply_stack(self, capture: StackCapture) -> None:
        """Keep the last captures of a rank, oldest first."""
        if capture.rank is None or not 0 <= capture.rank < MAX_RANKS:
            return
        life = self.life(capture.rank)
        if life.pid is not None and capture.pid != life.pid:
            return
        if any(known.time_ns == capture.time_ns for known in life.stacks):
            return
        life.stacks = sorted([*life.stacks, capture], key=lambda item: item.time_ns)[-MAX_STACKS:]

    # -- reading ---------------------------------------------------------------------------------------

    @property
    def ranks(self) -> int:
        """Number of ranks there is room for; those never heard of are NaN."""
        return len(self.point_ns)

    def value(self, name: str) -> Floats:
        """Newest value of a signal for every rank."""
        row: Floats = self.latest[INDEX[name]]
        return row

    def at(self, name: str, rank: int) -> float | None:
        """Newest value of one rank; None where absent."""
        if rank >= self.ranks:
            return None
        value = float(self.latest[INDEX[name], rank])
        return None if value != value else value

    def fresh(self, ticks: int) -> Bools:
        """Which ranks reported within the last `ticks` ticks."""
        fresh: Bools = (self.heard_tick >= 0) & (self.tick - self.heard_tick <= ticks)
        return fresh

    def alive(self) -> Bools:
        """Which ranks are not known to have ended."""
        ended = [rank for rank, life in self.lives.items() if not life.alive]
        mask = np.ones(self.ranks, dtype=bool)
        mask[ended] = False
        return mask

    def ended(self) -> bool:
        """Whether every rank that was ever seen has ended."""
        return bool(self.lives) and all(not life.alive for life in self.lives.values())
