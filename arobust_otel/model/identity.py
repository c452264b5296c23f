"""Who is who: job, incarnation, node and rank, resolved from a launcher's environment.

Resolution order: explicit argument, our own variables, the launcher's. `RANK` counts as a process rank only
beside `LOCAL_RANK` or `TORCHELASTIC_RUN_ID`: several platforms set it to the node's rank. Pure: the
environment is an argument. Named tuples, not dataclasses: every training process loads this, and a frozen
slotted dataclass costs it one to two milliseconds to define.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# Resource attributes.
SERVICE_NAME = "service.name"
SERVICE_INSTANCE_ID = "service.instance.id"
HOST_NAME = "host.name"
JOB_ID = "arobust.job.id"
NODE_RANK = "arobust.node.rank"
INCARNATION = "arobust.incarnation"
# Data point, log record and span attributes.
RANK = "arobust.rank"
LOCAL_RANK = "arobust.local_rank"
ROLE = "arobust.role"
PROCESS_ID = "process.pid"


class JobIdentity(NamedTuple):
    """One attempt of one job on one node: what becomes the OTel resource."""

    job_id: str
    incarnation: int
    host: str
    node_rank: int | None = None

    @property
    def instance_id(self) -> str:
        """Stable over restarts: host and job."""
        return f"{self.host}/{self.job_id}"

    def resource(self) -> dict[str, str | int]:
        """Resource attributes; absent where unknown."""
        attributes: dict[str, str | int] = {
            SERVICE_NAME: "arobust-agent",
            SERVICE_INSTANCE_ID: self.instance_id,
            HOST_NAME: self.host,
            JOB_ID: self.job_id,
            INCARNATION: self.incarnation,
        }
        if self.node_rank is not None:
            attributes[NODE_RANK] = self.node_rank
        return attributes


class RankIdentity(NamedTuple):
    """A training process: its place in the world, in processes."""

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    node_rank: int | None
    incarnation: int
    role: str
    launcher: str

    def attributes(self) -> dict[str, str | int]:
        """Attributes of this rank's data points, log records and spans."""
        return {RANK: self.rank, LOCAL_RANK: self.local_rank, ROLE: self.role}


# launcher, rank, local rank, world size, local world size, node rank, incarnation
_LAUNCHERS: tuple[tuple[str, str, str, str, str, str, str], ...] = (
    (
        "slurm",
        "SLURM_PROCID",
        "SLURM_LOCALID",
        "SLURM_NTASKS",
        "SLURM_NTASKS_PER_NODE",
        "SLURM_NODEID",
        "SLURM_RESTART_COUNT",
    ),
    (
        "openmpi",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
        "",
        "",
    ),
    ("mpich", "PMI_RANK", "MPI_LOCALRANKID", "PMI_SIZE", "MPI_LOCALNRANKS", "", ""),
)


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "") if name else ""
    try:
        return int(text)
    except ValueError:
        return None


def resolve_rank(environ: Mapping[str, str]) -> RankIdentity | None:
    """The rank that this environment describes; None where no launcher set rank variables."""
    role = environ.get("AROBUST_ROLE") or environ.get("ROLE_NAME") or "trainer"
    rank = _number(environ, "RANK")
    elastic = "TORCHELASTIC_RUN_ID" in environ
    if rank is not None and (elastic or "LOCAL_RANK" in environ):
        return RankIdentity(
            rank=rank,
            local_rank=_number(environ, "LOCAL_RANK") or 0,
            world_size=_number(environ, "WORLD_SIZE") or 1,
            local_world_size=_number(environ, "LOCAL_WORLD_SIZE") or 1,
            node_rank=_number(environ, "GROUP_RANK"),
            incarnation=_number(environ, "TORCHELASTIC_RESTART_COUNT") or 0,
            role="trainer" if role == "default" else role,
            launcher="torchrun" if elastic else "env",
        )
    for launcher, name, local, world, local_world, node, restarts in _LAUNCHERS:
        rank = _number(environ, name)
        local_rank = _number(environ, local)
        if rank is None or local_rank is None:
            continue
        return RankIdentity(
            rank=rank,
            local_rank=local_rank,
            world_size=_number(environ, world) or 1,
            local_world_size=_number(environ, local_world) or 1,
            node_rank=_number(environ, node),
            incarnation=_number(environ, restarts) or 0,
            role=role,
            launcher=launcher,
        )
    return None


SINGLE = RankIdentity(
    rank=0,
    local_rank=0,
    world_size=1,
    local_world_size=1,
    node_rank=0,
    incarnation=0,
    role="trainer",
    launcher="none",
)


def resolve_job_id(environ: Mapping[str, str]) -> str | None:
    """The job id that this environment names; None where nothing does (the caller makes one).

    torchrun's own default run id is the text ``none``: it names no job.
    """
    for name in ("AROBUST_JOB_ID", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "RAY_JOB_ID", "ELASTIC_JOB_NAME"):
        value = environ.get(name, "")
        if value and value != "none":
            return value
    return None


def resolve_job(environ: Mapping[str, str], host: str, pid: int) -> JobIdentity:
    """The attempt that a process with this environment works for; a job that nothing names is its own.

    >>> resolve_job({"AROBUST_JOB_ID": "j", "RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "2"}, "h", 7)
    JobIdentity(job_id='j', incarnation=0, host='h', node_rank=2)
    >>> resolve_job({}, "h", 7).job_id
    'process-7'
    """
    rank = resolve_rank(environ) or SINGLE
    job_id = resolve_job_id(environ) or f"process-{pid}"
    return JobIdentity(job_id, rank.incarnation, host, rank.node_rank)


# Ours, then the predecessor's, which prefixed its variables in lower case.
_MASTER = ("AROBUST_MASTER", "AROBUST_MASTER_ADDR", "arobust_MASTER_ADDR")
OTLP_SIGNALS = ("metrics", "logs", "traces")


def resolve_master(environ: Mapping[str, str]) -> str:
    """Addresses of the master as text: `AROBUST_MASTER`, the OTLP endpoint variables, localhost.

    A URL means OTLP/HTTP, a bare ``host:port`` or ``grpc://`` OTLP/gRPC; commas stand between several. The
    OTLP variables say ``http://`` for both: there the variable of the protocol decides, or else port 4317.
    An endpoint of one signal stands as ``metrics=URL`` beside what the others use.

    >>> resolve_master({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://c:4318/v1/logs"})
    'http://127.0.0.1:4318,logs=http://c:4318/v1/logs'
    """
    own = next((environ[name] for name in _MASTER if environ.get(name)), None)
    if own:
        return own
    of_signals = {signal: _endpoint(environ, f"_{signal.upper()}") for signal in OTLP_SIGNALS}
    named = [f"{signal}={address}" for signal, address in of_signals.items() if address]
    general = _endpoint(environ, "")
    if not general and len(named) < len(OTLP_SIGNALS):
        is_grpc = environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") == "grpc"
        general = "grpc://127.0.0.1:4317" if is_grpc else "http://127.0.0.1:4318"
    return ",".join(filter(None, [general, *named]))


def master_variable(environ: Mapping[str, str]) -> str:
    """The variable that `resolve_master` takes the addresses from, for messages."""
    own = next((name for name in _MASTER if environ.get(name)), None)
    return own or "OTEL_EXPORTER_OTLP_ENDPOINT"


def _endpoint(environ: Mapping[str, str], of_signal: str) -> str:
    """An endpoint of the OTLP variables in our own form; "" where there is none."""
    endpoint = environ.get(f"OTEL_EXPORTER_OTLP{of_signal}_ENDPOINT")
    protocol = environ.get(f"OTEL_EXPORTER_OTLP{of_signal}_PROTOCOL")
    general = environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    return _otlp_address(endpoint, protocol or general) if endpoint else ""


def _otlp_address(endpoint: str, protocol: str) -> str:
    """An OTLP endpoint in our own form.

    >>> _otlp_address("https://host:4317", ""), _otlp_address("host:4318", "http/protobuf")
    ('grpcs://host:4317', 'http://host:4318')
    """
    scheme, mark, rest = endpoint.partition("://")
    if not mark:
        return f"http://{endpoint}" if protocol.startswith("http") else endpoint
    authority = rest.split("/", 1)[0]
    if protocol == "grpc" or (not protocol and authority.endswith(":4317")):
        return f"{'grpcs' if scheme == 'https' else 'grpc'}://{authority}"
    return endpoint
