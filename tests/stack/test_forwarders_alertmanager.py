"""What a real Alertmanager does with our alerts: asked back by its API, and heard by its web hook."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arobust_otel.forwarders.alertmanager import Alertmanager
from arobust_otel.master.incident_streams import BoardStream
from arobust_otel.model.incident import rfc3339
from tests.forwarders.sink import Sink, sinking
from tests.master.delivering import World, an_incident, ended
from tests.master.running import until
from tests.stack.running import asked, free_ports, running, until_answer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


class Pager:
    """An Alertmanager whose only receiver is the sink, at once."""

    def __init__(self, folder: Path, sink: Sink) -> None:
        (self.port,) = free_ports(1)
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.port}"
        hook = f"{{url: '{sink.url}/paged', send_resolved: true}}"
        times = "group_wait: 0s, group_interval: 1s, repeat_interval: 1h"
        (folder / "alertmanager.yml").write_text(
            f"route: {{receiver: us, group_by: ['...'], {times}}}\n"
            f"receivers: [{{name: us, webhook_configs: [{hook}]}}]\n"
        )

    @contextlib.contextmanager
    def runs(self) -> Iterator[None]:
        arguments = [f"--config.file={self.folder / 'alertmanager.yml'}", "--cluster.listen-address="]
        arguments += [f"--storage.path={self.folder / 'am'}", f"--web.listen-address=127.0.0.1:{self.port}"]
        with running("alertmanager", arguments, self.folder, f"{self.url}/-/ready"):
            yield

    def alerts(self) -> list[dict[str, Any]]:
        return asked(f"{self.url}/api/v2/alerts") or []


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with sinking() as sink:
        made = World(tmp_path, sink)
        yield made
        made.appender.close()


def paged(sink: Sink) -> list[tuple[str, str]]:
    """(alertname, status) of what somebody was woken by, in order."""
    rows = [alert for body in sink.bodies("paged") for alert in json.loads(body)["alerts"]]
    return [(row["labels"]["alertname"], row["status"]) for row in rows]


def open_now(**changes: Any) -> dict[str, Any]:
    import time

    at = rfc3339(time.time_ns())
    return an_incident(**{"opened_at": at, "first_evidence_at": at, "updated_at": at, **changes})


def ended_now(**changes: Any) -> dict[str, Any]:
    at = open_now()["updated_at"]
    return ended(**{"resolved_at": at, "updated_at": at, **changes})


NEVER = 10_000  # repetitions that may be late before an alert ends by itself


def test_somebody_is_woken_once_and_told_of_the_end(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arobust_otel.forwarders.alertmanager.REPEATS_TO_LIVE", NEVER)
    pager = Pager(tmp_path, world.sink)
    forwarder = Alertmanager(urls=(pager.url,), repeat_seconds=0.5, runbook_url="https://wiki")
    with pager.runs(), world.delivering(BoardStream, forwarder) as stream:
        until("nothing is heard, too", lambda: stream.sender.counts.sent_requests)
        assert (stream.sender.counts.state, pager.alerts()) == ("ok", [])
        opened = open_now()
        world.incident(opened)
        (alert,) = until_answer("the alert", pager.alerts)
        assert alert["labels"]["arobust_job_id"] == "job-1"
        assert alert["annotations"]["runbook_url"] == "https://wiki/hang_user_code"
        until("woken", lambda: paged(world.sink) == [("hang_user_code", "firing")])
        world.incident(open_now(opened_at=opened["opened_at"], cause="hang_device"))
        expected = {("hang_user_code", "firing"), ("hang_user_code", "resolved"), ("hang_device", "firing")}
        until("the revised verdict", lambda: set(paged(world.sink)) == expected)
        world.incident(ended_now(cause="hang_device", opened_at=opened["opened_at"]))
        until("the end", lambda: paged(world.sink)[-1] == ("hang_device", "resolved"))
        assert len(paged(world.sink)) == 4
        assert not pager.alerts()


def test_an_alert_ends_by_itself_when_the_master_is_gone(world: World, tmp_path: Path) -> None:
    pager = Pager(tmp_path, world.sink)
    with pager.runs():
        world.incident(open_now())
        world.deliver(BoardStream, Alertmanager(urls=(pager.url,), repeat_seconds=2.0))
        until_answer("its own end", lambda: ("hang_user_code", "resolved") in paged(world.sink))


def test_an_alertmanager_that_was_away_hears_what_stands_and_wakes_nobody_for_what_is_over(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arobust_otel.forwarders.alertmanager.REPEATS_TO_LIVE", NEVER)
    pager = Pager(tmp_path, world.sink)
    forwarder = Alertmanager(urls=(pager.url,), repeat_seconds=0.5)
    with world.delivering(BoardStream, forwarder) as stream:
        world.incident(open_now(id="over", cause="deadlock"))
        until("a try", lambda: stream.sender.counts.retries)
        world.incident(ended_now(id="over", cause="deadlock"))
        world.incident(open_now(id="stands"))
        with pager.runs():
            until("woken for one", lambda: paged(world.sink))
            until("said again", lambda: stream.sender.counts.sent_requests > 4)
    assert paged(world.sink) == [("hang_user_code", "firing")]
