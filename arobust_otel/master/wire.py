"""What a supervisor tells a role, as one line of JSON: settings, inherited handles, the engine."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from arobust_otel.checked import Address
from arobust_otel.config import ForwarderSettings, MasterSettings

DEFAULT_ENGINE = "arobust_otel.master.engine:build_engine"


@dataclass(frozen=True, slots=True)
class Orders:
    """Everything a role needs to begin. `handles` are numbers of inherited descriptors by name.

    `engine` names the function that builds an engine of a configuration and, where there is one, a snapshot
    (``module:function``): another one can be named where the engine is embedded or tested.
    """

    settings: MasterSettings
    handles: dict[str, int]
    engine: str = DEFAULT_ENGINE

    def to_line(self) -> bytes:
        """One line of JSON."""
        values = asdict(self)
        values["settings"]["data_dir"] = str(self.settings.data_dir)
        return json.dumps(values).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Orders:
        """What `to_line` made."""
        values = json.loads(line)
        return cls(_settings(values["settings"]), values["handles"], values["engine"])


def _settings(values: dict[str, Any]) -> MasterSettings:
    known = {item.name for item in fields(MasterSettings)}
    values = {name: value for name, value in values.items() if name in known}
    values["data_dir"] = Path(values["data_dir"])
    for name in ("otlp_http", "otlp_grpc", "api"):
        values[name] = Address(*values[name])
    values["forwarders"] = tuple(ForwarderSettings(**item) for item in values["forwarders"])
    return MasterSettings(**values)
