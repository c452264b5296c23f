"""Alert rules and runbook are what the table of causes and the rules' manual pages say."""

from __future__ import annotations

import ast
from pathlib import Path

from arobust_otel.model.causes import BY_CODE
from tools import alerts

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
        assert f"source_matchers: ['arobust_tier=\"{tier}\"']" in text
        assert f"source_matchers: ['alertname=~\"{'|'.join(alerts.TIERS[tier])}\"']" in text
        assert f"target_matchers: ['alertname=~\"{'|'.join(causes)}\"']" in text
        assert "|".join(below) in text
