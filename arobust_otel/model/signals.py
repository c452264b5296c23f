"""The dictionary of signals: every metric, event and attribute name, its unit, kind and meaning.

Code, documentation, boards and alert rules take names from here; a test fails on any other. Names follow
OpenTelemetry semantic conventions where one exists, the prefix `arobust.` where none does. Units are UCUM.
"""

from __future__ import annotations

from arobust_otel.model.device_signals import *  # noqa: F403 - one name for the dictionary
from arobust_otel.model.signal_rows import ATTRIBUTE as ATTRIBUTE
from arobust_otel.model.signal_rows import COUNTER as COUNTER
from arobust_otel.model.signal_rows import EVENT as EVENT
from arobust_otel.model.signal_rows import GAUGE as GAUGE
from arobust_otel.model.signal_rows import SPAN as SPAN
from arobust_otel.model.signal_rows import UPDOWN as UPDOWN
from arobust_otel.model.signal_rows import Signal as Signal
from arobust_otel.model.signal_rows import define as _define
from arobust_otel.model.signal_rows import rows as _rows

_of_devices = dict(_rows)

# Progress of a rank, from its beacon (attributes: arobust.rank, arobust.local_rank, arobust.role).
STEP = _define("arobust.training.step", GAUGE, "{step}", "steps finished since the rank was born")
STATE = _define(
    "arobust.training.state", GAUGE, "{state}", "state of the rank's life: see model/beacon.py STATES"
)
PHASE = _define("arobust.training.phase", GAUGE, "{phase}", "phase of the step: see model/beacon.py PHASES")
PHASE_AGE = _define("arobust.training.phase.age", GAUGE, "s", "time since the phase was entered")
STEP_DURATION = _define("arobust.training.step.duration", GAUGE, "s", "duration of the last finished step")
LOSS = _define(
    "arobust.training.loss", GAUGE, "{loss}", "newest loss that backward started from, while it is finite"
)
EVENT_AGE = _define(
    "arobust.progress.event.age", GAUGE, "s", "time since step, phase, state or a collective counter changed"
)
CPU_AGE = _define("arobust.progress.cpu.age", GAUGE, "s", "time since the rank last used processor time")
IO_AGE = _define("arobust.progress.io.age", GAUGE, "s", "time since the rank last read or wrote bytes")
TICK_AGE = _define("arobust.beacon.tick.age", GAUGE, "s", "time since the rank's watcher thread last ran")

# Collectives, from the flight recorder (attributes: rank, group name and members).
ENQUEUED = _define(
    "arobust.collective.enqueued", GAUGE, "{collective}", "collectives this rank entered in the group"
)
COMPLETED = _define(
    "arobust.collective.completed", GAUGE, "{collective}", "collectives this rank finished in the group"
)
READ_AGE = _define("arobust.collective.read.age", GAUGE, "s", "time since the group's counters were read")

# The rank's process, from /proc (attributes: rank).
PROCESS_STATE = _define(
    "arobust.process.state", GAUGE, "{state}", "state of the process: see model/beacon.py PROCESS_STATES"
)
STOPPED_FOR = _define(
    "arobust.process.stopped.duration", GAUGE, "s", "how long every task of the process has been stopped"
)
PROCESS_INFO = _define(
    "arobust.process.info", GAUGE, "{process}", "always 1; the only metric that carries the process id"
)
CPU_UTILIZATION = _define(
    "process.cpu.utilization", GAUGE, "1", "processor time of the process over wall time; 1 is one core"
)
MEMORY_USAGE = _define("process.memory.usage", UPDOWN, "By", "resident memory of the process")
DISK_IO = _define("process.disk.io", COUNTER, "By", "bytes read and written, by disk.io.direction")

# The host (no rank attribute).
HOST_CPU = _define("system.cpu.utilization", GAUGE, "1", "busy share of all processors of the host")
HOST_MEMORY_USAGE = _define("system.memory.usage", UPDOWN, "By", "memory in use on the host")
HOST_MEMORY_LIMIT = _define("system.memory.limit", UPDOWN, "By", "memory of the host")
HOST_FS_UTILIZATION = _define(
    "system.filesystem.utilization",
    GAUGE,
    "1",
    "used share of a file system, by system.filesystem.mountpoint",
)
HOST_NET_IO = _define("system.network.io", COUNTER, "By", "bytes on the wire, by network.io.direction")
HOST_PRESSURE = _define(
    "arobust.host.pressure", GAUGE, "1", "share of time some task waited (10 s mean), by arobust.resource"
)
OOM_KILLS = _define("arobust.host.oom_kills", COUNTER, "{kill}", "processes the kernel ended for memory")
CONTAINER_MEMORY_USAGE = _define(
    "container.memory.usage", UPDOWN, "By", "memory that counts against the container's limit"
)
CONTAINER_MEMORY_LIMIT = _define("arobust.container.memory.limit", UPDOWN, "By", "what it may use")


# The agent about itself.
AGENT_UP = _define("arobust.agent.up", GAUGE, "{agent}", "always 1 while the agent runs")
COLLECTOR_UP = _define(
    "arobust.collector.up",
    GAUGE,
    "{collector}",
    "1 where the collector's last run worked, by arobust.collector",
)
COLLECTOR_DURATION = _define(
    "arobust.collector.duration", GAUGE, "s", "duration of the collector's last run, by arobust.collector"
)
COLLECTOR_AGE = _define(
    "arobust.collector.age", GAUGE, "s", "time since the collector's last run came back, by arobust.collector"
)
CLIENT_REPORTS = _define(
    "arobust.client.reports",
    COUNTER,
    "{report}",
    "items handed over, by arobust.result: accepted, recovered (from the disk), delivered, dropped",
)
CLIENT_QUEUE_ITEMS = _define("arobust.client.queue.items", UPDOWN, "{item}", "items waiting to be delivered")
CLIENT_QUEUE_BYTES = _define("arobust.client.queue.size", UPDOWN, "By", "bytes waiting to be delivered")
CLIENT_OLDEST_AGE = _define(
    "arobust.client.oldest.age", GAUGE, "s", "age of the oldest item that is not delivered yet"
)
CLIENT_DROPPED = _define("arobust.client.dropped", COUNTER, "{item}", "items given up, by arobust.reason")
CLIENT_LATENCY = _define("arobust.client.latency", GAUGE, "s", "duration of the last delivery")
CLIENT_SENDS = _define("arobust.client.sends", COUNTER, "{request}", "batches sent, each try counted")
CLIENT_RETRIES = _define(
    "arobust.client.retries", COUNTER, "{request}", "batches sent once more, under the same batch id"
)
CLIENT_BYTES_RAW = _define(
    "arobust.client.io.uncompressed", COUNTER, "By", "request bodies before compression, each try counted"
)
CLIENT_BYTES_SENT = _define(
    "arobust.client.io", COUNTER, "By", "request bodies as they went out, each try counted"
)
CLIENT_CIRCUIT = _define(
    "arobust.client.circuit.open",
    GAUGE,
    "{circuit}",
    "1 while only probes go to the master, after failures in a row",
)
CLIENT_SPOOL_UP = _define(
    "arobust.client.spool.up",
    GAUGE,
    "{spool}",
    "1 where the spool on the disk works, 0 where it is full or broken",
)
CLIENT_SPOOL_ITEMS = _define("arobust.client.spool.items", UPDOWN, "{item}", "items waiting on the disk")
CLIENT_SPOOL_BYTES = _define(
    "arobust.client.spool.size", UPDOWN, "By", "bytes waiting on the disk, compressed"
)
SDK_EXPORTED_POINTS = _define(
    "otel.sdk.exporter.metric_data_point.exported",
    COUNTER,
    "{data_point}",
    "data points that the master took",
)
SDK_EXPORTED_LOGS = _define(
    "otel.sdk.exporter.log.exported", COUNTER, "{log_record}", "log records that the master took"
)
SDK_EXPORTED_SPANS = _define(
    "otel.sdk.exporter.span.exported", COUNTER, "{span}", "spans that the master took"
)

# The master's receiver about itself.
RECEIVER_REQUESTS = _define(
    "arobust.receiver.requests",
    COUNTER,
    "{request}",
    "requests by arobust.protocol, arobust.signal and arobust.result (accepted, repeated, refused; a refused "
    "one also by arobust.status)",
)
RECEIVER_BYTES = _define(
    "arobust.receiver.io",
    COUNTER,
    "By",
    "accepted requests, inflated, by arobust.protocol and arobust.signal",
)
RECEIVER_REJECTED = _define(
    "arobust.receiver.rejected",
    COUNTER,
    "{item}",
    "items cut out of accepted requests as bad for ever, by arobust.protocol and arobust.signal",
)
RECEIVER_INVALID_IDS = _define(
    "arobust.receiver.invalid_batch_ids",
    COUNTER,
    "{request}",
    "requests whose batch id was no batch id and was ignored, by arobust.protocol",
)
JOURNAL_WRITABLE = _define(
    "arobust.journal.writable",
    GAUGE,
    "{journal}",
    "1 where the journal takes records, 0 while its disk is full",
)

# The master about itself, and its forwarders (attributes: arobust.forwarder, arobust.stream).
MASTER_UP = _define(
    "arobust.master.up", GAUGE, "{role}", "1 where the process of a role runs, by arobust.master.role"
)
JUDGE_LAG = _define(
    "arobust.judge.lag",
    GAUGE,
    "s",
    "how long ago the newest judged record was received, 0 at the journal's end",
)
JUDGE_BEHIND = _define("arobust.judge.behind", GAUGE, "{record}", "records of the journal not judged yet")
JUDGE_SKIPPED = _define(
    "arobust.judge.skipped", UPDOWN, "{record}", "records that made the judge fail and were passed over"
)
JOURNAL_SIZE = _define("arobust.journal.size", GAUGE, "By", "size of the journal's segments")
JOURNAL_RECORDS = _define(
    "arobust.journal.records", COUNTER, "{record}", "offset of the journal's next record"
)
FORWARDER_UP = _define(
    "arobust.forwarder.up",
    GAUGE,
    "{forwarder}",
    "1 where the last delivery worked, 0 while it is tried again",
)
FORWARDER_SENT = _define("arobust.forwarder.sent", COUNTER, "{request}", "requests that the destination took")
FORWARDER_SENT_SIZE = _define("arobust.forwarder.sent.size", COUNTER, "By", "their size, not compressed")
FORWARDER_RETRIES = _define(
    "arobust.forwarder.retries", COUNTER, "{retry}", "deliveries that were tried again"
)
FORWARDER_DROPPED = _define(
    "arobust.forwarder.dropped",
    COUNTER,
    "{item}",
    "points, log records, spans or notices that this destination never got, by arobust.reason",
)
FORWARDER_LAG = _define(
    "arobust.forwarder.lag", GAUGE, "s", "age of the oldest record that is not delivered yet, 0 for none"
)
FORWARDER_BEHIND = _define(
    "arobust.forwarder.behind", GAUGE, "{record}", "records of the journal that were not looked at yet"
)

# Facts of a rank (events).
RANK_BORN = _define("arobust.rank.born", EVENT, "", "a rank's process was seen for the first time")
RANK_EXITED = _define(
    "arobust.rank.exited", EVENT, "", "a rank's process ended; exit code and witness as attributes"
)
RANK_EXCEPTION = _define(
    "arobust.rank.exception", EVENT, "", "user code raised an exception that nobody caught"
)
RANK_CRASHING = _define(
    "arobust.rank.crashing", EVENT, "", "the kernel writes a core, or a fatal signal was reported"
)
RANK_STOPPED = _define("arobust.rank.stopped", EVENT, "", "every task of the process is in state T")
RANK_CONTINUED = _define("arobust.rank.continued", EVENT, "", "a stopped process runs again")
RANK_STALLED = _define("arobust.rank.stalled", EVENT, "", "no progress of any kind for some seconds")
RANK_RESUMED = _define("arobust.rank.resumed", EVENT, "", "progress after a stall")
RANK_EXITING = _define("arobust.rank.exiting", EVENT, "", "the interpreter of the rank has begun to end")
RANK_NONFINITE = _define("arobust.rank.nonfinite", EVENT, "", "the first step whose loss was not finite")
LAUNCHER_EXITED = _define("arobust.launcher.exited", EVENT, "", "the launcher ended, or was told to end")
CAPABILITY_MISSING = _define(
    "arobust.capability.missing", EVENT, "", "a source of evidence is not to be had, and the remedy"
)
STACK_DUMP = _define("arobust.stack.dump", EVENT, "", "stacks of one process, full text in the body")
STACK_CAPTURE = _define("arobust.stack.capture", SPAN, "", "one capture of stacks; one span event per thread")
INCIDENT_EVENT = _define("arobust.incident", EVENT, "", "an incident changed; its JSON in the body")
INCIDENT_OPEN = _define(
    "arobust.incident.open", GAUGE, "{incident}", "1 while an incident is open, 0 once when it is resolved"
)

# Attributes.
GROUP_NAME = _define("arobust.process_group.name", ATTRIBUTE, "", "name of a process group")
GROUP_RANKS = _define(
    "arobust.process_group.ranks", ATTRIBUTE, "", "its members as short text, see model/ranks.py"
)
BACKEND = _define("arobust.process_group.backend", ATTRIBUTE, "", "gloo, nccl, ...")
EXIT_CODE = _define(
    "process.exit.code", ATTRIBUTE, "", "exit code; absent where a signal ended the process or nobody saw it"
)
EXIT_SIGNAL = _define("arobust.exit.signal", ATTRIBUTE, "", "number of the signal that ended the process")
EXIT_WITNESS = _define(
    "arobust.exit.witness", ATTRIBUTE, "", "launcher, pidfd, zombie, or none: nobody saw the code"
)
EXIT_OOM = _define(
    "arobust.exit.oom", ATTRIBUTE, "", "kernel log, cgroup or host: where an out-of-memory kill was seen"
)
EXCEPTION_TYPE = _define("exception.type", ATTRIBUTE, "", "qualified type of the exception")
EXCEPTION_MESSAGE = _define("exception.message", ATTRIBUTE, "", "its message")
EXCEPTION_STACK = _define("exception.stacktrace", ATTRIBUTE, "", "its traceback")
CODE_FUNCTION = _define("code.function.name", ATTRIBUTE, "", "innermost function of user code")
CODE_FILE = _define("code.file.path", ATTRIBUTE, "", "file of that function")
CODE_LINE = _define("code.line.number", ATTRIBUTE, "", "line in that file")
THREAD_NAME = _define("thread.name", ATTRIBUTE, "", "name of the thread")
THREAD_ID = _define("thread.id", ATTRIBUTE, "", "identifier of the thread")
STACK_TEXT = _define("code.stacktrace", ATTRIBUTE, "", "stack of one thread, innermost frame first")
STACK_METHOD = _define(
    "arobust.stack.method", ATTRIBUTE, "", "py-spy, py-spy-nonblocking, watcher or faulthandler-file"
)
STACK_MAIN = _define("arobust.stack.main", ATTRIBUTE, "", "true for the main thread")
STACK_ACTIVE = _define("arobust.stack.active", ATTRIBUTE, "", "true where the thread was on a processor")
STACK_LOCK = _define(
    "arobust.stack.interpreter_lock", ATTRIBUTE, "", "true where the thread held the interpreter lock"
)
COMMAND_ID = _define("arobust.command.id", ATTRIBUTE, "", "command that asked for this evidence")
STEP_ATTRIBUTE = _define("arobust.step", ATTRIBUTE, "", "step at which a fact happened (events only)")
REASON = _define("arobust.reason", ATTRIBUTE, "", "why something was dropped")
RESULT = _define("arobust.result", ATTRIBUTE, "", "what became of a report or request")
PROTOCOL = _define("arobust.protocol", ATTRIBUTE, "", "how a request came: http, grpc")
SIGNAL = _define("arobust.signal", ATTRIBUTE, "", "metrics, logs, traces, heartbeat, or other")
STATUS = _define(
    "arobust.status", ATTRIBUTE, "", "status of a refusal: an HTTP status or the name of a gRPC code"
)
COLLECTOR = _define("arobust.collector", ATTRIBUTE, "", "name of a collector")
RESOURCE = _define("arobust.resource", ATTRIBUTE, "", "cpu, memory or io")
CAPABILITY = _define("arobust.capability", ATTRIBUTE, "", "name of a missing capability")
REMEDY = _define("arobust.remedy", ATTRIBUTE, "", "what would restore a missing capability")
DISK_DIRECTION = _define("disk.io.direction", ATTRIBUTE, "", "read or write")
NET_DIRECTION = _define("network.io.direction", ATTRIBUTE, "", "receive or transmit")
MOUNTPOINT = _define("system.filesystem.mountpoint", ATTRIBUTE, "", "where a file system is mounted")
LOG_PATH = _define("log.file.path", ATTRIBUTE, "", "training log file")
LOG_OFFSET = _define("arobust.log.offset", ATTRIBUTE, "", "end of the line in the file, in bytes")
WORLD_SIZE = _define("arobust.world_size", ATTRIBUTE, "", "number of ranks of the job")
PID = _define("process.pid", ATTRIBUTE, "", "process id; on events, spans and the one info metric only")
RANK = _define("arobust.rank", ATTRIBUTE, "", "global rank")
LOCAL_RANK = _define("arobust.local_rank", ATTRIBUTE, "", "rank on its node")
ROLE = _define("arobust.role", ATTRIBUTE, "", "role of the process, for example trainer")
SERVICE_NAME = _define("service.name", ATTRIBUTE, "", "resource: arobust-agent, arobust-master")
SERVICE_INSTANCE = _define(
    "service.instance.id", ATTRIBUTE, "", "resource: host and job, stable over restarts"
)
HOST_NAME = _define("host.name", ATTRIBUTE, "", "resource: the host")
JOB_ID = _define("arobust.job.id", ATTRIBUTE, "", "resource: the job")
NODE_RANK = _define("arobust.node.rank", ATTRIBUTE, "", "resource: rank of the node in the job")
NODE_ID = _define(
    "arobust.node.id", ATTRIBUTE, "", "number of the node, where its platform gives one; on no metric"
)
INCARNATION = _define("arobust.incarnation", ATTRIBUTE, "", "resource: restart count of the job")
INCIDENT_ID = _define(
    "arobust.incident.id", ATTRIBUTE, "", "log records and spans only, never a metric's label"
)
RULE = _define("arobust.rule", ATTRIBUTE, "", "rule that made a verdict")
CAUSE = _define("arobust.cause", ATTRIBUTE, "", "cause code of a verdict")
SEVERITY = _define("arobust.severity", ATTRIBUTE, "", "critical, warning or info: severity of a cause")
FORWARDER = _define("arobust.forwarder", ATTRIBUTE, "", "name of a forwarder in the configuration")
STREAM = _define("arobust.stream", ATTRIBUTE, "", "bulk or incidents: what a forwarder delivers")
MASTER_ROLE = _define("arobust.master.role", ATTRIBUTE, "", "receive, judge or deliver")
INCIDENT_STATUS = _define("arobust.incident.status", ATTRIBUTE, "", "pending, open or resolved")
INCIDENT_GRADE = _define("arobust.incident.grade", ATTRIBUTE, "", "how good the evidence of a verdict is")
STACK_DIGEST = _define(
    "arobust.stack.digest", ATTRIBUTE, "", "digest of a stack's text: finds its log record"
)
EVENT_NAME = _define(
    "event.name", ATTRIBUTE, "", "name of an event once more: some log stores drop the field event_name"
)
FORWARDED = _define(
    "arobust.forwarded", ATTRIBUTE, "", "resource: true on what a master made; not forwarded again"
)

DICTIONARY: dict[str, Signal] = {
    **{name: row for name, row in _rows.items() if name not in _of_devices},
    **_of_devices,
}
