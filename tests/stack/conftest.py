"""Tests against programs of other projects: collected where these are built, else named at the end.

A file that is named on the command line is always collected; its tests skip what is missing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.stack.programs import find

# Which programs a file of tests runs.
NEEDS = {
    "test_alertmanager.py": ("amtool", "alertmanager"),
    "test_collector.py": ("otelcol",),
    "test_forwarders_collector.py": ("otelcol",),
    "test_forwarders_alertmanager.py": ("alertmanager",),
    "test_forwarders_jaeger.py": ("jaeger",),
    "test_forwarders_loki.py": ("loki",),
    "test_forwarders_prometheus.py": ("prometheus",),
    "test_guides.py": ("prometheus", "prometheus2", "alertmanager"),
    "test_jaeger.py": ("jaeger",),
    "test_loki.py": ("loki",),
    "test_many_ranks.py": ("prometheus",),
    "test_panels.py": ("promtool",),
    "test_prometheus.py": ("promtool", "prometheus"),
    "test_prometheus_2.py": ("prometheus2", "otelcol"),
    "test_scrape.py": ("promtool",),
    "test_series.py": ("prometheus",),
}
LEFT_OUT = {
    file: [name for name in names if find(name) is None]
    for file, names in NEEDS.items()
    if any(find(name) is None for name in names)
}
collect_ignore = list(LEFT_OUT)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for file, names in LEFT_OUT.items():
        terminalreporter.write_line(
            f"tests/stack/{file} was left out: {', '.join(names)} not built (`make stack-programs`)"
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in NEEDS and item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.stack)
