"""Names of our metrics in Prometheus; the tests of the stack compare them with those of a real one."""

from __future__ import annotations

import re

import pytest

from arobust_otel.model import signals
from arobust_otel.model.prometheus_names import label_name, metric_name

METRICS = [
    row.name
    for row in signals.DICTIONARY.values()
    if row.kind in (signals.GAUGE, signals.COUNTER, signals.UPDOWN)
]


@pytest.mark.parametrize(
    ("signal", "name"),
    [
        (signals.STEP, "arobust_training_step"),
        (signals.STEP_DURATION, "arobust_training_step_duration_seconds"),
        (signals.DISK_IO, "process_disk_io_bytes_total"),
        (signals.HOST_CPU, "system_cpu_utilization_ratio"),
        (signals.MEMORY_USAGE, "process_memory_usage_bytes"),
        (signals.INCIDENT_OPEN, "arobust_incident_open"),
        (signals.CLIENT_REPORTS, "arobust_client_reports_total"),
    ],
)
def test_names(signal: str, name: str) -> None:
    assert metric_name(signal) == name


@pytest.mark.parametrize("signal", METRICS)
def test_every_metric_has_a_valid_name_of_its_own(signal: str) -> None:
    assert re.fullmatch(r"[a-z_:][a-z0-9_:]*", metric_name(signal))
    assert [other for other in METRICS if metric_name(other) == metric_name(signal)] == [signal]


def test_labels() -> None:
    assert label_name(signals.GROUP_NAME) == "arobust_process_group_name"
