"""The board *Job*: what stands still, who is to blame, and what surrounds it in time."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

from arobust_otel.model import device_signals, signals
from arobust_otel.model.beacon import PHASES, STATES
from arobust_otel.model.prometheus_names import label_name, metric_name
from dashboards.source import panels
from dashboards.source.panels import JOB, OF_JOB, RANK, in_order, newest, of, per_rank, series, worst

UID = "arobust-job"
MANY = f" Of more than {panels.MOST_LINES} the highest."
CULPRIT, STUCK = 100, 101  # codes beside those of the states
QUIET_SECONDS = 10
HAVE_A_JOB = (signals.STEP, signals.AGENT_UP, signals.INCIDENT_OPEN)  # one that never made a step, too

_COLORS = {
    "running": panels.GREEN,
    "evaluation": "light-green",
    "checkpoint": panels.PURPLE,
    "imported": "light-blue",
    "init_group": panels.BLUE,
    "first_step": "dark-blue",
    "teardown": panels.ORANGE,
}
_PHASE_COLORS = dict(
    zip(PHASES, ("gray", "yellow", "green", "dark-green", "blue", "purple", "orange"), strict=True)
)
CAUSE, RULE, SEVERITY = (label_name(name) for name in (signals.CAUSE, signals.RULE, signals.SEVERITY))
VERDICT = {CAUSE: "cause", RANK: "rank", panels.HOST: "host", SEVERITY: "severity", RULE: "rule"}
GROUP, EVENT = label_name(signals.GROUP_NAME), label_name(signals.EVENT_NAME)
AGENT_LOGS = f'{{service_name="arobust-agent", {JOB}="$job_id"}}'
MASTER_LOGS = f'{{service_name="arobust-master", {JOB}="$job_id"}}'
# Prometheus may have an incident twice: pushed, and scraped from the master.
OPEN = f"max by ({', '.join(VERDICT)}) ({newest(signals.INCIDENT_OPEN)}) == 1"


def state_of_ranks() -> str:
    """PromQL: culprit of an open incident, else without progress, else the state that the rank reports."""
    culprits = newest(signals.INCIDENT_OPEN, f'{OF_JOB}, {RANK}!=""')
    return (
        f"max by ({RANK}) ({culprits} == 1) * {CULPRIT}"
        f" or max by ({RANK}) ({newest(signals.EVENT_AGE)} > {QUIET_SECONDS}) * 0 + {STUCK}"
        f" or max by ({RANK}) ({newest(signals.STATE)})"
    )


def names_of_states() -> dict[int, tuple[str, str]]:
    """Words and colours of `state_of_ranks`."""
    names = {code: (name, _COLORS.get(name, panels.GRAY)) for code, name in enumerate(STATES)}
    names[CULPRIT] = ("culprit of an open incident", panels.RED)
    names[STUCK] = (f"no progress for {QUIET_SECONDS} s", panels.YELLOW)
    return names


def _verdict() -> list[Any]:
    judge = newest(signals.MASTER_UP, f'{label_name(signals.MASTER_ROLE)}="judge"')
    judged = f"vector(0) and on () (max({judge}) == 1)"  # zero, where somebody judges
    return [
        panels.row("Verdict"),
        panels.number(
            "Open incidents",
            "Verdicts that hold now; empty where no judge runs. Zero is only good news where all agents "
            "report: see the board Master and agents.",
            panels.instant_query(f"count({OPEN}) or ({judged})"),
        ).thresholds(panels.steps((None, panels.GREEN), (1, panels.RED))),
        panels.number(
            "Ranks that report",
            "Ranks of which a value came within the last minute.",
            panels.instant_query(f"count(count by ({RANK}) ({newest(signals.STEP)})) or vector(0)"),
        ).thresholds(panels.steps((None, panels.BLUE))),
        panels.number(
            "Longest without progress",
            "The rank that has not changed step, phase, state or collective for the longest time.",
            panels.instant_query(f"max({newest(signals.EVENT_AGE)})"),
        )
        .unit("s")
        .decimals(0)
        .thresholds(panels.steps((None, panels.GREEN), (QUIET_SECONDS, panels.YELLOW), (60, panels.RED))),
        panels.rows(
            "What is open",
            "Cause and culprit of each open incident; the verdict in words, with what to do, is below.",
            OPEN,
            VERDICT,
        )
        .height(6)
        .span(12),
        panels.log_lines(
            "Verdicts in words",
            "Every change of an incident, newest first: summary, action, and what would refute it. "
            "A line opens to the link to its trace, where the stacks are.",
            f'{MASTER_LOGS} | {EVENT}="{signals.INCIDENT_EVENT}" | json status="status", summary="summary", '
            'action="action.kind", why="action.why", refuted_by="refuted_by" '
            '| line_format "[{{.status}}] {{.summary}} | action: {{.action}}: {{.why}} '
            '| refuted by: {{.refuted_by}}"',
        )
        .height(8)
        .span(24),
    ]


def _ranks() -> list[Any]:
    return [
        panels.row("Ranks"),
        panels.states(
            "State of each rank",
            "A row that ends is a rank that ended or that nobody sees any more.",
            in_order(state_of_ranks()),
            names_of_states(),
        ),
        panels.rank_by_time(
            "Step time by rank",
            "A row that is brighter than its neighbours is a slow rank; a column is a slow step of all.",
            per_rank(newest(signals.STEP_DURATION)),
            "s",
        ),
        panels.lines(
            "Steps behind the front",
            f"How many steps each rank is behind the one that is furthest.{MANY}",
            "none",
            panels.range_query(
                worst(f"scalar(max({newest(signals.STEP)})) - {per_rank(newest(signals.STEP))}")
            ),
        ),
        panels.lines(
            "Time without progress",
            f"Seconds since step, phase, state or a collective counter of the rank changed.{MANY}",
            "s",
            panels.range_query(worst(per_rank(newest(signals.EVENT_AGE)))),
        ),
        panels.states(
            "Phase of each rank",
            "What each rank was doing when it was looked at.",
            in_order(per_rank(newest(signals.PHASE))),
            {code: (name, _PHASE_COLORS[name]) for code, name in enumerate(PHASES)},
        ),
        panels.lines(
            "Collectives behind the front",
            f"Per process group: how many collectives a rank has not entered that another has.{MANY}",
            "none",
            panels.range_query(
                worst(
                    f"max by ({GROUP}) ({newest(signals.ENQUEUED)}) - on ({GROUP}) group_right ()"
                    f" max by ({GROUP}, {RANK}) ({newest(signals.ENQUEUED)})"
                ),
                f"rank {of(RANK)}, group {of(GROUP)}",
            ),
        ),
        panels.lines(
            "Loss",
            "The newest loss that backward started from, while it is finite; absent where it cannot be read."
            + MANY,
            "none",
            panels.range_query(worst(per_rank(newest(signals.LOSS)))),
        ),
        panels.lines(
            "Steps per second",
            f"Of each rank, over a minute; of more than {panels.MOST_LINES} the slowest.",
            "none",
            panels.range_query(
                f"bottomk({panels.MOST_LINES}, {per_rank(f'deriv({series(signals.STEP)}[1m])')})"
            ),
        ),
    ]


def _processes() -> list[Any]:
    return [
        panels.row("Processes and hosts"),
        panels.lines(
            "Processor time by rank",
            f"1 is one core.{MANY}",
            "none",
            panels.range_query(worst(per_rank(newest(signals.CPU_UTILIZATION)))),
        ),
        panels.lines(
            "Memory by rank",
            f"Resident memory.{MANY}",
            "bytes",
            panels.range_query(worst(per_rank(newest(signals.MEMORY_USAGE)))),
        ),
        panels.lines(
            "Hosts",
            f"Busy share of all processors, and used share of memory.{MANY}",
            "percentunit",
            panels.range_query(worst(newest(signals.HOST_CPU)), f"cpu {of(panels.HOST)}"),
            panels.range_query(
                worst(f"{newest(signals.HOST_MEMORY_USAGE)} / {newest(signals.HOST_MEMORY_LIMIT)}"),
                f"memory {of(panels.HOST)}",
            ),
        ),
        panels.lines(
            "File systems",
            f"Used share.{MANY}",
            "percentunit",
            panels.range_query(
                worst(newest(signals.HOST_FS_UTILIZATION)),
                f"{of(panels.HOST)} {of(label_name(signals.MOUNTPOINT))}",
            ),
        ),
    ]


def _accelerators() -> list[Any]:
    """Empty where the hosts have none."""
    device = f"{of(panels.HOST)} {of(label_name(device_signals.HW_ID))}"
    rows = (
        (
            "Accelerators: busy",
            "Share of time some kernel ran.",
            "percentunit",
            device_signals.HW_UTILIZATION,
        ),
        ("Accelerators: memory", "Memory in use.", "bytes", device_signals.HW_MEMORY_USAGE),
        ("Accelerators: temperature", "As the driver says it.", "celsius", device_signals.HW_TEMPERATURE),
        ("Accelerators: power", "Power drawn.", "watt", device_signals.HW_POWER),
    )
    made = [
        panels.lines(title, f"{about}{MANY}", unit, panels.range_query(worst(newest(signal)), device))
        for title, about, unit, signal in rows
    ]
    return [panels.row("Accelerators"), *made]


def _logs() -> list[Any]:
    return [
        panels.row("Logs and stacks"),
        panels.log_lines(
            "Training log",
            "Lines of the training log, of all ranks.",
            f'{AGENT_LOGS} | {EVENT}=""',
        ).span(24),
        panels.log_lines(
            "Facts",
            "Births, ends, exceptions, stops and stalls as the agents saw them.",
            f'{AGENT_LOGS} | {EVENT}!="" | {EVENT}!="{signals.STACK_DUMP}"',
        ),
        panels.log_lines(
            "Stacks",
            "Stacks that a verdict rests on; a line opens to the link to the incident's trace.",
            f'{MASTER_LOGS} | {EVENT}="{signals.STACK_DUMP}" '
            f'| line_format "rank {{{{.{RANK}}}}}: {{{{__line__}}}}"',
        ),
    ]


def _incident_marks() -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name("Incidents")
        .datasource(panels.METRICS)
        .enable(True)
        .icon_color(panels.RED)
        .expr(OPEN)
        .title_format(of(CAUSE))
        .text_format(f"rank {of(RANK)} on {of(panels.HOST)}, rule {of(RULE)}")
        .tag_keys(f"{RULE},{RANK}")
        .step("15s")
    )


def _job_variable() -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable("job_id")
        .label("Job")
        .datasource(panels.METRICS)
        .query(f'label_values({{__name__=~"{"|".join(map(metric_name, HAVE_A_JOB))}"}}, {JOB})')
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def board() -> models.Dashboard:
    """The whole board."""
    made = (
        dashboard.Dashboard("Training job")
        .uid(UID)
        .description("Which rank, accelerator or node is to blame, why, and what to do.")
        .tags(["arobust"])
        .refresh("10s")
        .time("now-15m", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(panels.source_variable("metrics", "Metrics", "prometheus", "arobust-prometheus"))
        .with_variable(panels.source_variable("logs", "Logs", "loki", "arobust-loki"))
        .with_variable(_job_variable())
        .annotation(_incident_marks())
        .link(
            dashboard.DashboardLink("Master and agents")
            .type(models.DashboardLinkType.LINK)
            .url("/d/arobust-health")
        )
    )
    for panel in [*_verdict(), *_ranks(), *_processes(), *_accelerators(), *_logs()]:
        made = made.with_row(panel) if isinstance(panel, dashboard.Row) else made.with_panel(panel)
    return made.build()
