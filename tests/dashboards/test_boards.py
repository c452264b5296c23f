"""The boards as files: fresh, valid, of names that exist. Real stores answer their queries in other tests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arobust_otel.model import signals
from arobust_otel.model.prometheus_names import label_name, metric_name

ROOT = Path(__file__).parents[2]
BOARDS = sorted((ROOT / "dashboards").glob("*.json"))
METRICS = {
    metric_name(row.name)
    for row in signals.DICTIONARY.values()
    if row.kind in (signals.GAUGE, signals.COUNTER, signals.UPDOWN)
}
LABELS = {label_name(row.name) for row in signals.DICTIONARY.values() if row.kind == signals.ATTRIBUTE}
SOURCES = {"prometheus": "${metrics}", "loki": "${logs}"}


def load(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def targets(path: Path, kind: str) -> Iterator[tuple[str, str]]:
    for panel in load(path)["panels"]:
        for target in panel.get("targets", ()):
            if target["datasource"]["type"] == kind:
                yield f"{path.stem}: {panel['title']}", target["expr"]


def queries(kind: str) -> list[Any]:
    return [pytest.param(expression, id=name) for path in BOARDS for name, expression in targets(path, kind)]


def filled(expression: str) -> str:
    """As Grafana sends it."""
    return expression.replace("$__rate_interval", "1m").replace("$job_id", "job").replace("$host", ".*")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the builder of the boards needs Python 3.11")
def test_boards_are_what_their_source_makes() -> None:
    command = [sys.executable, "-m", "dashboards.source", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the builder of the boards needs Python 3.11")
@pytest.mark.filterwarnings("ignore:Prefer using dashboardv2")  # which cannot be loaded from a file
@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_grafanas_schema_has_a_place_for_everything(path: Path) -> None:
    """Read into the SDK's types, which are made from Grafana's schema, nothing is lost or of another type."""
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()
    read = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(load(path))))
    for shown in (*read["links"], *read["annotations"].get("list", ())):
        del shown["placement"]
    assert read == load(path)


def test_boards_have_fixed_ids_of_their_own() -> None:
    assert [load(path)["uid"] for path in BOARDS] == ["arobust-job", "arobust-health"]


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_panels_are_whole(path: Path) -> None:
    panels = load(path)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [tuple(panel["gridPos"][key] for key in "xywh") for panel in panels]
    for index, (x, y, width, height) in enumerate(places):
        assert x + width <= 24
        for other_x, other_y, other_width, other_height in places[:index]:
            beside = x >= other_x + other_width or other_x >= x + width
            above = y >= other_y + other_height or other_y >= y + height
            assert beside or above, panels[index]["title"]
    for panel in panels:
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["datasource"]["uid"] == SOURCES[panel["datasource"]["type"]]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize("expression", queries("prometheus"))
def test_promql_parses_and_names_only_what_the_dictionary_has(expression: str) -> None:
    parser = pytest.importorskip("promql_parser")
    text = filled(expression)
    parser.parse(text)
    selectors = re.findall(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}", text)
    assert {name for name, _ in selectors} <= METRICS
    named = {label for _, inside in selectors for label in re.findall(r'(\w+)(?==~?"|!=)', inside)}
    grouped = {
        label.strip()
        for inside in re.findall(r"\b(?:by|on) \(([^)]*)\)", text)
        for label in inside.split(",")
        if label
    }
    assert named | grouped <= LABELS


def test_every_query_has_a_selector_or_is_a_constant() -> None:
    """So that the test above looked at something."""
    found = [parameter.values[0] for parameter in queries("prometheus")]
    assert len(found) > 20
    assert all("{" in expression for expression in found)


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_queries_over_time_and_logs_choose_one_job_or_the_chosen_hosts(path: Path) -> None:
    for kind in SOURCES:
        for name, expression in targets(path, kind):
            own = name.startswith("master-and-agents") and "arobust_client" not in expression
            assert "$job_id" in expression or "$host" in expression or own, name


def test_the_first_screen_says_who_why_and_what_to_do() -> None:
    panels = [
        panel for panel in load(ROOT / "dashboards" / "job.json")["panels"] if panel["gridPos"]["y"] < 15
    ]
    (table,) = [panel for panel in panels if panel["type"] == "table"]
    options = table["transformations"][0]["options"]
    shown = [
        options["renameByName"][label]
        for label in sorted(options["indexByName"], key=options["indexByName"].get)
    ]
    assert shown[:3] == ["cause", "rank", "host"]
    (words,) = [panel["targets"][0]["expr"] for panel in panels if panel["type"] == "logs"]
    assert all(field in words for field in ("{{.summary}}", "{{.action}}", "{{.why}}"))


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_links_and_marks_are_not_hidden_in_a_menu(path: Path) -> None:
    board = load(path)
    assert all("placement" not in shown for shown in (*board["links"], *board["annotations"].get("list", ())))


def test_links_between_boards_lead_somewhere() -> None:
    ids = {load(path)["uid"] for path in BOARDS}
    links = [link["url"] for path in BOARDS for link in load(path).get("links", [])]
    assert links
    assert {url.removeprefix("/d/") for url in links} <= ids
