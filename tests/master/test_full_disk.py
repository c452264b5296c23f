"""A master whose disk gets full: senders are told to wait, nothing ends, and it goes on by itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests

from arobust_otel.config import MasterSettings
from arobust_otel.journal import Kind
from tests.disk import fill, make_room, tiny_disk
from tests.forwarders.sink import sinking
from tests.master.running import Master, forward_to, journal_of, settings_for, until
from tests.receiver.serving import exporting
from tests.receiver.test_http import metrics

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


FULL = "senders keep what they have: free space in"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tiny_disk(tmp_path / "tiny", 8 * 1024) as place:
        yield place


def post(master: Master, name: str) -> requests.Response:
    headers = {"content-type": "application/x-protobuf"}
    return requests.post(f"{master.url}/v1/metrics", metrics(name=name), headers=headers, timeout=20)


def journal_state(master: Master) -> Any:
    return (master.query("/api/v1/status") or {}).get("journal", {}).get("state")


def test_senders_wait_and_the_master_goes_on_by_itself(disk: Path) -> None:
    """Judge and deliver have files of their own to write: they go on without, and nobody is started again."""
    taken: list[str] = []
    with sinking() as sink:
        forwarders = forward_to(sink.url)
        settings = settings_for(disk / "data", snapshot_seconds=1.0, forwarders=forwarders)
        _fills_and_recovers(disk, settings, taken)
        arrived = b"".join(sink.bodies("metrics"))
    assert all(name.encode() in arrived for name in [*taken, "after"])


def _fills_and_recovers(disk: Path, settings: MasterSettings, taken: list[str]) -> None:
    with Master(settings) as master:
        until("the receiver's own words", lambda: journal_state(master) == "ok")
        before = master.info()["roles"]
        fill(disk)

        def refused() -> tuple[int, str] | None:
            answer = post(master, name := f"m{len(taken)}")
            if answer.status_code == 200:
                taken.append(name)
                return None
            return answer.status_code, answer.headers["retry-after"]

        assert until("a refusal", refused) == (503, "2")
        with grpc.insecure_channel(master.info()["otlp_grpc"]) as channel:
            with pytest.raises(grpc.RpcError) as error:
                exporting(channel, "metrics")(metrics(), timeout=20)
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "google.rpc.retryinfo-bin" in dict(error.value.trailing_metadata())
        until("the state", lambda: "No space left" in (journal_state(master) or ""))
        time.sleep(2.5)  # a snapshot, a report of each role and a cursor come due while the disk is full
        make_room(disk)
        assert until("room", lambda: post(master, "after").status_code == 200)
        until("the state", lambda: journal_state(master) == "ok")
        assert master.info()["roles"] == before
    kept = [record.payload for record in journal_of(disk / "data") if record.kind == Kind.REQUEST]
    assert kept == [metrics(name=name) for name in [*taken, "after"]]
    assert FULL in master.errors
    assert "there is room again" in master.errors


def test_a_receiver_that_starts_on_a_full_disk_waits_for_room(disk: Path) -> None:
    with Master(settings_for(disk / "data")) as master:
        pid = master.role("receive")
        fill(disk)
        until("a refusal", lambda: post(master, "m").status_code == 503)
        until("its words", lambda: FULL in master.said())
        told = master.said().count(FULL)
        os.kill(pid, signal.SIGKILL)
        until("the same words of the next one", lambda: master.said().count(FULL) > told)
        assert master.role("receive") == pid  # that one is not ready
        make_room(disk)
        until("a new receiver", lambda: master.role("receive") != pid)
        assert until("room", lambda: post(master, "after").status_code == 200)
    assert journal_of(disk / "data")[-1].offset > 3
