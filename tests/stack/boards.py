"""Queries of the Grafana boards, with a job and a window in the place of their variables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")
BOARDS = Path(__file__).parents[2] / "dashboards"
# Panels that have nothing to show where tests run, and why: no accelerator is there.
UNASKED = "Accelerators: "


@dataclass(frozen=True, slots=True)
class Question:
    """One query of one panel; `store` is prometheus or loki, `kind` the panel's type."""

    board: str
    panel: str
    kind: str
    store: str
    query: str
    legend: str

    def about(self, job_id: str) -> str:
        """The query for one job."""
        values = {"$job_id": job_id, "$host": ".+", "$__rate_interval": "1m", "$__interval": "15s"}
        query = self.query
        for name, value in values.items():
            query = query.replace(name, value)
        return query


def questions() -> list[Question]:
    """Every query of every board, but those of panels that start with `UNASKED`."""
    found = []
    for path in sorted(BOARDS.glob("*.json")):
        board = json.loads(path.read_text(encoding="utf-8"))
        for panel in _panels(board["panels"]):
            for target in [] if panel["title"].startswith(UNASKED) else panel.get("targets", []):
                store = target.get("datasource", panel.get("datasource", {}))["type"]
                legend = target.get("legendFormat", "")
                found.append(
                    Question(path.stem, panel["title"], panel["type"], store, target["expr"], legend)
                )
    return found


def variables() -> list[tuple[str, str, str]]:
    """(board, selector, label) of every variable that is asked for with `label_values`."""
    found = []
    for path in sorted(BOARDS.glob("*.json")):
        for variable in json.loads(path.read_text(encoding="utf-8"))["templating"]["list"]:
            if variable["type"] == "query":
                selector, label = _LABEL_VALUES.fullmatch(variable["query"]).groups()  # type: ignore[union-attr]
                found.append((path.stem, selector, label))
    return found


def _panels(panels: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Panels, also those inside rows."""
    for panel in panels:
        yield panel
        yield from _panels(panel.get("panels", []))
