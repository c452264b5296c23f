"""Data classes of the package `arobust`: what collectors hand to a client, and what a diagnosis says.

Times are whole seconds since the epoch, 0 where unknown. Enumerations travel as JSON by name.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any, TypeVar

from arobust_otel.common.constants import DiagnosisActionType, DiagnosisDataType

E = TypeVar("E", bound=Enum)


@dataclass
class GPUStats:
    """One accelerator at one time; `gpu_utilization` is in percent."""

    index: int
    total_memory_mb: float
    used_memory_mb: float
    gpu_utilization: float


@dataclass
class ResourceStats:
    """The node, or its container, at one time.

    `cpu_percent` is a share of 0 to 1 where our monitor fills it (the name is the predecessor's); a value
    above 1 is read as percent.
    """

    cpu_percent: float
    memory_mb: int
    gpu_stats: list[GPUStats] = field(default_factory=list)
    timestamp: int = 0


@dataclass
class WorkerTrainingMetric:
    """What a collector found, as text; the one argument of ``report_diagnosis_agent_metrics``."""

    data_type: DiagnosisDataType
    data_content: str
    node_id: int = -1
    node_type: str = ""
    node_rank: int = -1
    timestamp: int = 0

    def to_json(self) -> str:
        """JSON with the data type by name; DLRover's own class reads it, too."""
        return json.dumps({item.name: _plain(getattr(self, item.name)) for item in _FIELDS})

    @classmethod
    def from_json(cls, text: str) -> WorkerTrainingMetric:
        """The metric behind `to_json`, or behind DLRover's form of it; keys that nobody knows are ignored.

        Raises:
            ValueError: not JSON, no object, or of an unknown data type.
            TypeError: a key is missing.
        """
        values = _known(WorkerTrainingMetric, _object(text))
        if "data_type" in values:
            values["data_type"] = named(DiagnosisDataType, values["data_type"])
        return WorkerTrainingMetric(**values)


_FIELDS = fields(WorkerTrainingMetric)


@dataclass
class DiagnosisObservation:
    """What somebody noticed, and whether it is out of the ordinary."""

    observation: str = ""
    is_anomaly: bool = False
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class DiagnosisAction:
    """What to do, to whom, and why."""

    action_type: DiagnosisActionType
    node_id: int | None = None
    node_type: str | None = None
    instance: str = ""
    reason: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """JSON with the kind of action by name."""
        return json.dumps({name: _plain(value) for name, value in asdict(self).items()})

    @classmethod
    def from_json(cls, text: str) -> DiagnosisAction:
        """The action behind `to_json`, of the class that it is asked of.

        Raises:
            ValueError: not JSON, no object, or of an unknown kind of action.
        """
        values = _known(DiagnosisAction, _object(text))
        values["action_type"] = named(
            DiagnosisActionType, values.get("action_type", DiagnosisActionType.NO_ACTION.name)
        )
        action = cls.__new__(cls)  # subclasses differ in how they are made, not in what they hold
        DiagnosisAction.__init__(action, **values)
        return action


class NoAction(DiagnosisAction):
    """Nothing has to be done."""

    def __init__(self) -> None:
        super().__init__(DiagnosisActionType.NO_ACTION)


class NodeAction(DiagnosisAction):
    """Something has to be done to one node."""

    def __init__(
        self,
        node_id: int | None,
        node_type: str | None,
        instance: str,
        action_type: DiagnosisActionType,
        reason: str = "",
    ) -> None:
        super().__init__(action_type, node_id, node_type, instance, reason)


@dataclass
class ProcessError:
    """How one process of a node failed; `timestamp` is a text, as its source gave it."""

    local_rank: int
    exitcode: int
    message: str
    timestamp: str


def named(kind: type[E], value: object) -> E:
    """A member of an enumeration by itself, name or number.

    Raises:
        ValueError: names what would be right.
    """
    if isinstance(value, kind):
        return value
    for member in kind:
        if value in (member.name, member.value) and not isinstance(value, bool):
            return member
    names = ", ".join(member.name for member in kind)
    raise ValueError(f"{value!r} is no {kind.__name__}: one of {names}")


def _plain(value: object) -> object:
    return value.name if isinstance(value, Enum) else value


def _object(text: str) -> dict[str, Any]:
    values = json.loads(text)
    if isinstance(values, dict):
        return values
    raise ValueError(f"{text[:80]!r} is no JSON object")


def _known(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in kind.__dataclass_fields__}
