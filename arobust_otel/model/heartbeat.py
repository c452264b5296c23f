"""Heartbeat between agent and master: typed values and their JSON form (docs/heartbeat.md).

Pure: no socket, no clock. Unknown fields are ignored in both directions, so that versions may differ.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

PATH = "/arobust/v1/heartbeat"
CAPTURE_STACKS = "capture_stacks"
COMMAND_KINDS = (CAPTURE_STACKS,)


@dataclass(frozen=True, slots=True)
class RankReport:
    """A rank as the agent sees it: pid 0 where unknown; `state` is a letter of /proc, ``X`` when gone."""

    rank: int
    local_rank: int
    pid: int
    state: str
    role: str = "trainer"
    beacon: bool = True


@dataclass(frozen=True, slots=True)
class CollectorReport:
    """Whether a collector works; `reason` says in plain words why not, and the remedy."""

    name: str
    ok: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What became of a command: ``done``, ``failed``, ``expired`` or ``refused``."""

    id: str
    outcome: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """A typed order to one agent. `expires_ns` is on the master's clock; `ranks` are those concerned."""

    id: str
    kind: str
    agent: str
    job_id: str
    incarnation: int
    expires_in_seconds: float
    ranks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Agent to master. `sequence` starts at 1 and grows by 1; `final` marks the agent's regular end."""

    agent: str
    job_id: str
    incarnation: int
    sequence: int
    host: str
    time_ns: int
    interval_seconds: float
    world_size: int
    node_rank: int | None = None
    final: bool = False
    ranks: tuple[RankReport, ...] = ()
    collectors: tuple[CollectorReport, ...] = ()
    gaps: tuple[str, ...] = ()
    results: tuple[CommandResult, ...] = ()
    stats: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """Master to agent: commands and the next interval."""

    interval_seconds: float
    commands: tuple[Command, ...] = ()


def encode(message: Heartbeat | Reply) -> bytes:
    """UTF-8 JSON, keys sorted."""
    return json.dumps(asdict(message), sort_keys=True, separators=(",", ":")).encode()


def _pick(kind: type[Any], values: Any) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{kind.__name__} is not a JSON object")
    known = {name: value for name, value in values.items() if name in kind.__dataclass_fields__}
    try:
        return kind(**known)
    except TypeError as error:
        raise ValueError(str(error)) from None


def decode_heartbeat(body: bytes) -> Heartbeat:
    """Parse a heartbeat.

    Raises:
        ValueError: names what is wrong with the body.
    """
    values = json.loads(body)
    if not isinstance(values, dict):
        raise ValueError("a heartbeat is a JSON object")
    for name, kind in (("ranks", RankReport), ("collectors", CollectorReport), ("results", CommandResult)):
        items = values.get(name, [])
        if not isinstance(items, list):
            raise ValueError(f"{name} is not a list")
        values[name] = tuple(_pick(kind, item) for item in items)
    values["gaps"] = tuple(str(gap) for gap in values.get("gaps", []))
    heartbeat: Heartbeat = _pick(Heartbeat, values)
    for name in ("agent", "job_id", "host"):
        if not isinstance(getattr(heartbeat, name), str) or not getattr(heartbeat, name):
            raise ValueError(f"{name} is missing or empty")
    for name in ("sequence", "incarnation", "world_size", "time_ns"):
        if not isinstance(getattr(heartbeat, name), int):
            raise ValueError(f"{name} is not a whole number")
    return heartbeat


def decode_reply(body: bytes) -> Reply:
    """Parse a reply; commands of a kind that this version does not know are left out.

    Raises:
        ValueError: names what is wrong with the body.
    """
    values = json.loads(body)
    if not isinstance(values, dict):
        raise ValueError("a reply is a JSON object")
    commands = []
    for item in values.get("commands", []):
        command = _pick(Command, item)
        if command.kind in COMMAND_KINDS:
            commands.append(_with_ranks(command))
    return Reply(interval_seconds=float(values.get("interval_seconds", 2.0)), commands=tuple(commands))


def _with_ranks(command: Command) -> Command:
    values = asdict(command)
    values["ranks"] = tuple(int(rank) for rank in command.ranks)
    return Command(**values)
