"""The command as a whole: what it refuses at the start, what it says, what it serves."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from arobust_otel.checked import Address
from arobust_otel.errors import ConfigurationError
from arobust_otel.journal import Kind
from arobust_otel.master.run import run
from tests.master.running import ANY, Master, WireStory, journal_of, settings_for, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """One for all tests that only ask; its processes outlive a single test, so it is told apart by name."""
    with Master(settings_for(tmp_path_factory.mktemp("asked") / "data")) as running:
        story = WireStory(ranks=4, master=running)
        story.run(4)
        story.ends(2, signal=9)
        story.run(2)
        until("an open incident", running.incidents)
        yield running


def test_a_port_that_is_taken_is_named_with_the_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = settings_for(tmp_path / "data", otlp_http=Address("127.0.0.1", port))
        with pytest.raises(ConfigurationError, match=f"{port} is taken.*--otlp-http HOST:PORT"):
            run(settings)


def test_a_wrong_rule_is_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"rules\.hangs"):
        run(settings_for(tmp_path / "data", rules={"hangs": {}}))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("key", ["otlp_http", "api"])
def test_others_are_not_served_without_token_and_tls(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigurationError, match="set a token and a TLS certificate"):
        run(settings_for(tmp_path / "data", **{key: Address("0.0.0.0", 0)}))


def test_a_second_master_on_the_same_folder_is_refused_with_the_first_ones_pid(master: Master) -> None:
    assert master.process is not None
    with pytest.raises(ConfigurationError, match=f"process {master.process.pid} uses this one"):
        run(settings_for(master.layout))


def test_everything_is_private_and_announced(master: Master) -> None:
    info = master.info()
    assert set(info["roles"]) == {"receive", "judge", "deliver"}
    for folder in ("", "journal", "run"):
        assert stat.S_IMODE((master.layout / folder).stat().st_mode) == 0o700
    socket_mode = (master.layout / "run" / "outputs.sock").stat().st_mode
    assert stat.S_IMODE(socket_mode) == 0o600


def test_the_journal_begins_with_configuration_and_start(master: Master) -> None:
    first, second = journal_of(master.layout)[:2]
    assert (first.kind, second.kind) == (Kind.CONFIGURATION, Kind.MASTER_STARTED)
    assert json.loads(first.payload)["engine"] == {"tick_seconds": 1.0}


@pytest.mark.parametrize(
    ("path", "status", "names"),
    [
        ("/api/v1/incidents", 200, "incidents"),
        ("/api/v1/incidents?status=open&job_id=job-1", 200, "incidents"),
        ("/api/v1/jobs", 200, "jobs"),
        ("/api/v1/ranks?job_id=job-1", 200, "ranks"),
        ("/api/v1/agents", 200, "agents"),
        ("/api/v1/ranks?job_id=unheard-of", 404, "error"),
        ("/api/v1/incidents?id=unheard-of", 404, "error"),
        ("/api/v1/incidents?status=shut", 400, "error"),
        ("/api/v1/incidents?job=job-1", 400, "error"),
        ("/api/v2/incidents", 404, "error"),
    ],
)
def test_queries_are_answered_in_json(master: Master, path: str, status: int, names: str) -> None:
    answer = requests.get(master.info()["api"] + path, timeout=10)
    assert answer.status_code == status
    assert answer.json()[names]


def test_the_api_only_reads(master: Master) -> None:
    answer = requests.post(master.info()["api"] + "/api/v1/incidents", timeout=10)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_the_status_shows_every_part(master: Master) -> None:
    def told() -> Any:
        """The receiver tells the judge about itself every second."""
        status = master.query("/api/v1/status")
        return status if status["receiver"].get("statuses", {}).get("/v1/metrics 200", 0) >= 4 else None

    status = until("the receiver's own words", told)
    assert status["roles"] == master.info()["roles"]
    assert status["judge"]["lag_records"] < 100
    assert status["receiver"]["connected"]
    assert status["journal"]["next_offset"] > 0
    assert status["engine"]["undecodable_records"] == 0


def test_a_stopped_master_leaves_nothing_of_its_run(tmp_path: Path) -> None:
    with Master(settings_for(tmp_path / "data")) as master:
        port = int(master.url.rpartition(":")[2])
    assert master.process is not None
    assert master.process.returncode == 0
    assert sorted(path.name for path in (tmp_path / "data" / "run").iterdir()) == [
        "deliver.json",
        "judge.json",
        "judge.mark",
        "receive.json",
    ]
    assert not (tmp_path / "data" / "master.json").exists()
    with socket.create_server(("127.0.0.1", port)):
        assert ANY.host == "127.0.0.1"
    assert os.listdir(tmp_path / "data" / "snapshots")
