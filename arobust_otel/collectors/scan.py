"""Who lives on this node: reads all beacons of the job and makes the `Node` that every collector gets.

A beacon outlives its process; whether the process lives is asked of /proc, by pid and start time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from arobust_otel.collectors.procfs import PROC, read_stat
from arobust_otel.errors import BeaconError
from arobust_otel.model import beacon as beacons
from arobust_otel.model.beacon import Child, LauncherBeacon, RankBeacon
from arobust_otel.plugins import Clock, LauncherProcess, Node, RankProcess

# A launcher's child without a beacon is a rank of its own after this time: imports come first.
_PATIENCE_NS = 3_000_000_000
# A process that was gone before it was ever seen belongs to this run if it was born this shortly before.
_RECENT_NS = 60_000_000_000


class NodeScan:
    """Scans the job's folders; keeps when each rank's collective counters last changed.

    Args:
        folders: the job's beacon folder and the fallback folders; those that do not exist are passed over.
        proc: root of procfs.
    """

    def __init__(self, folders: Sequence[Path], proc: Path = PROC) -> None:
        """Nothing is read before the first scan."""
        self._folders = tuple(dict.fromkeys(folders))
        self._proc = proc
        self._started_wall_ns: int | None = None
        self._counters: dict[tuple[int, int], tuple[object, int]] = {}
        self._seen: set[tuple[int, int]] = set()
        self._too_old: set[Path] = set()
        self._paths: dict[tuple[Path, str], Path] = {}

    def scan(self, now: Clock) -> Node:
        """Read everything once; never raises for what a file holds or lacks."""
        if self._started_wall_ns is None:
            self._started_wall_ns = now.wall_ns
        ranks: list[RankProcess] = []
        launchers: list[LauncherProcess] = []
        unreadable: list[str] = []
        for path in self._files():
            try:
                page = beacons.read(path)
            except BeaconError as error:
                unreadable.append(str(error))
                continue
            alive = self._lives(page.pid, page.start_ticks)
            if not self._is_of_this_run(path, page.pid, page.start_ticks, page.born_ns, alive):
                continue
            if isinstance(page, RankBeacon):
                ranks.append(self._rank(page, path, alive, now))
            else:
                launchers.append(LauncherProcess(page, alive, path))
        ranks.extend(self._without_beacon(ranks, launchers, now))
        ranks.sort(key=lambda rank: (rank.rank, rank.incarnation, rank.start_ticks))
        return Node(tuple(ranks), tuple(launchers), tuple(unreadable))

    def _files(self) -> Iterable[Path]:
        for folder in self._folders:
            try:
                names = sorted(name for name in os.listdir(folder) if name.endswith(".beacon"))
            except OSError:
                continue
            for name in names:
                path = self._paths.get((folder, name))
                if path is None:  # making one costs as much as reading the file
                    path = self._paths[folder, name] = folder / name
                if path not in self._too_old:
                    yield path

    def _lives(self, pid: int, start_ticks: int) -> bool:
        stat = read_stat(self._proc, pid)
        return stat is not None and (start_ticks == 0 or stat.start_ticks == start_ticks)

    def _is_of_this_run(self, path: Path, pid: int, start_ticks: int, born_ns: int, alive: bool) -> bool:
        """Files of an earlier run with the same job id are left alone."""
        key = (pid, start_ticks)
        if not alive and key not in self._seen and born_ns < (self._started_wall_ns or 0) - _RECENT_NS:
            self._too_old.add(path)
            return False
        self._seen.add(key)
        return True

    def _rank(self, page: RankBeacon, path: Path, alive: bool, now: Clock) -> RankProcess:
        return RankProcess(
            rank=page.rank,
            local_rank=page.local_rank,
            role=page.role or "trainer",
            pid=page.pid,
            start_ticks=page.start_ticks,
            world_size=page.world_size,
            incarnation=page.incarnation,
            alive=alive,
            beacon=page,
            path=path,
            event_mono_ns=self._last_event(page, now),
        )

    def _last_event(self, page: RankBeacon, now: Clock) -> int:
        """When step, phase, state or a counter last changed; counters carry the time they were read."""
        key = (page.pid, page.start_ticks)
        counters = tuple((group.name, group.enqueued, group.completed) for group in page.groups)
        known = self._counters.get(key)
        if known is None:
            changed = page.event_mono_ns or now.mono_ns
        elif known[0] == counters:
            changed = known[1]
        else:
            changed = min(page.groups_read_mono_ns or now.mono_ns, now.mono_ns)
        self._counters[key] = (counters, changed)
        return max(changed, page.event_mono_ns)

    def _without_beacon(
        self, ranks: Sequence[RankProcess], launchers: Sequence[LauncherProcess], now: Clock
    ) -> list[RankProcess]:
        """Children of a launcher that are ranks and have written no beacon."""
        pids = {rank.pid for rank in ranks}
        numbers = {rank.rank for rank in ranks if rank.alive}
        found = []
        for launcher in launchers:
            for child in launcher.beacon.children:
                known = child.rank is None or child.pid in pids or child.rank in numbers
                ended = child.ended_ns is not None
                if not known and (ended or now.wall_ns - child.born_ns > _PATIENCE_NS):
                    found.append(self._child(child, launcher.beacon))
        return found

    def _child(self, child: Child, launcher: LauncherBeacon) -> RankProcess:
        return RankProcess(
            rank=child.rank or 0,
            local_rank=child.local_rank or 0,
            role="trainer",
            pid=child.pid,
            start_ticks=child.start_ticks,
            world_size=0,
            incarnation=launcher.incarnation,
            alive=child.ended_ns is None and self._lives(child.pid, child.start_ticks),
        )
