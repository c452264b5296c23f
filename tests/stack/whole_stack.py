"""The questions of `make test-stack`: a live hang is asked for in every store as people would ask.

Not collected by its name. One run serves all questions; it takes some minutes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arobust_otel.model import signals
from arobust_otel.model.prometheus_names import label_name, metric_name
from arobust_otel.otlp.incidents import digest, trace_id
from tests.stack import boards, guides
from tests.stack.live import CULPRIT, RANKS, Story, telling
from tests.stack.running import CONFIG, check, program, until_answer
from tools.stack.programs import BY_NAME

STORE_SECONDS = 60.0
pytestmark = [pytest.mark.stack, pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(480)]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with telling(tmp_path_factory.mktemp("stack")) as found:
        yield found


def test_prometheus_knows_the_step_of_every_rank(story: Story) -> None:
    query = f'{metric_name(signals.STEP)}{{{label_name(signals.JOB_ID)}="{story.job}"}}'
    found = until_answer("a step per rank", lambda: len(rows := story.promql(query)) == RANKS and rows)
    ranks = {row["metric"][label_name(signals.RANK)]: float(row["value"][1]) for row in found}
    assert set(ranks) == {str(rank) for rank in range(RANKS)}
    assert min(ranks.values()) >= 5


def test_prometheus_knows_the_incident_and_its_rank(story: Story) -> None:
    query = f'{metric_name(signals.INCIDENT_OPEN)}{{{label_name(signals.JOB_ID)}="{story.job}"}} == 1'
    both = until_answer(
        "the gauge, pushed and scraped", lambda: len(rows := story.promql(query)) == 2 and rows, STORE_SECONDS
    )
    pushed, scraped = ({k: v for k, v in row["metric"].items() if k != "instance"} for row in both)
    assert pushed == scraped
    assert pushed[label_name(signals.CAUSE)] == "hang_user_code"
    assert pushed[label_name(signals.RANK)] == str(CULPRIT)


def test_loki_has_the_training_lines(story: Story) -> None:
    query = f'{{service_name="arobust-agent", arobust_job_id="{story.job}"}} | log_file_path=~".+train.log"'
    lines = until_answer("training lines", lambda: story.logql(query), STORE_SECONDS)
    assert any("step" in line for line, _ in lines)


def test_loki_has_the_verdict(story: Story) -> None:
    query = f'{{service_name="arobust-master", arobust_job_id="{story.job}"}} | event_name="arobust.incident"'
    lines = until_answer("the incident", lambda: story.logql(query), STORE_SECONDS)
    verdicts = [json.loads(line) for line, _ in lines]
    assert story.incident["id"] in {verdict["id"] for verdict in verdicts}
    assert any(verdict["status"] == "open" for verdict in verdicts)


def test_jaeger_has_the_incident_with_a_stack_of_each_rank_whose_text_is_in_loki(story: Story) -> None:
    trace = trace_id(story.incident["id"]).hex()
    spans = until_answer("the incident's trace", lambda: story.spans(trace), STORE_SECONDS)
    stacks = {}
    for span in spans:  # sent again with every change of the incident
        events = [{field["key"]: field["value"] for field in log["fields"]} for log in span["logs"]]
        ranks = [event[signals.RANK] for event in events]
        assert len(ranks) == len(set(ranks))
        stacks |= {event[signals.RANK]: event[signals.STACK_DIGEST] for event in events}
    story.progress.say(f"trace {trace}: {len(spans)} spans, stacks of ranks {sorted(stacks)}")
    assert set(stacks) == set(range(RANKS))
    master = f'{{service_name="arobust-master", arobust_job_id="{story.job}"}}'
    for rank, key in stacks.items():
        query = f'{master} | {label_name(signals.STACK_DIGEST)}="{key}" | {label_name(signals.RANK)}="{rank}"'
        found = until_answer(f"the stack of rank {rank}", lambda query=query: story.logql(query))
        text, labels = found[0]
        assert digest(text) == key
        assert labels["trace_id"] == trace


def test_the_webhook_is_told(story: Story) -> None:
    def alerts() -> list[dict[str, Any]]:
        bodies = [json.loads(body) for body in story.webhook.bodies("alerts")]
        return [alert for body in bodies for alert in body["alerts"] if alert["labels"].get("arobust_job_id")]

    (alert, *_) = until_answer("the alert", alerts)
    assert alert["status"] == "firing"
    assert alert["labels"]["alertname"] == "ArobustHangUserCode"
    assert alert["labels"]["arobust_job_id"] == story.job
    assert alert["labels"]["arobust_rank"] == str(CULPRIT)
    assert "arobust_docs" not in alert["labels"]
    docs = "https://git.example.org/arobust-otel/docs"
    assert alert["annotations"]["runbook_url"] == f"{docs}/alerts.md#arobusthangusercode"
    story.progress.say(f"webhook: {alert['annotations']['summary']}")


def test_prometheus_sees_the_master_and_no_alert_says_that_it_is_blind(story: Story) -> None:
    until_answer("the dead-man switch", lambda: story.promql('ALERTS{alertname="ArobustWatchdog"}'))
    assert story.promql(f"{metric_name(signals.MASTER_UP)} == 1")
    assert story.promql('ALERTS{alertname=~"Arobust(Master|Judge|Journal).+", alertstate="firing"}') == []


def test_recording_rules_answer(story: Story) -> None:
    job = label_name(signals.JOB_ID)
    query = f'job:arobust_ranks:count{{{job}="{story.job}"}}'
    (row,) = until_answer("recorded ranks", lambda: story.promql(query))
    assert float(row["value"][1]) == RANKS


@pytest.mark.parametrize("words", guides.questions(), ids=" ".join)
def test_a_question_of_a_guide_is_answered(story: Story, words: list[str]) -> None:
    replaced = {
        "http://127.0.0.1:9090": story.at.prometheus,
        "http://127.0.0.1:9093": story.at.alertmanager,
        "http://127.0.0.1:3100": story.at.loki,
        "http://127.0.0.1:16686": story.at.jaeger,
    }
    command = guides.placed(words, replaced)
    command[0] = program(words[0]) if words[0] in BY_NAME else words[0]
    said = until_answer(" ".join(words), lambda: _found(check(command)), STORE_SECONDS)
    assert "arobust" in said.lower()


def _found(said: str) -> str:
    """Empty where the answer holds nothing."""
    return "" if '"result":[]' in said or '"data":[]' in said else said


@pytest.mark.parametrize("question", boards.questions(), ids=lambda found: f"{found.board}: {found.panel}")
def test_a_panel_of_a_board_shows_something(story: Story, question: boards.Question) -> None:
    query = question.about(story.job)
    ask = story.promql if question.store == "prometheus" else story.logql
    assert until_answer(query, lambda: ask(query), STORE_SECONDS)


@pytest.mark.parametrize("words", guides.checks(), ids=" ".join)
def test_a_check_of_a_guide_is_content(words: list[str], tmp_path: Path) -> None:
    command = [program(words[0]), *words[1:]]
    check(command, {"OTELCOL_QUEUE": str(tmp_path), "AROBUST_HOST": "node-a"}, CONFIG.parent)
