"""Heartbeats of a process that has no agent beside it, and the commands that their replies bring."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from arobust_otel.agent.client.addresses import heartbeat_url, resolve_addresses
from arobust_otel.agent.commands import CommandRunner
from arobust_otel.agent.data_collector.stack import IN_PROCESS, capture_process, own_threads
from arobust_otel.agent.handing import hand_over, is_master_client, logger, worker_metric
from arobust_otel.agent.heartbeat import HeartbeatSender
from arobust_otel.agent.monitor.own_client import named_master
from arobust_otel.common.constants import DiagnosisConstant, DiagnosisDataType
from arobust_otel.errors import CaptureError, ConfigurationError
from arobust_otel.model.heartbeat import (
    CAPTURE_STACKS,
    CollectorReport,
    Command,
    CommandResult,
    Heartbeat,
    RankReport,
)
from arobust_otel.model.identity import SINGLE, JobIdentity, resolve_job, resolve_rank

INTERVAL_SECONDS = float(DiagnosisConstant.AGENT_PERIODICALLY_REPORT_INTERVAL_SECS)
GOODBYE_SECONDS = 0.3
_GAP = "no agent watches this node: the ranks' processes, exits and stacks from outside cannot be seen"


def heartbeats_to(client: Any, environ: Mapping[str, str]) -> str | None:
    """Where heartbeats go: the client's master, else the one that the environment names; None without.

    Raises:
        ConfigurationError: the environment names something that is no address.
    """
    if is_master_client(client):
        return heartbeat_url(client.addresses, environ)
    named = named_master()
    return heartbeat_url(resolve_addresses(named, environ), environ) if named is not None else None


class Beating:
    """Sends heartbeats for this process and runs what the master asks for.

    Args:
        master: base URL.
        client: takes what commands produce.
        node_rank: what the user said, negative where nothing.
        collectors: how they are, when asked.
        interval_seconds: until the master says another.
    """

    def __init__(
        self,
        master: str,
        client: Any,
        node_rank: int,
        collectors: Callable[[], tuple[CollectorReport, ...]],
        interval_seconds: float,
    ) -> None:
        self.master = master
        self._client = client
        self._collectors = collectors
        self._interval_seconds = interval_seconds
        own = resolve_job(os.environ, socket.gethostname(), os.getpid())
        known = client.resource if is_master_client(client) else own
        self.identity = known._replace(node_rank=node_rank) if node_rank >= 0 else known
        self._commands = CommandRunner(
            master, self._who, {CAPTURE_STACKS: self._capture}, lambda result: self._sender.add_result(result)
        )
        self._sender = HeartbeatSender(master, self._compose, self._commands.accept, interval_seconds)

    def start(self) -> None:
        """The first one now, the others in time."""
        self._sender.start()

    def beat(self) -> bool:
        """One now; True where the master has answered."""
        return self._sender.beat()

    def finish(self, deadline_seconds: float, says_goodbye: bool) -> bool:
        """End, with a last word unless somebody else goes on in this agent's name."""
        self._commands.close(0.0)
        return self._sender.finish(deadline_seconds, says_goodbye)

    def _who(self) -> JobIdentity:
        return self.identity

    def _compose(self, sequence: int, final: bool, results: tuple[CommandResult, ...]) -> Heartbeat:
        rank = resolve_rank(os.environ) or SINGLE
        return Heartbeat(
            agent=self.identity.instance_id,
            job_id=self.identity.job_id,
            incarnation=self.identity.incarnation,
            sequence=sequence,
            host=self.identity.host,
            time_ns=time.time_ns(),
            interval_seconds=self._interval_seconds,
            world_size=rank.world_size,
            node_rank=self.identity.node_rank,
            final=final,
            ranks=(RankReport(rank.rank, rank.local_rank, os.getpid(), "R", rank.role, beacon=False),),
            collectors=self._collectors(),
            gaps=(_GAP,),
            results=results,
            stats=self._client.stats() if is_master_client(self._client) else {},
        )

    def _capture(self, command: Command) -> str:
        """Stacks of this process.

        Raises:
            CaptureError: another rank was meant.
        """
        rank = (resolve_rank(os.environ) or SINGLE).rank
        if rank not in command.ranks:
            raise CaptureError(f"this process is rank {rank}, not one of {list(command.ranks)}")
        capture = capture_process(os.getpid(), IN_PROCESS, own_threads(), time.time_ns(), command.id)
        metric = worker_metric(
            DiagnosisDataType.STACK_TRACE, capture.text, (capture,), self.identity.node_rank
        )
        hand_over(self._client, metric)
        return f"rank {rank}: {IN_PROCESS}"


class Heartbeats:
    """The heartbeats of a process, while it has any.

    Args:
        collectors: how they are, when asked.
    """

    def __init__(self, collectors: Callable[[], tuple[CollectorReport, ...]]) -> None:
        self._collectors = collectors
        self._beating: Beating | None = None

    def begin(self, client: Any, node_rank: int) -> None:
        """Start them where a master is known and none run yet."""
        if self._beating is not None or (beating := self._make(client, node_rank)) is None:
            return
        try:
            beating.start()
        except RuntimeError as error:  # the limit of threads; asked for again at the next look
            logger.warning("no heartbeats for now: %s", error)
            beating.finish(0.0, says_goodbye=False)
            return
        self._beating = beating

    def end(self, says_goodbye: bool) -> None:
        """End them, with a last word unless somebody else goes on under the same name."""
        beating, self._beating = self._beating, None
        if beating is not None:
            beating.finish(GOODBYE_SECONDS, says_goodbye)

    def send_one(self, client: Any, node_rank: int) -> bool:
        """One now; True where the master has answered, False with a warning where none is known."""
        if self._beating is not None:
            return self._beating.beat()
        single = self._make(client, node_rank)
        if single is None:
            logger.warning("no master is known: no heartbeat; give a MasterClient, or set AROBUST_MASTER")
            return False
        arrived = single.beat()
        single.finish(GOODBYE_SECONDS, says_goodbye=False)
        return arrived

    def _make(self, client: Any, node_rank: int) -> Beating | None:
        try:
            master = heartbeats_to(client, os.environ)
            if master is None:
                return None
            return Beating(master, client, node_rank, self._collectors, INTERVAL_SECONDS)
        except ConfigurationError as error:
            logger.error("no heartbeats: %s", error)
            return None
