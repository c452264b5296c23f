"""The predecessor's collectors, built on those of the node agent: each hands what it finds to a client.

A client is anything with ``report_diagnosis_agent_metrics(metric)``. Nothing here raises into training.
"""

from __future__ import annotations

from arobust_otel.agent.data_collector.base import DataCollector
from arobust_otel.agent.data_collector.log import LogCollector
from arobust_otel.agent.data_collector.metric import MetricCollector
from arobust_otel.agent.data_collector.resource import ResourceCollector
from arobust_otel.agent.data_collector.stack import StackCollector

__all__ = ["DataCollector", "LogCollector", "MetricCollector", "StackCollector", "ResourceCollector"]
