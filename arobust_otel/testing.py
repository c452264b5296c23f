"""Stories for the tests of rules: a data-parallel job is told second by second, as OTLP bytes.

A `Story` speaks like an agent (real requests, real heartbeats, ticks) to a real engine, and answers its
commands with stacks. Nothing of the engine is replaced. It is a model of the world, not of our code::

    story = Story(ranks=4)
    story.run(10)
    story.rank(2).hangs_in("read_shard", "/job/data.py", 88)
    story.run(15)
    assert story.open_culprits() == [2]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from arobust_otel.journal import Kind, Record
from arobust_otel.master.engine import Engine, Output, build_engine
from arobust_otel.model import signals
from arobust_otel.model.beacon import PHASES, PROCESS_STATES, STATES
from arobust_otel.model.heartbeat import CollectorReport, Heartbeat, RankReport, encode
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.incident import Incident
from arobust_otel.model.samples import Frame, format_frames

START_NS = 1_800_000_000_000_000_000
SECOND = 1_000_000_000
LOOP = Frame("train_step", "/job/train.py", 40)
WAIT = Frame("_engine_run_backward", "/usr/lib/python3/site-packages/torch/autograd/graph.py", 800)


@dataclass(slots=True)
class StoryRank:
    """One rank: what it does from now on is set by its verbs."""

    rank: int
    pid: int
    doing: str = "training"
    frames: tuple[Frame, ...] = (LOOP,)
    step: int = 0
    entered: int = 0
    left: int = 0
    event_s: float = 0.0
    cpu_s: float = 0.0
    cpu_share: float = 1.0
    io_s: float = 0.0
    tick_s: float = 0.0
    stopped_s: float | None = None
    phase: str = "forward"
    state: str = "running"
    io_bytes: int = 0
    visible: bool = True
    gone: bool = False
    watcher_lives: bool = True

    def hangs_in(self, function: str, file: str, line: int) -> None:
        """Blocks in Python code that releases the interpreter lock."""
        self.doing, self.frames = "hanging", (Frame(function, file, line), LOOP)

    def holds_lock_in(self, function: str, file: str, line: int, *, burning: bool = False) -> None:
        """Sits in a native call that keeps the interpreter lock, asleep or burning processor time."""
        self.doing = "burning_lock" if burning else "asleep_lock"
        self.frames = (Frame(function, file, line), LOOP)

    def works_in(self, function: str, phase: str = "checkpoint", *, reading: bool = True) -> None:
        """Does something long that is no step: processor time, and I/O where `reading`."""
        self.doing = "working" if reading else "computing"
        self.phase, self.frames = phase, (Frame(function, "/job/train.py", 200), LOOP)

    def stops(self) -> None:
        """Is stopped by a signal."""
        self.doing = "stopped"

    def waits_in_collective(self, *, spinning: bool = False) -> None:
        """Has entered a collective that does not end; on an accelerator the host spins meanwhile."""
        self.doing, self.frames = ("computing" if spinning else "hanging"), (WAIT, LOOP)
        self.entered += 1

    def waits_for_data(self) -> None:
        """Idles, as in an input stall."""
        self.doing, self.frames = "hanging", (Frame("next_batch", "/job/data.py", 10), LOOP)

    def trains(self) -> None:
        """Goes on as before."""
        self.doing, self.frames, self.phase, self.stopped_s = "training", (LOOP,), "forward", None


_USES_CPU = {"training", "burning_lock", "working", "computing"}
_KEEPS_LOCK = {"burning_lock", "asleep_lock", "stopped"}


@dataclass(slots=True)
class Story:
    """A job of `ranks` ranks on one node; `groups` maps names to members as short text."""

    ranks: int = 4
    groups: Mapping[str, str] = field(default_factory=dict)
    job_id: str = "job-1"
    incarnation: int = 0
    host: str = "node-a"
    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    engine: Engine | None = None
    records: list[Record] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    people: list[StoryRank] = field(default_factory=list)
    second: int = 0
    agent_speaks: bool = True
    agent_ends: bool = False
    stacks_can_be_had: bool = True
    _asked: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with every rank born."""
        self.engine = self.engine or build_engine({"rules": self.rules})
        self.groups = self.groups or {"default": f"0-{self.ranks - 1}"}
        self.people = [StoryRank(rank, 4000 + rank) for rank in range(self.ranks)]
        for person in self.people:
            self.fact(signals.RANK_BORN, person.rank, {signals.WORLD_SIZE: self.ranks})

    # -- telling ---------------------------------------------------------------------------------------

    def rank(self, rank: int) -> StoryRank:
        """One of the ranks."""
        return self.people[rank]

    @property
    def now_ns(self) -> int:
        """Time of the story."""
        return START_NS + self.second * SECOND

    def run(self, seconds: int) -> list[Output]:
        """Let time pass; returns the outputs of these seconds."""
        before = len(self.outputs)
        for _ in range(seconds):
            self.second += 1
            self._live()
            if self.agent_speaks:
                self._answer()
                self._report()
                if self.second % 2 == 0:
                    self._heartbeat()
            self._feed(Kind.TICK, b"")
        return self.outputs[before:]

    def fact(
        self, name: str, rank: int | None, attributes: Mapping[str, Any] | None = None, at_s: float = 0.0
    ) -> None:
        """An event of a rank, `at_s` seconds from now (negative: before)."""
        request = ExportLogsServiceRequest()
        resource = request.resource_logs.add()
        resource.resource.CopyFrom(self._resource())
        record = resource.scope_logs.add().log_records.add()
        record.event_name = name
        record.time_unix_nano = self.now_ns + int(at_s * SECOND)
        values = dict(attributes or {})
        if rank is not None:
            values = {signals.RANK: rank, signals.PID: self.people[rank].pid, **values}
        _put(record.attributes, values)
        self._feed(Kind.REQUEST, request.SerializeToString(), "logs")

    def ends(
        self, rank: int, *, code: int | None = None, signal: int | None = None, at_s: float = 0.0
    ) -> None:
        """The process of a rank ends, and the launcher saw how."""
        attributes: dict[str, Any] = {signals.EXIT_WITNESS: "launcher"}
        if code is not None:
            attributes[signals.EXIT_CODE] = code
        if signal is not None:
            attributes[signals.EXIT_SIGNAL] = signal
        self.people[rank].gone = True
        self.fact(signals.RANK_EXITED, rank, attributes, at_s)

    def raises(
        self,
        rank: int,
        kind: str,
        message: str,
        place: tuple[str, str, int],
        at_s: float = 0.0,
        *,
        thread: str = "MainThread",
    ) -> None:
        """User code of a rank raises an exception that nobody catches."""
        function, file, line = place
        attributes = {
            signals.EXCEPTION_TYPE: kind,
            signals.EXCEPTION_MESSAGE: message,
            signals.CODE_FUNCTION: function,
            signals.CODE_FILE: file,
            signals.CODE_LINE: line,
            signals.STEP_ATTRIBUTE: self.people[rank].step,
            signals.THREAD_NAME: thread,
        }
        self.fact(signals.RANK_EXCEPTION, rank, attributes, at_s)

    def reborn(self, rank: int) -> None:
        """A new process takes the rank."""
        old = self.people[rank]
        self.people[rank] = StoryRank(rank, old.pid + 1000, event_s=self.second, cpu_s=self.second)
        front = max(person.entered for person in self.people)
        for person in self.people:
            person.entered = person.left = front
        self.fact(signals.RANK_BORN, rank, {signals.WORLD_SIZE: self.ranks})

    # -- reading ---------------------------------------------------------------------------------------

    def incidents(self, status: str | None = None) -> list[Incident]:
        """Incidents of the engine, optionally of one status."""
        assert self.engine is not None
        return [item for item in self.engine.incidents() if status in (None, item.status)]

    def the_open_one(self) -> Incident:
        """The only open incident."""
        found = self.incidents("open")
        assert len(found) == 1, [item.summary for item in found]
        return found[0]

    def open_culprits(self) -> list[int | None]:
        """Ranks blamed by open incidents."""
        return [culprit.rank for item in self.incidents("open") for culprit in item.culprits]

    def run_until_open(self, limit: int) -> int:
        """Seconds until an incident is open.

        Raises:
            AssertionError: none opened within `limit` seconds.
        """
        for passed in range(1, limit + 1):
            self.run(1)
            if self.incidents("open"):
                return passed
        raise AssertionError(f"no incident within {limit} s: {[i.summary for i in self.incidents()]}")

    # -- the world -------------------------------------------------------------------------------------

    def _live(self) -> None:
        living = [person for person in self.people if not person.gone]
        blocked = [p for p in self.people if p.gone or p.doing != "training"]
        for person in living:
            if person.doing == "training" and not blocked:
                self._finish_step(person)
            elif person.doing == "training" and person.left == person.entered:
                person.entered += 1
                person.event_s = self.second
                person.frames = (WAIT, LOOP)
            self._spend(person)

    def _finish_step(self, person: StoryRank) -> None:
        if person.left < person.entered:
            person.left = person.entered
        else:
            person.entered += 1
            person.left += 1
        person.step += 1
        person.event_s = self.second
        person.frames = (Frame("train_step", "/job/train.py", 40 + self.second % 7),)

    def _spend(self, person: StoryRank) -> None:
        waits = person.doing == "training" and person.left < person.entered
        if person.doing in _USES_CPU and not waits:
            person.cpu_s = self.second
        if person.doing == "working":
            person.io_s, person.io_bytes = self.second, person.io_bytes + 200_000_000
        if person.doing == "stopped":
            person.stopped_s = self.second if person.stopped_s is None else person.stopped_s
        if person.doing not in _KEEPS_LOCK and person.watcher_lives:
            person.tick_s = self.second

    # -- the agent -------------------------------------------------------------------------------------

    def _resource(self) -> Resource:
        resource = Resource()
        identity = JobIdentity(self.job_id, self.incarnation, self.host, 0)
        _put(resource.attributes, identity.resource())
        return resource

    def _report(self) -> None:
        request = ExportMetricsServiceRequest()
        resource = request.resource_metrics.add()
        resource.resource.CopyFrom(self._resource())
        metrics = resource.scope_metrics.add().metrics
        for person in self.people:
            if person.visible and not person.gone:
                for name, value in self._gauges(person).items():
                    self._point(metrics, name, value, {signals.RANK: person.rank})
                self._group_points(metrics, person)
        self._feed(Kind.REQUEST, request.SerializeToString(), "metrics")

    def _gauges(self, person: StoryRank) -> dict[str, float]:
        state = "stopped" if person.stopped_s is not None else "sleeping"
        return {
            signals.STEP: person.step,
            signals.STATE: STATES.index(person.state),
            signals.PHASE: PHASES.index(person.phase),
            signals.EVENT_AGE: self.second - person.event_s,
            signals.CPU_AGE: self.second - person.cpu_s,
            signals.IO_AGE: self.second - person.io_s,
            signals.TICK_AGE: self.second - person.tick_s,
            signals.PROCESS_STATE: PROCESS_STATES.index(state),
            signals.STOPPED_FOR: 0.0 if person.stopped_s is None else self.second - person.stopped_s,
            signals.CPU_UTILIZATION: person.cpu_share if person.cpu_s == self.second else 0.0,
            signals.DISK_IO: person.io_bytes,
        }

    def _group_points(self, metrics: Any, person: StoryRank) -> None:
        for name, members in self.groups.items():
            attributes = {
                signals.RANK: person.rank,
                signals.GROUP_NAME: name,
                signals.GROUP_RANKS: members,
                signals.BACKEND: "gloo",
            }
            self._point(metrics, signals.ENQUEUED, person.entered, attributes)
            self._point(metrics, signals.COMPLETED, person.left, attributes)

    def _point(self, metrics: Any, name: str, value: float, attributes: Mapping[str, Any]) -> None:
        metric = metrics.add()
        metric.name = name
        point = metric.gauge.data_points.add()
        point.time_unix_nano = self.now_ns
        point.as_double = value
        _put(point.attributes, attributes)

    def _heartbeat(self) -> None:
        reports = tuple(
            RankReport(p.rank, p.rank, p.pid, "X" if p.gone else "S") for p in self.people if p.visible
        )
        heartbeat = Heartbeat(
            agent=f"{self.host}/{self.job_id}",
            job_id=self.job_id,
            incarnation=self.incarnation,
            sequence=self.second // 2 + 1,
            host=self.host,
            time_ns=self.now_ns,
            interval_seconds=2.0,
            world_size=self.ranks,
            final=self.agent_ends,
            ranks=reports,
            collectors=(CollectorReport("beacons", True),),
        )
        self._feed(Kind.HEARTBEAT, encode(heartbeat))

    def _answer(self) -> None:
        asked, self._asked = self._asked, []
        for command in asked:
            for rank in command["ranks"]:
                if self.stacks_can_be_had and not self.people[rank].gone:
                    self._stack(self.people[rank], command["id"])

    def _stack(self, person: StoryRank, command_id: str) -> None:
        request = ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        resource.resource.CopyFrom(self._resource())
        span = resource.scope_spans.add().spans.add()
        span.name = signals.STACK_CAPTURE
        span.trace_id, span.span_id = bytes(range(16)), bytes(range(1, 9))
        span.start_time_unix_nano = self.now_ns
        span.end_time_unix_nano = self.now_ns + SECOND // 20
        attributes = {
            signals.RANK: person.rank,
            signals.PID: person.pid,
            signals.STACK_METHOD: "py-spy",
            signals.COMMAND_ID: command_id,
        }
        _put(span.attributes, attributes)
        event = span.events.add()
        event.name, event.time_unix_nano = signals.STACK_DUMP, self.now_ns
        text = format_frames(person.frames)
        _put(
            event.attributes,
            {signals.THREAD_NAME: "MainThread", signals.STACK_MAIN: True, signals.STACK_TEXT: text},
        )
        self._feed(Kind.REQUEST, request.SerializeToString(), "traces")

    def _feed(self, kind: Kind, payload: bytes, signal: str = "") -> None:
        assert self.engine is not None
        record = Record(len(self.records), self.now_ns, kind, signal, "story", payload)
        self.records.append(record)
        for output in self.engine.process(record):
            self.outputs.append(output)
            if output.kind == "command":
                self._asked.append(output.body)


def replay(records: Sequence[Record], configuration: Mapping[str, Any] | None = None) -> Engine:
    """A fresh engine that has seen the same records."""
    engine = build_engine(configuration or {})
    for record in records:
        engine.process(record)
    return engine


def _put(attributes: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        item = KeyValue(key=key)
        if isinstance(value, bool):
            item.value.bool_value = value
        elif isinstance(value, int):
            item.value.int_value = value
        elif isinstance(value, float):
            item.value.double_value = value
        else:
            item.value.string_value = str(value)
        attributes.append(item)
