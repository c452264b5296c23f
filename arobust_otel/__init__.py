"""Fault diagnosis for distributed training, as an OpenTelemetry integration.

Importing this package pulls in nothing: training processes load it. The names below are imported when they
are first asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which would be the first module to be imported
if TYPE_CHECKING:
    from arobust_otel.agent.client.settings import ClientSettings
    from arobust_otel.agent.data_collector import (
        DataCollector,
        LogCollector,
        MetricCollector,
        ResourceCollector,
        StackCollector,
    )
    from arobust_otel.agent.master_client import MasterClient
    from arobust_otel.agent.monitor import ResourceMonitor, TrainingMonitor
    from arobust_otel.controller.data_manager import DiagnosisDataManager
    from arobust_otel.controller.diagnosis import DiagnosisAgent

__version__ = "0.1.0"

__all__ = [
    "ClientSettings",
    "DataCollector",
    "DiagnosisAgent",
    "DiagnosisDataManager",
    "LogCollector",
    "MasterClient",
    "MetricCollector",
    "ResourceCollector",
    "ResourceMonitor",
    "StackCollector",
    "TrainingMonitor",
    "__version__",
]

_HOMES = {
    "ClientSettings": "agent.client.settings",
    "DataCollector": "agent.data_collector",
    "DiagnosisAgent": "controller.diagnosis",
    "DiagnosisDataManager": "controller.data_manager",
    "LogCollector": "agent.data_collector",
    "MasterClient": "agent.master_client",
    "MetricCollector": "agent.data_collector",
    "ResourceCollector": "agent.data_collector",
    "ResourceMonitor": "agent.monitor",
    "StackCollector": "agent.data_collector",
    "TrainingMonitor": "agent.monitor",
}


def __getattr__(name: str) -> object:
    """Import one of the names of this package."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What the package has, loaded or not."""
    return sorted({*globals(), *_HOMES})
