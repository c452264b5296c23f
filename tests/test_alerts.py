"""Alert rules and runbook are what the table of causes and the rules' manual pages say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from arobust_otel.model.causes import ACTIONS, BY_CODE
from tools import alerts
from tools.master_alerts import MASTER_ALERTS

ROOT = Path(__file__).parents[1]


def test_the_generated_files_are_up_to_date() -> None:
    assert alerts.outdated() == []


def test_every_cause_that_a_rule_can_name_has_an_alert() -> None:
    named = {
        node.value
        for folder in ("rules", "state")
        for path in (ROOT / "arobust_otel" / folder).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in BY_CODE
    }
    alerted = {row.cause.code for row in alerts.rows()}
    assert named - alerted <= set(alerts.NEVER_OPEN)
    assert {"hang_user_code", "process_killed", "node_lost"} <= alerted


def test_an_outdated_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "alerts.md").write_text(alerts.runbook() + "more")
    assert Path("docs/alerts.md") in alerts.outdated(tmp_path)
    (tmp_path / "docs" / "alerts.md").write_text(alerts.runbook())
    assert Path("docs/alerts.md") not in alerts.outdated(tmp_path)


def test_alertmanager_silences_by_the_same_tiers_whoever_sends_the_alert() -> None:
    text = (ROOT / "collector_config" / "alertmanager.yml").read_text(encoding="utf-8")
    tiers = list(alerts.TIERS)
    for number, tier in enumerate(tiers[:3]):
        below = tiers[number + 1 :]
        causes = [code for name in below for code in alerts.TIERS[name]]
        of_a_job = "'arobust_job_id!=\"\"'"
        assert f"source_matchers: ['arobust_tier=\"{tier}\"', {of_a_job}]" in text
        assert f"source_matchers: ['alertname=~\"{'|'.join(alerts.TIERS[tier])}\"', {of_a_job}]" in text
        assert f"target_matchers: ['alertname=~\"{'|'.join(causes)}\"']" in text
        assert "|".join(below) in text


def test_every_action_has_its_words() -> None:
    assert set(alerts.ACTIONS) == set(ACTIONS)


STORIES = ROOT / "collector_config" / "rules" / "tests"
ALERTS = [row.alert for row in alerts.rows()] + [alert.name for alert in MASTER_ALERTS]


def outcomes(alert: str) -> Iterator[list[bool]]:
    """Whether it fires, in the order of time, for each story that asks for it."""
    for path in sorted(STORIES.glob("*.yml")):
        for story in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            found = [*_asked(story, alert)]
            if found:
                yield [fires for _, fires in sorted(found)]


def _asked(story: dict[str, Any], alert: str) -> Iterator[tuple[float, bool]]:
    for question in story.get("alert_rule_test", ()):
        if question["alertname"] == alert:
            yield _seconds(question["eval_time"]), bool(question.get("exp_alerts"))
    for question in story.get("promql_expr_test", ()):
        named = re.search(r'ALERTS{alertname=~?"([^"]+)"', question["expr"])
        if named and re.fullmatch(named[1], alert):
            labels = [sample["labels"] for sample in question["exp_samples"]]
            whose = [re.search(r'alertname="(\w+)"', text) for text in labels]
            told = any(name is None or name[1] == alert for name in whose)
            yield _seconds(question["eval_time"]), told


def _seconds(text: str) -> float:
    return sum(int(count) * {"m": 60, "s": 1}[unit] for count, unit in re.findall(r"(\d+)([ms])", text))


@pytest.mark.parametrize("alert", ALERTS)
def test_a_story_tells_that_it_fires_and_another_moment_that_it_clears(alert: str) -> None:
    """The stories themselves are told to promtool by tests/stack/test_prometheus.py."""
    told = list(outcomes(alert))
    assert any(True in fires and False in fires[fires.index(True) :] for fires in told), told


def test_an_alert_that_no_story_tells_is_missed() -> None:
    assert not any(any(fires) for fires in outcomes("ArobustNever"))
