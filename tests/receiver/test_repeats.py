"""A batch that comes twice is kept once: over both protocols, at once, after a failure, after a restart."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from arobust_otel.errors import JournalError
from arobust_otel.journal import Appender, Kind, Source
from arobust_otel.model.wire_names import BATCH_ID_HEADER
from arobust_otel.otlp.status import Encoding
from arobust_otel.receiver.answers import Refusal
from arobust_otel.receiver.commit import GroupCommit
from arobust_otel.receiver.intake import Intake, Upload
from arobust_otel.receiver.limits import ReceiverLimits
from arobust_otel.receiver.repeats import Repeats, batch_id_of
from tests.receiver.serving import Receiver, receiving
from tests.receiver.test_http import metrics

ID = "0123456789abcdef" * 2
BATCH = {BATCH_ID_HEADER.replace("-", "_"): ID}


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with receiving(tmp_path / "journal") as served:
        yield served


def test_a_repeat_is_answered_with_success_and_kept_once(receiver: Receiver) -> None:
    for _ in range(3):
        assert receiver.post("/v1/metrics", metrics(), **BATCH)[::2] == (200, b"")
    (record,) = receiver.records()
    assert (record.payload, record.batch) == (metrics(), ID)
    status = receiver.intake.counts.status()
    assert (status["repeats"], status["received_bytes"]) == (2, len(metrics()))


def test_a_batch_may_change_its_protocol_and_encoding(receiver: Receiver) -> None:
    text = json_format.MessageToJson(ExportMetricsServiceRequest.FromString(metrics())).encode()
    assert receiver.export("metrics", metrics(), **BATCH) == b""
    assert receiver.post("/v1/metrics", metrics(), **BATCH)[0] == 200
    assert receiver.post("/v1/metrics", text, content_type="application/json", **BATCH)[2] == b"{}"
    upper = {name: value.upper() for name, value in BATCH.items()}
    assert receiver.export("metrics", metrics(), **upper) == b""
    assert len(receiver.records()) == 1


def test_signals_of_one_batch_are_kept_each(receiver: Receiver) -> None:
    """A batch of several signals travels as one request for each; these have no common content."""
    assert receiver.post("/v1/metrics", metrics(), **BATCH)[0] == 200
    logs = b"\n\x0b\x12\t\x12\x07*\x05\n\x03abc"
    assert receiver.export("logs", logs, **BATCH) == b""
    assert [record.signal for record in receiver.records()] == ["metrics", "logs"]


@pytest.mark.parametrize("text", ["7", "x" * 32, ID + "0", "0x" + ID[2:], ID[:-1] + "\t"])
def test_what_is_no_batch_id_is_ignored_and_counted(receiver: Receiver, text: str) -> None:
    for _ in range(2):
        assert receiver.post("/v1/metrics", metrics(), **{BATCH_ID_HEADER: text})[0] == 200
    assert [record.batch for record in receiver.records()] == ["", ""]
    assert receiver.intake.counts.status()["invalid_batch_ids"] == 2


def test_two_copies_in_flight_are_kept_once(receiver: Receiver) -> None:
    body = metrics(points=20_000)
    with ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(receiver.post, "/v1/metrics", body, **BATCH) for _ in range(8)]
        calls += [pool.submit(receiver.export, "metrics", body, **BATCH) for _ in range(8)]
        answers = [call.result() for call in calls]
    assert {answer if isinstance(answer, bytes) else answer[2] for answer in answers} == {b""}
    assert len(receiver.records()) == 1
    assert receiver.intake.counts.status()["repeats"] == 15


def test_a_refused_copy_is_forgotten(receiver: Receiver) -> None:
    assert receiver.post("/v1/metrics", b"\xff", **BATCH)[0] == 400
    assert receiver.post("/v1/metrics", metrics(), **BATCH)[0] == 200
    assert len(receiver.records()) == 1


class SlowDisk(Appender):
    """A journal whose disk answers when it is told to, and then well or not."""

    let_go: threading.Event
    appended: asyncio.Event
    fails = False

    def append(self, *arguments: Any, **named: Any) -> int:
        offset = super().append(*arguments, **named)
        self.appended.set()
        return offset

    def sync(self) -> int:
        assert self.let_go.wait(20)
        if self.fails:
            raise JournalError("fdatasync failed: Input/output error")
        return super().sync()


def an_upload() -> Upload:
    return Upload("metrics", metrics(), Encoding.PROTOBUF, "", "here", ID)


def with_a_slow_disk(folder: Path, story: object) -> None:
    appender = SlowDisk.open(folder)
    assert isinstance(appender, SlowDisk)
    appender.let_go = threading.Event()
    commit = GroupCommit(appender)

    async def run() -> None:
        appender.appended = asyncio.Event()
        await story(Intake(appender, commit, ReceiverLimits()), appender)  # type: ignore[operator]

    try:
        asyncio.run(run())
    finally:
        commit.close()
        appender.close()


def test_a_repeat_is_answered_only_when_the_first_copy_is_durable(tmp_path: Path) -> None:
    async def story(intake: Intake, disk: SlowDisk) -> None:
        first = asyncio.create_task(intake.telemetry(an_upload()))
        await disk.appended.wait()
        second = asyncio.create_task(intake.telemetry(an_upload()))
        done, _ = await asyncio.wait([first, second], timeout=0.1)
        assert not done
        disk.let_go.set()
        assert (await second).repeated
        assert not (await first).repeated
        assert disk.next_offset == 1

    with_a_slow_disk(tmp_path, story)


def test_a_copy_whose_client_went_away_is_kept_once_all_the_same(tmp_path: Path) -> None:
    async def story(intake: Intake, disk: SlowDisk) -> None:
        first = asyncio.create_task(intake.telemetry(an_upload()))
        await disk.appended.wait()
        first.cancel()  # as gRPC does where the client's deadline has passed
        await asyncio.wait([first])
        second = asyncio.create_task(intake.telemetry(an_upload()))
        done, _ = await asyncio.wait([second], timeout=0.1)
        assert not done
        disk.let_go.set()
        assert (await second).repeated
        assert disk.next_offset == 1

    with_a_slow_disk(tmp_path, story)


def test_a_copy_that_did_not_get_durable_is_no_reason_to_answer_with_success(tmp_path: Path) -> None:
    async def story(intake: Intake, disk: SlowDisk) -> None:
        copies = [asyncio.create_task(intake.telemetry(an_upload())) for _ in range(2)]
        await disk.appended.wait()
        disk.fails = True
        disk.let_go.set()
        for answer in await asyncio.gather(*copies, return_exceptions=True):
            assert isinstance(answer, Refusal)
            assert answer.status == 503
        assert len(intake.repeats) == 0

    with_a_slow_disk(tmp_path, story)


def test_after_a_restart_what_was_appended_but_never_answered_is_known(tmp_path: Path) -> None:
    with Appender.open(tmp_path) as appender:
        appender.append(Kind.REQUEST, metrics(), received_ns=1, source=Source("metrics", "a", ID))
    with receiving(tmp_path) as receiver:
        assert receiver.post("/v1/metrics", metrics(), **BATCH)[0] == 200
        assert receiver.export("metrics", metrics(), **BATCH) == b""
        assert len(receiver.records()) == 1


@pytest.mark.parametrize(("text", "found"), [(ID, ID), (f" {ID.upper()} ", ID), ("", ""), (ID[1:], "")])
def test_ids_have_one_form(text: str, found: str) -> None:
    assert batch_id_of(text) == found


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=60), st.integers(1, 4))
def test_exactly_the_newest_durable_ids_are_repeats(story: list[tuple[int, bool]], limit: int) -> None:
    async def run() -> None:
        repeats, expected = Repeats(limit=limit), []
        for number, durable in story:
            key = ("metrics", f"{number:032x}")
            first = await repeats.begin(key)
            assert first is (key not in expected)
            if first:
                repeats.end(key, durable=durable)
                expected = [*expected, key][-limit:] if durable else expected
        assert len(repeats) == len(expected)

    asyncio.run(run())
