"""The agent of one job on one node: samples on a schedule, sends what is due, and ends after its ranks.

Wiring and the main loop only: what a sample says is the collectors', when things are sent `pace`'s, when it
ends `lifetime`'s, how it travels `MasterClient`'s.
"""

from __future__ import annotations

import collections
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from arobust_otel import guard
from arobust_otel.agent.client.addresses import heartbeat_url
from arobust_otel.agent.client.settings import ClientSettings
from arobust_otel.agent.commands import CommandRunner
from arobust_otel.agent.evidence import StackEvidence
from arobust_otel.agent.folders import job_folders
from arobust_otel.agent.handover import HandoverReader
from arobust_otel.agent.heartbeat import HeartbeatSender
from arobust_otel.agent.lifetime import Lifetime
from arobust_otel.agent.master_client import MasterClient
from arobust_otel.agent.pace import GaugePace, Sorted, Ticks, sort, wakes_master
from arobust_otel.agent.sampler import Sampler
from arobust_otel.agent.spool.folder import spool_base
from arobust_otel.agent.spool.spool import SpoolLimits
from arobust_otel.agent.view import View, next_identity
from arobust_otel.collectors.scan import NodeScan
from arobust_otel.config import NO_SPOOL, AgentSettings
from arobust_otel.model import signals
from arobust_otel.model.beacon import job_folder
from arobust_otel.model.heartbeat import CAPTURE_STACKS, CommandResult, Heartbeat
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import Event, LogLine, Point
from arobust_otel.plugins import Clock, Item

FINAL_SECONDS = 5.0
MIN_SAMPLE_GAP_SECONDS = 0.02  # deaths come in bursts
_HEARTBEAT_SHARE = 1.0  # seconds of the final ones that the last heartbeat may have


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the agent works for: a job on this node, and its master."""

    job_id: str
    beacon_root: Path
    master: str

    @property
    def folder(self) -> Path:
        """The job's beacon folder."""
        return job_folder(self.beacon_root, self.job_id)


class Agent:
    """Samples until its work is over.

    Args:
        assignment: job, beacon folder and master.
        settings: periods and limits.
        sampler: the collectors; those that are discovered by default.
    """

    def __init__(
        self, assignment: Assignment, settings: AgentSettings, sampler: Sampler | None = None
    ) -> None:
        """Starts the client's thread; nothing is sampled yet.

        Raises:
            ConfigurationError: the master's address, or that of heartbeats, is none.
        """
        self._assignment = assignment
        self._settings = settings
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._is_closing = False
        self._acknowledged: collections.deque[tuple[str, int]] = collections.deque()
        self._view = View(JobIdentity(assignment.job_id, 0, socket.gethostname()))
        self._scan = NodeScan(job_folders(assignment.beacon_root, assignment.job_id, os.environ))
        self._pace = GaugePace(
            settings.gauge_seconds, settings.fast_gauge_seconds, settings.fast_after_seconds
        )
        self._sampler = sampler or Sampler(_options(assignment, settings, self._wake.set), self._wake.set)
        self._handovers = HandoverReader(assignment.folder)
        self._client = MasterClient(
            assignment.master,
            self._view.identity,
            _client_settings(settings),
            spool_dir=_spool_dir(settings),
            say=say,
        )
        heartbeats_to = heartbeat_url(self._client.addresses, os.environ)
        self._evidence = StackEvidence(settings, lambda: self._view, self._client)
        self._commands = CommandRunner(
            heartbeats_to,
            lambda: self._view.identity,
            {CAPTURE_STACKS: self._evidence.capture},
            lambda result: self._heartbeats.add_result(result),
        )
        self._heartbeats = HeartbeatSender(
            heartbeats_to, self._compose, self._commands.accept, settings.heartbeat_seconds
        )

    def stop(self) -> None:
        """Flush and end; may be called from a signal handler or another thread."""
        self._stopped.set()
        self._wake.set()

    def run(self) -> None:
        """Work until the ranks have ended or somebody says stop."""
        ticks = Ticks(self._settings.sample_seconds)
        lifetime = Lifetime(self._settings.linger_seconds, self._settings.first_rank_seconds)
        guard.contained("sample")(self._sample)()
        self._heartbeats.start()
        try:
            while not self._stopped.is_set():
                self._wake.wait(ticks.seconds_until_next(time.monotonic()))
                self._wake.clear()
                guard.contained("sample")(self._sample)()
                if lifetime.is_over(self._view.node, self._view.states, time.monotonic()):
                    self._sampler.finish()
                    break
                self._stopped.wait(MIN_SAMPLE_GAP_SECONDS)
        finally:
            self._finish()

    def _sample(self) -> None:
        """Look once, and hand over what is due."""
        self._apply_acknowledgements()
        now = Clock(time.time_ns(), time.monotonic_ns())
        node = self._scan.scan(now)
        identity = next_identity(self._view.identity, node)
        if identity != self._view.identity:
            self._client.resource = identity
        self._view = View(identity, node, self._view.states)
        self._handovers.apply(self._sampler, now.mono_ns)
        items = self._sampler.collect(now, node)
        processes = self._sampler.collector("processes")
        if processes is not None:
            self._view = View(identity, node, processes.states())
        self._hand_over(sort([*items, *self._evidence.missing()]), now)

    def _hand_over(self, found: Sorted, now: Clock) -> None:
        self._report_facts(found.facts)
        if self._pace.is_due(found.points, now.mono_ns / 1e9):
            up = Point(signals.AGENT_UP, 1, now.wall_ns)
            own = [up, *self._sampler.self_points(now.wall_ns), *self._client.self_points(now.wall_ns)]
            self._client.report([*found.points, *self._sampler.take_points(), *own], urgent=True)
        if found.lines:
            self._report_lines(found.lines)
        if wakes_master(found.facts):
            self._heartbeats.beat_now()

    def _report_facts(self, facts: tuple[Item, ...]) -> None:
        """Each fact goes to the attempt of the process that it tells about."""
        for fact in facts:
            pid = getattr(fact, "attributes", {}).get(signals.PID)
            settled = self._settled([fact])
            identity = self._view.identity_of(pid)
            self._client.report([fact], settled, identity=identity, given_up=self._unless_closing(settled))

    def _report_lines(self, lines: tuple[LogLine, ...]) -> None:
        """Log offsets move when a report is in the journal or the spool, or was given up and counted."""
        settled = self._settled(lines)
        self._client.report(lines, settled, given_up=self._unless_closing(settled))

    def _settled(self, items: Sequence[Item]) -> Callable[[], None] | None:
        """What is called once items are settled; None where no source wants to know."""
        known = (item for item in items if isinstance(item, (Event, LogLine)))
        places = [(item.path, item.end_offset) for item in known if item.path]
        return (lambda: self._acknowledged.extend(places)) if places else None

    def _unless_closing(self, settled: Callable[[], None] | None) -> Callable[[], None] | None:
        """What is given up at the end for lack of time is the next agent's to read."""
        return None if settled is None else lambda: None if self._is_closing else settled()

    def _apply_acknowledgements(self) -> None:
        """In the collectors' thread: they have no locks."""
        while self._acknowledged:
            self._sampler.acknowledge(*self._acknowledged.popleft())

    def _compose(self, sequence: int, final: bool, results: tuple[CommandResult, ...]) -> Heartbeat:
        """A heartbeat; asked for by the sender's thread, so it reads one view."""
        view = self._view
        return Heartbeat(
            agent=view.identity.instance_id,
            job_id=view.identity.job_id,
            incarnation=view.identity.incarnation,
            sequence=sequence,
            host=view.identity.host,
            time_ns=time.time_ns(),
            interval_seconds=self._settings.heartbeat_seconds,
            world_size=view.world_size(),
            node_rank=view.identity.node_rank,
            final=final,
            ranks=view.reports(),
            collectors=self._sampler.reports(),
            gaps=(*view.gaps(), *self._sampler.gaps(), *self._client.gaps()),
            results=results,
            stats=self._client.stats(),
        )

    def _finish(self) -> None:
        """Everything that is known reaches the master within `FINAL_SECONDS`, or is counted as dropped."""
        deadline = time.monotonic() + FINAL_SECONDS
        self._commands.close(0.5)
        guard.contained("last sample")(self._sample)()
        self._client.flush(self._flush_seconds(deadline))
        self._apply_acknowledgements()
        self._heartbeats.finish(max(0.2, deadline - time.monotonic()))
        self._is_closing = True
        self._client.close(max(0.1, deadline - time.monotonic()))
        self._apply_acknowledgements()  # also of what the spool has taken at the end
        self._sampler.close()

    def _flush_seconds(self, deadline: float) -> float:
        """Time for the last delivery: short where nobody takes it and the disk will."""
        left = max(0.0, deadline - time.monotonic() - _HEARTBEAT_SHARE)
        stats = self._client.stats()
        return left if stats["connected"] or not stats.get("spool_ok") else min(left, 1.0)


def become_polite() -> None:
    """Use any processor at low priority: a launcher pinned to some cores pins what it starts, too."""
    for settle in (
        lambda: os.sched_setaffinity(0, range(os.cpu_count() or 1)),
        lambda: os.nice(max(0, 5 - os.nice(0))),
    ):
        try:
            settle()
        except OSError:  # not allowed here: the agent works as well without
            continue


def say(text: str) -> None:
    """One line into the agent's log."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    sys.stderr.write(f"{stamp} arobust agent: {text}\n")
    sys.stderr.flush()


def _options(
    assignment: Assignment, settings: AgentSettings, on_exit: Callable[[], None]
) -> dict[str, dict[str, object]]:
    """What collectors are told: by the agent, and over that by their section of the configuration."""
    own: dict[str, dict[str, object]] = {
        "processes": {"on_exit": on_exit, "stalled_seconds": settings.fast_after_seconds},
        "logs": {"files": settings.log_files, "state_file": assignment.folder / "logs.json"},
        "kernel_log": {"state_file": assignment.folder / "kernel_log.json"},
    }
    chosen = settings.collectors
    return {name: {**own.get(name, {}), **chosen.get(name, {})} for name in {*own, *chosen}}


def _spool_dir(settings: AgentSettings) -> Path | None:
    """Base folder of the spool; None where the settings say that there is to be none."""
    if settings.spool_dir == NO_SPOOL:
        return None
    return Path(settings.spool_dir) if settings.spool_dir else spool_base(os.environ)


def _client_settings(settings: AgentSettings) -> ClientSettings:
    return ClientSettings(
        queue_items=settings.queue_items,
        queue_bytes=settings.queue_bytes,
        urgent_seconds=settings.flush_seconds / 2,
        bulk_seconds=2.0,  # log lines only: points are handed over as urgent; a request costs 3 ms
        call_seconds=settings.export_timeout_seconds,
        spool=SpoolLimits(settings.spool_bytes, settings.spool_seconds),
    )
