"""DiagnosisAgent: runs collectors beside a training process, and leaves what it can to the node's agent.

Wiring only: what a collector does is its own, who else is on the node `neighbour`'s, what a heartbeat says
`beating`'s, what a failure means `verdict`'s.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from typing import Any

from arobust_otel import guard
from arobust_otel.agent.data_collector import LogCollector
from arobust_otel.agent.data_collector.log import tail_of
from arobust_otel.agent.handing import is_master_client, logger
from arobust_otel.agent.handover import HANDED, SENDING
from arobust_otel.agent.neighbour import HEARTBEAT, Neighbour
from arobust_otel.agent.periodic import Periodic, stop_all
from arobust_otel.collectors.logtail import Position
from arobust_otel.common.constants import DiagnosisConstant
from arobust_otel.common.diagnosis_data import NodeAction
from arobust_otel.common.utils import Singleton, get_node_id, get_node_type
from arobust_otel.controller import verdict
from arobust_otel.controller.beating import Heartbeats
from arobust_otel.controller.registry import Registry
from arobust_otel.controller.rounds import Registered, say_cost, say_left_alone
from arobust_otel.model.heartbeat import CollectorReport

STOP_SECONDS = 0.6  # for the threads together
FLUSH_SECONDS, _LEAST_FLUSH_SECONDS = 0.9, 0.2  # since the stop: a line in doubt is a line sent twice
_LOOK_SECONDS = 1.0
_COST_AFTER_SECONDS = 3.0


_agents: weakref.WeakSet[DiagnosisAgent] = weakref.WeakSet()


class DiagnosisAgent(Singleton):
    """Collects periodically and hands over to a client. Nothing of it raises into training.

    Args:
        training_log_file: followed while it runs; a path or pattern.
        errors: texts that mean a failed node: ``#one#another#``, or with commas between them.
        node_rank: rank of this node; negative: what the environment says.
        local_world_size: ranks on this node; 0: what the environment says.
    """

    def __init__(
        self,
        training_log_file: str = "",
        errors: str = "",
        node_rank: int = -1,
        local_world_size: int = 0,
    ) -> None:
        self.training_log_file = training_log_file
        self.errors = errors
        self.node_rank = node_rank
        self.local_world_size = local_world_size
        self._client: Any = None
        self._lock = threading.RLock()
        self._registry = Registry(node_rank)
        self._running = False
        _agents.add(self)
        # The interpreter's end must not keep an agent that nobody uses any more.
        own = weakref.ref(self)
        self._stop_at_exit = lambda: stop_if_alive(own)
        self._beside: bool | None = None  # whether the node's agent works instead; None: not decided yet
        self._neighbour = Neighbour(os.environ)
        self._heartbeats = Heartbeats(self._reports)
        self._handed: dict[str, Position] = {}  # how far logs were delivered when they were handed over
        self._watch = Periodic("neighbour", _LOOK_SECONDS, self._look)
        self._started_mono = 0.0
        self._told_cost = False

    # --- what the predecessor offers ----------------------------------------------------------------------

    @guard.contained("DiagnosisAgent.set_client")
    def set_client(self, client: Any) -> None:
        """What takes the data from now on, before or after collectors are registered, running or not."""
        with self._lock:
            self._client = client
            self._registry.set_client(client)
            if self._running:
                self._heartbeats.end(says_goodbye=False)
                self._arrange()

    def register_periodical_data_collector(self, collector: Any, time_interval: float) -> None:
        """Ask a collector every `time_interval` seconds; at once where the agent runs already.

        Args:
            collector: a DataCollector, or any object with `collect_data` and, if it likes, `is_enabled`.
            time_interval: seconds, as given: 30 is no floor any more.
        """
        with self._lock:
            self._registry.add(collector, time_interval)
            if self._running:
                self._arrange()

    @guard.contained("DiagnosisAgent.start")
    def start(self) -> None:
        """Begin to collect, the first samples now; the predecessor's four collectors are added once."""
        with self._lock:
            if self._running:
                self._watch.start()  # it may have found no thread before
                return
            if self._client is None:
                logger.warning("DiagnosisAgent has no client: nothing is sent; call set_client()")
            self._registry.add_defaults(self.training_log_file)
            self._neighbour = Neighbour(os.environ)
            self._running = True
            atexit.register(self._stop_at_exit)
            self._beside = None
            self._started_mono = time.monotonic()
            self._arrange()
            self._watch.start()

    @guard.contained("DiagnosisAgent.stop")
    def stop(self) -> None:
        """End within about a second: nothing is collected afterwards, and what was collected is sent off."""
        if not self._running:
            return
        atexit.unregister(self._stop_at_exit)
        deadline = time.monotonic() + FLUSH_SECONDS
        with self._lock:
            self._running = False
            loops = [self._watch, *(entry.loop for entry in self._registry.entries)]
        late = stop_all(loops, STOP_SECONDS)
        if late:
            logger.warning("still busy, and will end by themselves: %s", ", ".join(late))
        with self._lock:
            if is_master_client(self._client):
                self._client.flush(max(_LEAST_FLUSH_SECONDS, deadline - time.monotonic()))
            self._heartbeats.end(says_goodbye=not self._beside)
            self._tell(HANDED)
            self._neighbour.release()

    def send_heartbeat(self) -> bool:
        """One heartbeat now; True where the master has answered, or the node's agent speaks to it instead."""
        with self._lock:
            if self._beside:
                return True
            heartbeats, client, node_rank = self._heartbeats, self._client, self.node_rank
        return heartbeats.send_one(client, node_rank)

    def diagnose_training_failure(self, failures: object = None, restart_count: int = 0) -> NodeAction:
        """What to do about a failure.

        Args:
            failures: what is known of it: texts, exceptions, ProcessError, torchelastic's failures.
            restart_count: restarts so far.

        Returns:
            RESTART_WORKER, or RELAUNCH_WORKER on another node where the failure or the log blames this one or
            three restarts did not help, or STOP_JOB where the failure says that it concerns the whole job.
        """
        log = tail_of(self.training_log_file)
        found, error = guard.attempt(
            "diagnosis",
            lambda: verdict.judge(failures, log, verdict.patterns_of(self.errors), restart_count),
        )
        if found is None:
            logger.error("the failure could not be read: %s", error)
            found = verdict.judge(None, log, (), restart_count)
        return NodeAction(
            get_node_id(),
            get_node_type(),
            DiagnosisConstant.LOCAL_INSTANCE,
            found.action_type,
            found.reason,
        )

    def update_config(self, training_log_file: str = "", errors: str = "", node_rank: int = -1) -> None:
        """Change what is given; what runs follows at once."""
        with self._lock:
            self.errors = errors or self.errors
            self.node_rank = node_rank if node_rank >= 0 else self.node_rank
            self._registry.set_node_rank(self.node_rank)
            if training_log_file and training_log_file != self.training_log_file:
                self.training_log_file = training_log_file
                self._registry.follow(training_log_file)
            if self._running:
                self._arrange()

    def reconfigure(
        self,
        training_log_file: str = "",
        errors: str = "",
        node_rank: int = -1,
        local_world_size: int = 0,
    ) -> None:
        """What a later `singleton_instance(...)` says."""
        self.local_world_size = local_world_size or self.local_world_size
        self.update_config(training_log_file, errors, node_rank)

    def begin_anew(self) -> None:
        """In a forked child, which has no thread of it and no claim: `start` makes it an agent of its own."""
        self._lock = threading.RLock()
        self._running = False
        self._heartbeats = Heartbeats(self._reports)
        self._handed = {}
        self._registry.begin_anew()

    # --- alone, or beside the node's agent ----------------------------------------------------------------

    def _look(self, ended: threading.Event) -> None:
        """Every second: who is on the node now."""
        with self._lock:
            if self._running and not ended.is_set():
                self._arrange()
                passed = time.monotonic() - self._started_mono
                if not (self._told_cost or self._beside) and passed >= _COST_AFTER_SECONDS:
                    self._told_cost = True
                    shares = self._client is None or is_master_client(self._client)
                    say_cost([entry for entry in self._registry.entries if entry.is_built_in], shares)

    def _arrange(self) -> None:
        """Start what should run and end what should not; what has ended is handed over when it is settled."""
        shares = self._client is None or is_master_client(self._client)
        beside = shares and self._neighbour.has_agent()
        if shares and not beside:
            self._prepare()
            beside = self._neighbour.has_agent()
        for entry in self._registry.entries:
            if self._should_run(entry, shares, beside):
                entry.loop.start()
            elif entry.loop.is_running:
                entry.loop.tell_to_end()
        if beside and not all(entry.is_settled for entry in self._registry.entries if entry.is_built_in):
            return
        if beside != self._beside:
            self._beside = beside
            logger.info("collectors run in %s", "the node's agent" if beside else "this process")
            if beside:
                self._let_go()
        if beside:
            self._heartbeats.end(says_goodbye=False)
            self._tell(HANDED)
            self._neighbour.release()
        else:
            self._tell(SENDING if shares else HANDED)
            if not shares or self._neighbour.claim([HEARTBEAT]):
                self._heartbeats.begin(self._client, self.node_rank)

    def _let_go(self) -> None:
        """Remember how far the logs were delivered, and nothing else of them: another process goes on."""
        for entry in self._registry.entries:
            if entry.is_built_in and isinstance(entry.collector, LogCollector):
                self._handed.update(entry.collector.positions())
                entry.collector.forget()

    def _should_run(self, entry: Registered, shares: bool, beside: bool) -> bool:
        if not shares or not entry.is_built_in:
            return True
        if beside:
            return False
        is_ours = self._neighbour.claim(entry.sources)
        if not is_ours and isinstance(entry.collector, LogCollector):
            say_left_alone(entry, self._neighbour)
        return is_ours

    def _prepare(self) -> None:
        """Claim, take up where others stopped, and say so: an agent that starts now sees it or is seen."""
        for entry in self._registry.entries:
            is_new = self._neighbour.claim(entry.sources) and not entry.loop.is_running
            if is_new and entry.is_built_in and isinstance(entry.collector, LogCollector):
                entry.collector.follow_from(self._neighbour.positions(entry.collector.paths))
        self._tell(SENDING)

    def _tell(self, state: str) -> None:
        """Write down, for the node's agent, which logs there are and how far they were delivered."""
        own = [entry for entry in self._registry.entries if entry.is_built_in]
        # What another process sends is that one's to keep; all may be handed over.
        kept = [entry for entry in own if state == HANDED or self._neighbour.holds(entry.sources)]
        logs = [entry.collector for entry in kept if isinstance(entry.collector, LogCollector)]
        positions = {path: at for log in logs for path, at in log.positions().items()}
        periods = {entry.name: entry.loop.seconds for entry in own}
        files = [path for log in logs for path in log.paths]
        self._neighbour.tell(state, files, {**self._handed, **positions}, periods)

    def _reports(self) -> tuple[CollectorReport, ...]:
        return tuple(entry.report() for entry in list(self._registry.entries))


def stop_if_alive(agent: weakref.ref[DiagnosisAgent]) -> None:
    """Stop an agent that nobody stopped before the interpreter ends: the master hears its last word."""
    found = agent()
    if found is not None:
        found.stop()


def _begin_anew() -> None:
    for agent in list(_agents):
        guard.contained("DiagnosisAgent in a forked child")(agent.begin_anew)()


os.register_at_fork(after_in_child=_begin_anew)
