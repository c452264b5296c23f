"""Open incidents as alerts with few labels; every member of a cluster hears them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arobust_otel.errors import ConfigurationError, PermanentDelivery, RetryableDelivery
from arobust_otel.forwarders.alertmanager import Alertmanager, runbook_of
from tests.forwarders.sink import Sink, sinking
from tests.master.delivering import an_incident, ended

NOON_NS = 1_767_268_800_000_000_000


@pytest.fixture
def sink() -> Iterator[Sink]:
    with sinking() as served:
        yield served


def show(*incidents: dict[str, Any], urls: tuple[str, ...], **options: Any) -> None:
    forwarder = Alertmanager(urls=urls, **options)
    try:
        forwarder.show(incidents, NOON_NS)
    finally:
        forwarder.close()


def alerts(sink: Sink) -> list[dict[str, Any]]:
    return [alert for body in sink.bodies("alerts") for alert in json.loads(body)]


def test_labels_are_few_and_annotations_say_the_rest(sink: Sink) -> None:
    show(an_incident(), urls=(f"{sink.url}/",), runbook_url="https://wiki/runbooks/", labels={"cluster": "a"})
    (alert,) = alerts(sink)
    assert sink.paths == ["/api/v2/alerts"]
    assert alert["labels"] == {
        "alertname": "hang_user_code",
        "severity": "critical",
        "arobust_job_id": "job-1",
        "arobust_rule": "hang",
        "arobust_rank": "2",
        "host_name": "gpu-a",
        "cluster": "a",
    }
    assert alert["annotations"] == {
        "summary": "rank 2 hangs",
        "action": "restart_worker rank 2: it hangs",
        "evidence": "the same stack twice",
        "grade": "two_witnesses",
        "refuted_by": "a step",
        "incident_id": "i1",
        "runbook_url": "https://wiki/runbooks/hang_user_code",
    }


def test_the_runbook_of_a_cause_is_a_heading_of_our_own_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text(encoding="utf-8")
    headings = {f"#{line[3:].lower()}" for line in page.splitlines() if line.startswith("## ")}
    links = {runbook_of("#{anchor}", cause) for cause in ("process_killed", "hang_user_code", "deadlock")}
    assert links <= headings
    assert runbook_of("https://wiki/{cause}.html", "deadlock") == "https://wiki/deadlock.html"


def test_an_open_one_ends_by_itself_where_nobody_repeats_it_and_a_resolved_one_has_ended(sink: Sink) -> None:
    show(an_incident(), ended(cause="deadlock"), urls=(sink.url,), repeat_seconds=60)
    live, gone = alerts(sink)
    assert (live["startsAt"], live["endsAt"]) == (
        "2026-01-01T00:00:00.000000Z",
        "2026-01-01T12:04:00.000000Z",
    )
    assert gone["endsAt"] == "2026-01-01T00:01:00.000000Z"


def test_nobody_to_blame_means_no_rank_and_no_host(sink: Sink) -> None:
    show(an_incident(culprits=[], cause="hang_collective"), urls=(sink.url,))
    (alert,) = alerts(sink)
    assert not {"arobust_rank", "host_name"} & set(alert["labels"])


def test_every_member_of_a_cluster_hears_it_and_one_is_enough(sink: Sink) -> None:
    with sinking() as gone:
        away = gone.url
    with sinking() as second:
        show(an_incident(), urls=(away, sink.url, second.url))
        assert len(alerts(sink)) == len(alerts(second)) == 1
    with pytest.raises(RetryableDelivery, match="cannot be reached"):
        show(an_incident(), urls=(away,))


@pytest.mark.parametrize(("status", "error"), [(400, PermanentDelivery), (503, RetryableDelivery)])
def test_a_refusal_of_all_members_is_an_error(sink: Sink, status: int, error: type[Exception]) -> None:
    sink.judge = lambda signal, body: (status, {}, b"because")
    with pytest.raises(error, match=f"{status}: because"):
        show(an_incident(), urls=(sink.url,))


def test_many_are_said_in_several_requests(sink: Sink) -> None:
    show(*(an_incident(job_id=f"job-{number}") for number in range(150)), urls=(sink.url,))
    assert len(alerts(sink)) == 150
    assert len(sink.taken) == 3


def test_a_refused_request_does_not_silence_the_others(sink: Sink) -> None:
    sink.judge = lambda signal, body: (400, {}, b"bad") if b'"job-3"' in body else (200, {}, b"")
    incidents = [an_incident(job_id=f"job-{number}") for number in range(130)]
    with pytest.raises(PermanentDelivery, match="400"):
        show(*incidents, urls=(sink.url,))
    assert len(alerts(sink)) == 130 - 64


def test_where_nothing_is_to_be_said_an_empty_list_shows_whether_it_would_be_heard(sink: Sink) -> None:
    show(urls=(sink.url,))
    assert sink.bodies("alerts") == [b"[]"]
    sink.judge = lambda signal, body: (401, {}, b"who are you")
    with pytest.raises(RetryableDelivery, match="401"):
        show(urls=(sink.url,))


def test_a_token_is_read_from_its_file(sink: Sink, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    show(an_incident(), urls=(sink.url,), token_file=str(tmp_path / "token"))
    assert sink.headers[0]["authorization"] == "Bearer abc"


@pytest.mark.parametrize(
    ("option", "options"),
    [("urls", {"urls": ()}), ("urls", {"urls": ("am:9093",)}), ("token_file", {"token_file": "/nowhere"})],
)
def test_a_wrong_option_is_refused_by_name(option: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=option):
        Alertmanager(**options)
