"""Processors, memory and accelerators of the node, as `ResourceMonitor` reads them."""

from __future__ import annotations

from arobust_otel.agent.data_collector.base import DataCollector
from arobust_otel.agent.monitor.resource import ResourceMonitor, content_of
from arobust_otel.common.constants import DiagnosisDataType
from arobust_otel.common.diagnosis_data import ResourceStats


class ResourceCollector(DataCollector):
    """What `ResourceMonitor` sees, through this collector's own client."""

    data_type = DiagnosisDataType.RESOURCE_STATS

    def __init__(self) -> None:
        self._monitor = ResourceMonitor.singleton_instance()

    def is_enabled(self) -> bool:
        """Always."""
        return True

    def collect_data(self) -> ResourceStats:
        """One reading; nothing is sent by it."""
        return self._monitor.read()

    def store_data(self, data: object) -> None:
        """Report a reading."""
        if data is None or self._refuses(data, ResourceStats) or not isinstance(data, ResourceStats):
            return
        self._hand(self._metric(DiagnosisDataType.RESOURCE_STATS, *content_of(data)))
