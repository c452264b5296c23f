"""User code that must type-check: what people write who add a part or read incidents.

Not run; `mypy tests/typing/api.py` is part of `make check`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from arobust_otel import DataCollector, DiagnosisAgent, LogCollector, MasterClient
from arobust_otel.config import AgentSettings, MasterSettings, agent_settings, load_file, master_settings
from arobust_otel.errors import ArobustError, ConfigurationError, RetryableDelivery
from arobust_otel.model import signals
from arobust_otel.model.finding import Finding
from arobust_otel.model.incident import Incident
from arobust_otel.model.notice import OPENED, Notice
from arobust_otel.model.samples import Event, Point
from arobust_otel.plugins import Board, Clock, Collector, Forwarder, Item, Node, Notifier, build, discover
from arobust_otel.screen import render_incident


@dataclass(slots=True)
class Temperature:
    """A collector of another package."""

    name: ClassVar[str] = "temperature"
    root: str = "/sys"

    def collect(self, now: Clock, node: Node) -> Iterable[Item]:
        for rank in node.ranks:
            yield Point(signals.CPU_UTILIZATION, 0.5, now.wall_ns, rank.attributes())
            yield Event(signals.RANK_BORN, now.wall_ns, "born", rank.event_attributes())


@dataclass(slots=True)
class Webhook:
    """A forwarder of another package."""

    name: ClassVar[str] = "webhook"
    url: str = "http://localhost"

    def accepts(self, signal: str) -> bool:
        return signal == "logs"

    def send(self, signal: str, body: bytes) -> None:
        if not body:
            raise RetryableDelivery("nothing to send", retry_after_seconds=1.0)


@dataclass(slots=True)
class Chat:
    """A forwarder of another package that wants changes."""

    name: ClassVar[str] = "chat"

    def notify(self, notice: Notice) -> None:
        if notice.change == OPENED:
            raise RetryableDelivery(f"{notice.id}: {notice.incident['summary']}")


@dataclass(slots=True)
class Wall:
    """A forwarder of another package that shows what stands."""

    name: ClassVar[str] = "wall"
    repeat_seconds: float = 60.0

    def show(self, incidents: Sequence[Mapping[str, Any]], now_ns: int) -> None:
        assert all(incident["status"] for incident in incidents)


def destinations() -> tuple[Notifier, Board]:
    return Chat(), Wall()


@dataclass(frozen=True, slots=True)
class AlwaysFine:
    """A rule of another package."""

    name: ClassVar[str] = "always_fine"
    hold_seconds: float = 1.0

    def judge(self, jobs: Mapping[str, Any]) -> Iterator[Finding]:
        yield Finding(cause="unknown", summary="all is well", first_evidence_ns=0, opens=False)


def parts() -> tuple[Collector, Forwarder]:
    found = discover("collectors")
    made: object = build(found["beacons"], {}) if "beacons" in found else None
    assert made is None or made
    return Temperature(), Webhook()


def settings(path: Path) -> tuple[MasterSettings, AgentSettings]:
    try:
        sections = load_file(path)
        return master_settings(sections, {"otlp_http": "127.0.0.1:0"}), agent_settings(sections)
    except ConfigurationError as error:
        key: str = error.key
        raise ArobustError(f"{key}: {error.expected}") from error


def show(incident: Incident) -> str:
    text: str = render_incident(incident.to_json())
    return text


class Reward(DataCollector):
    """A collector as users of the predecessor write it."""

    def is_enabled(self) -> bool:
        return True

    def collect_data(self) -> dict[str, float]:
        return {"reward": 0.5}


def compatible(log: Path) -> None:
    client = MasterClient("localhost:4317", spool_dir="spool")
    agent = DiagnosisAgent(training_log_file=str(log), node_rank=0)
    agent.set_client(client)
    agent.register_periodical_data_collector(LogCollector([log]), time_interval=5)
    agent.register_periodical_data_collector(Reward(), 0.5)
    agent.start()
    reason: str = agent.diagnose_training_failure("GPU is lost").reason
    agent.stop()
    client.report([Point(reason, client.stats()["dropped"], 0)])
    client.close()
