"""The board *Master and agents*: whether those who watch can see."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

from arobust_otel.model import signals
from arobust_otel.model.prometheus_names import label_name, metric_name
from dashboards.source import panels
from dashboards.source.panels import HOST, JOB, newest, of, series, worst

UID = "arobust-health"
ALL = f'{HOST}=~"$host"'
PER_AGENT = f"{of(HOST)} {of(JOB)}"
COLLECTOR = label_name(signals.COLLECTOR)
ROLES = newest(signals.MASTER_UP, "")
MANY = f" Of more than {panels.MOST_LINES} the highest."
REASON, RESULT = label_name(signals.REASON), label_name(signals.RESULT)


def _summary() -> list[Any]:
    collectors = newest(signals.COLLECTOR_UP, ALL)
    return [
        panels.row("Can they see"),
        panels.number(
            "Agents that report",
            "Agents of which something came within the last minute.",
            panels.instant_query(f"count({newest(signals.AGENT_UP, ALL)}) or vector(0)"),
        ).thresholds(panels.steps((None, panels.RED), (1, panels.GREEN))),
        panels.number(
            "Collectors that fail",
            "Sources on nodes that are not to be had or broken; their reasons are in `arobust status`. "
            "Empty where no agent reports.",
            panels.instant_query(f"count({collectors} == 0) or 0 * count({collectors})"),
        ).thresholds(panels.steps((None, panels.GREEN), (1, panels.YELLOW))),
        panels.number(
            "Oldest undelivered",
            "Age of the oldest item that has not reached the master.",
            panels.instant_query(f"max({newest(signals.CLIENT_OLDEST_AGE, ALL)})"),
        )
        .unit("s")
        .thresholds(panels.steps((None, panels.GREEN), (15, panels.YELLOW), (60, panels.RED))),
        panels.number(
            "Roles that are down",
            "Of receive, judge and deliver. Empty where Prometheus sees no master: nobody judges, then.",
            panels.instant_query(f"count({ROLES} == 0) or 0 * count({ROLES})"),
        ).thresholds(panels.steps((None, panels.GREEN), (1, panels.RED))),
        panels.number(
            "Judge behind",
            "How old what it judged last is. Empty where the judge says nothing.",
            panels.instant_query(f"max({newest(signals.JUDGE_LAG, '')})"),
        )
        .unit("s")
        .thresholds(panels.steps((None, panels.GREEN), (15, panels.YELLOW), (60, panels.RED))),
        panels.number(
            "Destinations behind",
            "Age of the oldest record that some destination has not taken.",
            panels.instant_query(f"max({newest(signals.FORWARDER_LAG, '')})"),
        )
        .unit("s")
        .thresholds(panels.steps((None, panels.GREEN), (60, panels.YELLOW), (300, panels.RED))),
    ]


def _agents() -> list[Any]:
    return [
        panels.row("Agents"),
        panels.states(
            "Collectors",
            "1 where the last run worked.",
            f"min by ({HOST}, {COLLECTOR}) ({newest(signals.COLLECTOR_UP, ALL)})",
            {0: ("fails", panels.RED), 1: ("works", panels.GREEN)},
        ).targets(
            [
                panels.range_query(
                    f"min by ({HOST}, {COLLECTOR}) ({newest(signals.COLLECTOR_UP, ALL)})",
                    f"{of(HOST)} {of(COLLECTOR)}",
                )
            ]
        ),
        panels.lines(
            "Duration of collectors",
            f"One run; a source that hangs shows as a line that stops.{MANY}",
            "s",
            panels.range_query(
                worst(f"max by ({HOST}, {COLLECTOR}) ({newest(signals.COLLECTOR_DURATION, ALL)})"),
                f"{of(HOST)} {of(COLLECTOR)}",
            ),
        ),
        panels.lines(
            "Reports",
            f"Items handed to the client per second, by what became of them.{MANY}",
            "none",
            panels.range_query(
                worst(f"sum by ({HOST}, {RESULT}) (rate({series(signals.CLIENT_REPORTS, ALL)}[1m]))"),
                f"{of(HOST)} {of(RESULT)}",
            ),
        ),
        panels.lines(
            "Given up",
            f"Items dropped since the agent started, by reason. Nothing is dropped without a count.{MANY}",
            "none",
            panels.range_query(
                worst(
                    f"sum by ({HOST}, {REASON}) ({series(signals.CLIENT_DROPPED, ALL)})"
                    f" or on ({HOST}) 0 * sum by ({HOST}) ({series(signals.CLIENT_REPORTS, ALL)})"
                ),
                f"{of(HOST)} {of(REASON)}",
            ),
        ),
        panels.lines(
            "Waiting",
            f"Items in memory, and the age of the oldest that is not delivered.{MANY}",
            "none",
            panels.range_query(worst(newest(signals.CLIENT_QUEUE_ITEMS, ALL)), f"items {PER_AGENT}"),
            panels.range_query(worst(newest(signals.CLIENT_OLDEST_AGE, ALL)), f"seconds {PER_AGENT}"),
        ),
        panels.lines(
            "Waiting bytes",
            "What that takes of memory and, where the master does not take it, of the disk.",
            "bytes",
            panels.range_query(series(signals.CLIENT_QUEUE_BYTES, ALL), f"memory {PER_AGENT}"),
            panels.range_query(series(signals.CLIENT_SPOOL_BYTES, ALL), f"disk {PER_AGENT}"),
        ),
        panels.lines(
            "Duration of a delivery",
            f"From the request to the master's acknowledgement.{MANY}",
            "s",
            panels.range_query(worst(newest(signals.CLIENT_LATENCY, ALL)), PER_AGENT),
        ),
        panels.lines(
            "Bytes of requests",
            f"Per second, before compression and as they went out (gRPC cannot tell the latter).{MANY}",
            "Bps",
            *(
                panels.range_query(
                    worst(f"sum by ({HOST}) (rate({series(signal, ALL)}[1m]))"), f"{word} {of(HOST)}"
                )
                for word, signal in (
                    ("before", signals.CLIENT_BYTES_RAW),
                    ("sent", signals.CLIENT_BYTES_SENT),
                )
            ),
        ),
        panels.lines(
            "On the disk",
            f"Items that wait in the agents' spools because the master did not take them.{MANY}",
            "none",
            panels.range_query(worst(newest(signals.CLIENT_SPOOL_ITEMS, ALL)), PER_AGENT),
        ),
    ]


def _master() -> list[Any]:
    role, forwarder = label_name(signals.MASTER_ROLE), label_name(signals.FORWARDER)
    protocol, result = label_name(signals.PROTOCOL), label_name(signals.RESULT)
    return [
        panels.row("Master"),
        panels.states(
            "Roles of the master",
            "Receive, judge and deliver are processes of their own; one that is down is started again.",
            ROLES,
            {0: ("down", panels.RED), 1: ("runs", panels.GREEN)},
        ).targets([panels.range_query(f"min by ({role}) ({ROLES})", of(role))]),
        panels.lines(
            "Requests",
            "Per second: taken, repeated (the journal had the batch already), refused.",
            "none",
            panels.range_query(
                f"sum by ({protocol}, {result}) (rate({series(signals.RECEIVER_REQUESTS, '')}[1m]))",
                f"{of(protocol)} {of(result)}",
            ),
        ),
        panels.lines(
            "Judge behind",
            "How long ago the newest judged record was received; a judge that falls behind judges late.",
            "s",
            panels.range_query(series(signals.JUDGE_LAG, ""), "judge"),
        ),
        panels.lines(
            "Journal",
            "Size of the journal's segments.",
            "bytes",
            panels.range_query(series(signals.JOURNAL_SIZE, ""), "journal"),
        ),
        panels.lines(
            "Destinations behind",
            "Age of the oldest record that a destination has not taken.",
            "s",
            panels.range_query(f"max by ({forwarder}) ({series(signals.FORWARDER_LAG, '')})", of(forwarder)),
        ),
        panels.lines(
            "Never delivered",
            "Points, log records, spans and notices that a destination will never get, by reason.",
            "none",
            panels.range_query(
                f"sum by ({forwarder}, {REASON}) ({series(signals.FORWARDER_DROPPED, '')})"
                f" or on ({forwarder}) 0 * max by ({forwarder}) ({series(signals.FORWARDER_LAG, '')})",
                f"{of(forwarder)} {of(REASON)}",
            ),
        ),
    ]


def _host_variable() -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable("host")
        .label("Host")
        .datasource(panels.METRICS)
        .query(f"label_values({metric_name(signals.AGENT_UP)}, {HOST})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .include_all(True)
        .all_value(".*")
        .multi(True)
    )


def board() -> models.Dashboard:
    """The whole board."""
    made = (
        dashboard.Dashboard("Master and agents")
        .uid(UID)
        .description("Whether those who watch the jobs can see: a blind part never looks healthy.")
        .tags(["arobust"])
        .refresh("10s")
        .time("now-30m", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(panels.source_variable("metrics", "Metrics", "prometheus", "arobust-prometheus"))
        .with_variable(_host_variable())
        .link(dashboard.DashboardLink("Job").type(models.DashboardLinkType.LINK).url("/d/arobust-job"))
    )
    for panel in [*_summary(), *_agents(), *_master()]:
        made = made.with_row(panel) if isinstance(panel, dashboard.Row) else made.with_panel(panel)
    return made.build()
