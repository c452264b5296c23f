"""Records in, outputs out: builds the engine that the journal asks for and feeds it. No socket, no clock.

Judge and replay share this, so that both do the same with every record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from arobust_otel import guard
from arobust_otel.journal import Kind, Record
from arobust_otel.model.incident import Incident

SNAPSHOT_VERSION = 1
Key = tuple[int, int]
NOTHING: Key = (-1, -1)


class OutputLike(Protocol):
    """What an engine wants done."""

    @property
    def kind(self) -> str:
        """``incident`` or ``command``."""
        ...

    @property
    def body(self) -> dict[str, Any]:
        """Ready for JSON."""
        ...


class EngineLike(Protocol):
    """What judge and replay ask of an engine (master/engine.py)."""

    def process(self, record: Record) -> Sequence[OutputLike]:
        """Take one record."""
        ...

    def snapshot(self) -> bytes:
        """Everything it remembers."""
        ...

    def incidents(self) -> list[Incident]:
        """Those it shows."""
        ...

    def jobs(self) -> list[dict[str, Any]]:
        """One row per incarnation."""
        ...

    def ranks(self, job_id: str | None = None) -> list[dict[str, Any]]:
        """One row per rank."""
        ...

    def agents(self) -> list[dict[str, Any]]:
        """One row per agent."""
        ...

    def status(self) -> dict[str, Any]:
        """Counters about itself."""
        ...


BuildEngine = Callable[..., EngineLike]  # (configuration) or (configuration, snapshot)


class Judgement:
    """An engine and the configuration it was built of. `engine` is None before the first configuration."""

    def __init__(self, build: BuildEngine) -> None:
        """`build` makes an engine of a configuration, and of a snapshot where there is one."""
        self.engine: EngineLike | None = None
        self.configuration: dict[str, Any] = {}
        self.versions: list[dict[str, str]] = []
        self.skipped: list[int] = []
        self.received_ns = 0
        self.highest = NOTHING
        self._build = build

    def feed(self, record: Record) -> Sequence[OutputLike]:
        """Take one record. Stored outputs are never looked at: a replay does without them.

        A record that makes the engine raise is skipped: its offset is in `skipped`.
        """
        self.received_ns = record.received_ns
        if record.kind == Kind.OUTPUT:
            return ()
        if record.kind == Kind.CONFIGURATION:
            self._configure(json.loads(record.payload))
        engine = self.engine
        if engine is None:
            return ()
        outputs, error = guard.attempt("engine", lambda: engine.process(record))
        if error is not None:
            self.skipped.append(record.offset)
        return outputs or ()

    def snapshot(self) -> bytes:
        """Engine, configuration and the highest output, to go on from later."""
        head = {
            "configuration": self.configuration,
            "versions": self.versions,
            "highest": self.highest,
            "skipped": self.skipped,
            "received_ns": self.received_ns,
        }
        body = self.engine.snapshot() if self.engine is not None else b""
        return json.dumps(head).encode() + b"\n" + body

    def restore(self, data: bytes) -> None:
        """Go on where `snapshot` was taken."""
        head, _, body = data.partition(b"\n")
        values = json.loads(head)
        self.configuration = values["configuration"]
        self.versions = values["versions"]
        self.highest = (values["highest"][0], values["highest"][1])
        self.skipped = values["skipped"]
        self.received_ns = values["received_ns"]
        self.engine = self._build(self.configuration, body) if body else None

    def _configure(self, configuration: dict[str, Any]) -> None:
        """Build the engine; another configuration later goes on with the same memory."""
        before, self.configuration = self.configuration, configuration
        if configuration.get("versions") not in self.versions:
            self.versions.append(configuration.get("versions", {}))
        if self.engine is None:
            self.engine = self._build(configuration)
        elif _judging(before) != _judging(configuration):
            self.engine = self._build(configuration, self.engine.snapshot())


def _judging(configuration: dict[str, Any]) -> tuple[Any, Any]:
    return configuration.get("engine"), configuration.get("rules")


def incident_lines(incidents: Sequence[Incident]) -> str:
    """Canonical form: one JSON object a line, in the order of first evidence."""
    ordered = sorted(incidents, key=lambda item: (item.first_evidence_ns, item.id))
    return "".join(
        json.dumps(item.to_json(), separators=(",", ":"), ensure_ascii=False) + "\n" for item in ordered
    )
