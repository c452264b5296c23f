"""What a compatibility agent knows of the node's own agent, and of its siblings in the other ranks.

Where the node has an agent for the job, the process leaves its work to it. Where it has none, locks in the
job's folder see to it that each log is read by one process, and the node's figures by one.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from arobust_otel.agent import handover
from arobust_otel.agent.folders import find_root
from arobust_otel.agent.handing import logger
from arobust_otel.agent.lock import AgentLock, is_held
from arobust_otel.collectors.logs import load_positions
from arobust_otel.collectors.logtail import Position
from arobust_otel.collectors.procfs import PROC, read_stat
from arobust_otel.errors import BeaconError
from arobust_otel.model.beacon_paths import job_folder
from arobust_otel.model.identity import resolve_job_id

# What is claimed beside logs: one process of a node is enough for these.
HEARTBEAT, RESOURCES, XPU_TIMER = "heartbeat", "resources", "xpu_timer"


class Neighbour:
    """The job's folder on this node, as one process sees it. Without a job there is none: it is alone.

    Args:
        environ: says job and folder.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.job_id = resolve_job_id(environ)
        self.folder: Path | None = None
        if self.job_id is not None:
            self.folder = job_folder(find_root(environ, self.job_id), self.job_id)
        self._claims: dict[str, AgentLock] = {}
        self._stored: handover.Handover | None = None

    def has_agent(self) -> bool:
        """Whether an agent of this node works for the job."""
        return self.folder is not None and is_held(self.folder)

    def has_beacons(self) -> bool:
        """Whether an agent works for the job and sees steps by itself."""
        return self.has_agent() and self.folder is not None and any(self.folder.glob("rank-*.beacon"))

    def claim(self, what: Sequence[str]) -> bool:
        """Take all of these for this process; False where another one has some of them.

        Args:
            what: names; a file goes by its real name, so that a link to it is the same file.
        """
        if self.folder is None:
            return True
        taken: dict[str, AgentLock] = {}
        for name in what:
            if name in self._claims:
                continue
            lock = AgentLock(self.folder, _lock_name(name))
            try:
                if not lock.take():
                    for other in taken.values():  # all or none: two processes must not each hold a half
                        other.release()
                    return False
            except BeaconError as error:
                logger.warning("%s: another rank may report the same: %s", self.job_id, error)
                self.folder = None
                return True
            taken[name] = lock
        self._claims |= taken
        return True

    def holds(self, what: Sequence[str]) -> bool:
        """Whether these are this process's: claims are all or none, and a pattern may match more by now."""
        return self.folder is None or not what or any(name in self._claims for name in what)

    def unclaimed(self, what: Sequence[str]) -> list[str]:
        """Which of these no process of the node has."""
        if self.folder is None:
            return []
        return [name for name in what if not is_held(self.folder, _lock_name(name))]

    def release(self) -> None:
        """Give back what was claimed."""
        for lock in self._claims.values():
            lock.release()
        self._claims.clear()

    def positions(self, files: Sequence[str]) -> dict[str, Position]:
        """How far others delivered these files, by their real names: the node's agent, or other processes."""
        if self.folder is None:
            return {}
        state = self.folder / "logs.json"
        known: list[tuple[int, Mapping[str, Position]]] = []
        if state.exists():
            known.append((state.stat().st_mtime_ns, load_positions(state)))
        known += [(item.time_ns, item.positions) for item in handover.load(self.folder)]
        wanted = {path for pattern in files for path in handover.resolve(pattern)}
        found: dict[str, Position] = {}
        for _, positions in sorted(known, key=lambda pair: pair[0]):
            found |= {path: positions[path] for path in wanted if path in positions}
        return found

    def tell(
        self,
        state: str,
        files: Sequence[str],
        positions: Mapping[str, Position],
        periods: Mapping[str, float],
    ) -> None:
        """Write down what this process keeps or hands over, where that has changed."""
        if self.folder is None or not self.folder.is_dir():
            return
        stat = read_stat(PROC, os.getpid())
        real = {os.path.realpath(path): position for path, position in positions.items()}
        ticks = stat.start_ticks if stat is not None else 0
        value = handover.Handover(os.getpid(), ticks, state, 0, tuple(files), real, periods)
        if value == self._stored:
            return
        try:
            handover.store(self.folder, replace(value, time_ns=time.time_ns()))
        except OSError as error:
            logger.warning("the node's agent cannot be told which logs to follow: %s", error)
            return
        self._stored = value


def _lock_name(name: str) -> str:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return f"inside-{digest}.lock"
