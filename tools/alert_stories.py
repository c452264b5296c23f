"""Stories for `promtool test rules`: each alert on a cause fires once for all ways in, and clears."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from arobust_otel.model import signals
from arobust_otel.model.prometheus_names import label_name, metric_name

WAYS = ("arobust-master/gpt", "127.0.0.1:9464")  # instances of the pushed and of the scraped gauge
OPENS, RESOLVED = 4, 16  # in evaluations of 15 s; 0 from the second on
BEFORE, AT_ONCE, HELD, STILL, CLEARED = "45s", "1m", "2m", "3m45s", "5m"


@dataclass(frozen=True, slots=True)
class Told:
    """An alert on a cause; `held` where it waits a minute before it fires."""

    alert: str
    cause: str
    rule: str
    severity: str
    tier: str
    held: bool


def stories(alerts: Iterable[Told]) -> str:
    """The text of a file of stories. No other alert on a cause may fire in an alert's story."""
    lines = ["rule_files:", "  - ../alerts.yml", "evaluation_interval: 15s", "", "tests:"]
    for alert in alerts:
        lines += _story(alert)
    return "\n".join(lines) + "\n"


def _story(told: Told) -> list[str]:
    labels = {
        label_name(signals.JOB_ID): "gpt",
        label_name(signals.RULE): told.rule,
        label_name(signals.CAUSE): told.cause,
        label_name(signals.SEVERITY): told.severity,
        label_name(signals.RANK): "2",
        label_name(signals.HOST_NAME): "gpu-a-12",
    }
    gauge = metric_name(signals.INCIDENT_OPEN)
    lines = [f"  - name: {told.alert} fires once and clears", "    interval: 15s", "    input_series:"]
    for instance in WAYS:
        series = _series(gauge, {**labels, "job": "arobust-master", "instance": instance})
        lines += [
            f"      - series: {json.dumps(series)}",
            f"        values: _x{OPENS} 1x{RESOLVED - OPENS - 1} 0x9",
        ]
    firing = {
        "alertname": told.alert, "alertstate": "firing", "severity": told.severity,
        "arobust_tier": told.tier, **labels,
    }  # fmt: skip
    lines.append("    promql_expr_test:")
    for moment, fires in (
        (BEFORE, False),
        (AT_ONCE, not told.held),
        (HELD, True),
        (STILL, True),
        (CLEARED, False),
    ):
        asked = f'ALERTS{{alertname=~"Arobust.+", alertstate="firing", {label_name(signals.CAUSE)}!=""}}'
        lines += [f"      - expr: {json.dumps(asked)}", f"        eval_time: {moment}"]
        if fires:
            lines += [
                "        exp_samples:",
                f"          - labels: {json.dumps(_series('ALERTS', firing))}",
                "            value: 1",
            ]
        else:
            lines.append("        exp_samples: []")
    return lines


def _series(metric: str, labels: dict[str, str]) -> str:
    inside = ", ".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{metric}{{{inside}}}"
