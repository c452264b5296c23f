"""Every query of every panel, sent to the real stores as Grafana sends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOARDS = Path(__file__).parents[2] / "dashboards"
# Rows whose panels have nothing to show where a test runs, and why.
EMPTY_ROWS = {"Accelerators": "this machine has none"}


@dataclass(frozen=True)
class PanelQuery:
    """One query: `store` is prometheus or loki."""

    panel: str
    store: str
    expression: str


def panel_queries(job_id: str) -> Iterator[PanelQuery]:
    """All of them but those of `EMPTY_ROWS`, with the variables filled in."""
    for path in sorted(BOARDS.glob("*.json")):
        row = ""
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            row = panel["title"] if panel["type"] == "row" else row
            for target in () if row in EMPTY_ROWS else panel.get("targets", ()):
                text = target["expr"].replace("$__rate_interval", "1m").replace("$host", ".*")
                name = f"{path.stem}: {panel['title']} {target['refId']}"
                yield PanelQuery(name, target["datasource"]["type"], text.replace("$job_id", job_id))


def unanswered(
    job_id: str, promql: Callable[[str], list[Any]], logql: Callable[[str], list[Any]]
) -> list[PanelQuery]:
    """The queries that find nothing."""
    ask = {"prometheus": promql, "loki": logql}
    return [query for query in panel_queries(job_id) if not ask[query.store](query.expression)]
