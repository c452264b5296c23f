"""Building blocks of the boards: queries with names from the dictionary, and panels in one style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    logs,
    loki,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from arobust_otel.model import signals
from arobust_otel.model.prometheus_names import label_name, metric_name

METRICS = common_models.DataSourceRef(type_val="prometheus", uid="${metrics}")
LOGS = common_models.DataSourceRef(type_val="loki", uid="${logs}")
RANK = label_name(signals.RANK)
JOB = label_name(signals.JOB_ID)
HOST = label_name(signals.HOST_NAME)
OF_JOB = f'{JOB}="$job_id"'
MOST_LINES = 32
DIGITS = 5  # of the highest rank that is put in order
SHORT_WINDOW = 10_000  # points of a panel that shows "now": its window does not grow with the board's time
GREEN, YELLOW, RED, BLUE, GRAY, PURPLE, ORANGE = "green", "yellow", "red", "blue", "gray", "purple", "orange"


def series(signal: str, matchers: str = OF_JOB) -> str:
    """PromQL of a signal of the dictionary with matchers."""
    return f"{metric_name(signal)}{{{matchers}}}"


def newest(signal: str, matchers: str = OF_JOB) -> str:
    """PromQL of values that are about as fresh as the board shows: who sends nothing any more is gone.

    Without it Prometheus repeats the last value for five minutes, and a dead rank would look alive.
    """
    return f"last_over_time({series(signal, matchers)}[$__rate_interval])"


def per_rank(expression: str) -> str:
    """PromQL with one series per rank, also while a rank that moved is remembered on two hosts."""
    return f"max by ({RANK}) ({expression})"


def in_order(expression: str) -> str:
    """PromQL whose series come as ranks are counted: sorted as text, 10 would stand between 1 and 2.

    A timeline shows rows as they come, and Prometheus sorts series by their labels: `a_row` is the first.
    """
    for digits in range(1, DIGITS + 1):
        number = "0" * (DIGITS - digits) + "$1"
        expression = f'label_replace({expression}, "a_row", "{number}", "{RANK}", "({"." * digits})")'
    return expression


def worst(expression: str) -> str:
    """PromQL of the highest: a thousand lines in one panel tell nobody anything."""
    return f"topk({MOST_LINES}, {expression})"


def of(label: str) -> str:
    """A label's value in a legend."""
    return "{{" + label + "}}"


def range_query(expression: str, legend: str = of(RANK)) -> prometheus.Dataquery:
    """A query over the time that the board shows."""
    return prometheus.Dataquery().expr(expression).legend_format(legend).range().datasource(METRICS)


def instant_query(expression: str) -> prometheus.Dataquery:
    """A query at the end of the time that the board shows, as a table."""
    query = prometheus.Dataquery().expr(expression).instant().datasource(METRICS)
    return query.format(PromQueryFormat.TABLE)


def coded(names: Mapping[int, tuple[str, str]]) -> list[Any]:
    """Mapping of codes to words and colours."""
    results = {
        str(code): models.ValueMappingResult(text=text, color=color, index=code)
        for code, (text, color) in names.items()
    }
    return [models.ValueMap(options=results)]


def steps(*limits: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    """Colours from a value on; the first has no limit."""
    rows = [models.Threshold(value=value, color=color) for value, color in limits]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(rows)


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .display_mode(common_models.LegendDisplayMode.LIST)
        .placement(common_models.LegendPlacement.BOTTOM)
        .show_legend(True)
    )


def lines(title: str, about: str, unit: str, *queries: prometheus.Dataquery) -> timeseries.Panel:
    """Lines over time; a gap in the data is a gap in the line."""
    return (
        timeseries.Panel()
        .title(title)
        .description(about)
        .datasource(METRICS)
        .unit(unit)
        .targets(list(queries))
        .fill_opacity(0)
        .span_nulls(False)
        .legend(_legend())
        .height(8)
        .span(12)
    )


def number(title: str, about: str, query: prometheus.Dataquery) -> stat.Panel:
    """One number in large letters."""
    return (
        stat.Panel()
        .title(title)
        .description(about)
        .datasource(METRICS)
        .targets([query])
        .color_mode(common_models.BigValueColorMode.BACKGROUND)
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .max_data_points(SHORT_WINDOW)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .height(4)
        .span(4)
    )


def states(
    title: str, about: str, expression: str, names: Mapping[int, tuple[str, str]]
) -> statetimeline.Panel:
    """A row per rank: words and colours over time."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(about)
        .datasource(METRICS)
        .targets([range_query(expression)])
        .mappings(coded(names))
        .merge_values(True)
        .show_value(common_models.VisibilityMode.NEVER)
        .row_height(0.9)
        .per_page(64)
        .legend(_legend())
        .height(10)
        .span(12)
    )


def rank_by_time(title: str, about: str, expression: str, unit: str) -> heatmap.Panel:
    """A row per rank, a column per time, the colour is the value; rows stand in numerical order."""
    return (
        heatmap.Panel()
        .title(title)
        .description(about)
        .datasource(METRICS)
        .targets([range_query(expression)])
        .calculate(False)
        .cell_values(heatmap.CellValues().unit(unit))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_models.HeatmapColorMode.SCHEME)
            .scheme("Turbo")
            .scale(heatmap_models.HeatmapColorScale.LINEAR)
            .exponent(0.5)
            .steps(64)
            .reverse(False)
        )
        .height(10)
        .span(12)
    )


def rows(title: str, about: str, expression: str, columns: Mapping[str, str]) -> table.Panel:
    """A table of what a query answers now: label and heading of its columns, in this order."""
    organize = {
        "excludeByName": {"Time": True, "Value": True},
        "indexByName": {label: place for place, label in enumerate(columns)},
        "renameByName": dict(columns),
    }
    return (
        table.Panel()
        .title(title)
        .description(about)
        .datasource(METRICS)
        .targets([instant_query(expression)])
        .with_transformation(models.DataTransformerConfig(id_val="organize", options=organize))
        .max_data_points(SHORT_WINDOW)
        .height(8)
        .span(12)
    )


def log_lines(title: str, about: str, expression: str) -> logs.Panel:
    """Log lines, newest first."""
    return (
        logs.Panel()
        .title(title)
        .description(about)
        .datasource(LOGS)
        .targets([loki.Dataquery().expr(expression).query_type("range").max_lines(500).datasource(LOGS)])
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .height(10)
        .span(12)
    )


def row(title: str, collapsed: bool = False, panels: Sequence[Any] = ()) -> dashboard.Row:
    """A heading; collapsed it holds its panels."""
    made = dashboard.Row(title).collapsed(collapsed)
    for panel in panels:
        made = made.with_panel(panel)
    return made


def source_variable(name: str, label: str, kind: str, uid: str) -> dashboard.DatasourceVariable:
    """Which data source a board reads; the provisioned one unless somebody chooses another."""
    current = models.VariableOption(text=uid, value=uid, selected=True)
    return dashboard.DatasourceVariable(name).label(label).type(kind).current(current)
