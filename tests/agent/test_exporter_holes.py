"""Holes of the bare exporters against real servers; each beside MasterClient, which has none.

The first half of each pair shows what the SDK's exporter does, where it matters behind its batch processor.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf.message import DecodeError
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.exporter import InvalidCompressionValueException
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from arobust_otel.agent.client.settings import ClientSettings
from arobust_otel.agent.master_client import MasterClient
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import LogLine
from tests.agent.grpc_server import Received, Reply, as_details, retry_info, serving
from tests.agent.holes import is_hole
from tests.agent.server import Answer, running

JOB = JobIdentity("job-1", 0, "host-a")
QUICK = ClientSettings(urgent_seconds=0.01, bulk_seconds=0.05, call_seconds=10.0, retry_first_seconds=0.02)
SUCCESS, FAILURE = LogRecordExportResult.SUCCESS, LogRecordExportResult.FAILURE


def line(body: str, **attributes: Any) -> LogLine:
    return LogLine(body, 1, "/train.log", 0, attributes=attributes)


def record(body: str, **attributes: Any) -> ReadableLogRecord:
    return ReadableLogRecord(
        LogRecord(timestamp=1, body=body, attributes=attributes), Resource({}), InstrumentationScope("bare")
    )


@contextmanager
def client(address: str, settings: ClientSettings = QUICK) -> Iterator[MasterClient]:
    made = MasterClient(address, JOB, settings, say=lambda text: None)
    try:
        yield made
    finally:
        made.close(2.0)


@contextmanager
def bare(exporter: Any) -> Iterator[Any]:
    try:
        yield exporter
    finally:
        exporter.shutdown()


def http(url: str, seconds: float = 2.0) -> Any:
    return bare(OTLPLogExporter(f"{url}/v1/logs", timeout=seconds))


def over_grpc(target: str, seconds: float = 3.0) -> Any:
    return bare(GrpcLogExporter(f"http://{target}", timeout=seconds))


def first_then_success(answer: Answer) -> Callable[[str, bytes], Answer]:
    answers = [answer]
    return lambda signal, body: answers.pop() if answers else Answer()


def strict(signal: str, body: bytes) -> Answer:
    """As every receiver answers that decodes protobuf."""
    try:
        ExportLogsServiceRequest.FromString(body)
    except DecodeError:
        return Answer(400)
    return Answer()


def nested(levels: int) -> Any:
    value: Any = "deep"
    for _ in range(levels):
        value = {"in": value}
    return value


# --- 1: one record spoils its batch -------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("protocol", ["http", "grpc"])


@contextmanager
def strict_master(protocol: str) -> Iterator[tuple[str, Any]]:
    """Its address, and what it took."""
    if protocol == "http":
        with running(script=strict) as over_http:
            yield over_http.url, over_http
        return
    with serving() as master:
        yield master.target, master


def bare_exporter(protocol: str, address: str) -> Any:
    """With the timeout of the environment, ten seconds by default."""
    if protocol == "http":
        return OTLPLogExporter(f"{address}/v1/logs")
    return GrpcLogExporter(f"http://{address}")


SPOILERS: dict[str, Any] = {
    "lone surrogate": "caf\udce9",
    "beyond 64 bit": 2**70,
    "60 levels": nested(60),
}


@BOTH
@pytest.mark.parametrize("spoiler", SPOILERS)
def test_one_record_spoils_its_batch_with_the_bare_exporter(spoiler: str, protocol: str) -> None:
    with strict_master(protocol) as (address, master):
        provider = LoggerProvider()
        exporter = bare_exporter(protocol, address)
        # All three in one batch, however long it takes to emit them.
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter, schedule_delay_millis=60_000))
        for body in ("one", SPOILERS[spoiler], "two"):
            provider.get_logger("bare").emit(body=body)
        provider.force_flush()
        provider.shutdown()
        is_hole(master.bodies() == [], "all records of the batch are dropped")


@BOTH
@pytest.mark.parametrize("spoiler", SPOILERS)
def test_no_record_spoils_another_with_master_client(spoiler: str, protocol: str) -> None:
    with strict_master(protocol) as (address, master), client(address) as ours:
        text = SPOILERS[spoiler] if isinstance(SPOILERS[spoiler], str) else "three"
        ours.report([line("one"), line(text, value=SPOILERS[spoiler]), line("two")])
        assert ours.flush(10)
        assert master.bodies() == ["one", text.replace("\udce9", r"\udce9"), "two"]


# --- 2: a partial success is ignored ------------------------------------------------------------------------


def rejecting_one(signal: str, body: bytes) -> Answer:
    partial = ExportLogsPartialSuccess(rejected_log_records=1, error_message="too old")
    return Answer(body=ExportLogsServiceResponse(partial_success=partial).SerializeToString())


@contextmanager
def rejecting_master(protocol: str) -> Iterator[str]:
    """Its address; of each request it rejects one record."""
    if protocol == "http":
        with running(script=rejecting_one) as over_http:
            yield over_http.url
        return
    partial = {"rejected_log_records": 1, "error_message": "too old"}
    with serving(script=lambda received: Reply(partial=partial)) as master:
        yield master.target


@BOTH
def test_rejected_records_are_a_success_with_the_bare_exporter(protocol: str) -> None:
    with rejecting_master(protocol) as address, bare(bare_exporter(protocol, address)) as exporter:
        is_hole(exporter.export([record("one"), record("two")]) is SUCCESS, "the answer is not read")


@BOTH
def test_rejected_records_are_counted_and_said_with_master_client(protocol: str) -> None:
    said: list[str] = []
    with rejecting_master(protocol) as address:
        ours = MasterClient(address, JOB, QUICK, say=said.append)
        ours.report([line("one"), line("two")])
        assert ours.flush(10)
        assert (ours.stats()["delivered"], ours.stats()["dropped.rejected"]) == (1, 1)
        ours.close(2.0)
    assert any("too old" in text for text in said)


# --- 3: a redirect counts as a success ----------------------------------------------------------------------


def moved(signal: str, body: bytes) -> Answer:
    return Answer(302, headers={"location": "http://127.0.0.1:9/login"})


def test_a_redirect_is_a_success_with_the_bare_exporter() -> None:
    with running(script=moved) as master, http(master.url) as exporter:
        is_hole(exporter.export([record("one")]) is SUCCESS, "any status below 400 is a success")


def test_a_redirect_is_counted_as_refused_with_master_client() -> None:
    with running(script=moved) as master, client(master.url) as ours:
        ours.report([line("one")])
        assert ours.flush(10)
        assert (ours.stats()["delivered"], ours.stats()["dropped.refused"]) == (0, 1)


# --- 3b: so does the page of a web site ---------------------------------------------------------------------


def web_site(signal: str, body: bytes) -> Answer:
    return Answer(200, b"<!doctype html><title>Sign in</title>", {"content-type": "text/html; charset=utf-8"})


def test_a_web_page_is_a_success_with_the_bare_exporter() -> None:
    with running(script=web_site) as master, http(master.url) as exporter:
        is_hole(exporter.export([record("one")]) is SUCCESS, "any status below 400 is a success")


def test_a_web_page_is_told_and_everything_is_kept_with_master_client() -> None:
    said: list[str] = []
    with running(script=web_site) as master:
        ours = MasterClient(master.url, JOB, QUICK, say=said.append)
        ours.report([line("one")])
        assert master.wait_for(lambda: len(master.seen) > 1, 20)
        assert (ours.stats()["delivered"], ours.stats()["queue_items"]) == (0, 1)
        master.script = lambda signal, body: Answer()
        assert ours.flush(10)
        assert ours.stats()["delivered"] == 1
        ours.close(2.0)
    assert "not that of an OTLP server" in said[0]


# --- 4: a pause longer than the exporter's deadline drops the batch at once ---------------------------------


def pausing(seconds: int) -> Callable[[str, bytes], Answer]:
    return first_then_success(Answer(503, headers={"Retry-After": str(seconds)}))


def test_a_long_pause_drops_the_batch_with_the_bare_exporter() -> None:
    with running(script=pausing(20)) as master, http(master.url, 10.0) as exporter:
        started = time.monotonic()
        result = exporter.export([record("one")])
        gone = result is FAILURE and time.monotonic() - started < 10 and master.bodies() == []
        is_hole(gone, "Retry-After of 20 s and a deadline of 10 s: dropped at once")


def test_a_long_pause_is_waited_for_with_master_client() -> None:
    with running(script=pausing(2)) as master, client(master.url) as ours:
        ours.report([line("one")])
        assert master.wait_for(lambda: master.bodies() == ["one"], 20)
        first, second = (at for _, at in master.seen)
        assert second - first >= 2


# --- 5: a timeout in milliseconds, as the specification says, is read as seconds ----------------------------


@contextmanager
def holding_master(protocol: str) -> Iterator[tuple[str, Any, threading.Event]]:
    """Its address, itself, and what ends the wait of its first request."""
    hold = threading.Event()
    if protocol == "http":
        with running(script=first_then_success(Answer(hold=hold))) as over_http:
            yield over_http.url, over_http, hold
        return
    replies = [Reply(hold=hold)]
    with serving(script=lambda received: replies.pop() if replies else Reply()) as master:
        yield master.target, master, hold


@BOTH
def test_half_a_second_is_minutes_with_the_bare_exporter(
    monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "500")
    with holding_master(protocol) as (address, _, hold):
        exporter = bare_exporter(protocol, address)
        thread = threading.Thread(target=exporter.export, args=([record("one")],))
        thread.start()
        thread.join(2.0)
        waits = thread.is_alive()
        hold.set()
        thread.join()
        exporter.shutdown()
    is_hole(waits, "a request of 500 ms still waits after 2 s")


@BOTH
def test_the_timeout_is_a_setting_in_seconds_with_master_client(
    monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "500")
    settings = replace(QUICK, call_seconds=1.0)
    with holding_master(protocol) as (address, master, hold), client(address, settings) as ours:
        ours.report([line("one")])
        deadline = time.monotonic() + 20
        while len(master.seen) < 2 and time.monotonic() < deadline:  # gave up after call_seconds
            time.sleep(0.02)
        assert len(master.seen) == 2
        hold.set()
        assert ours.flush(10)
        assert master.bodies() == ["one"], "the second try has the id of the first one"


# --- 6: parent and child share one connection after a fork --------------------------------------------------


def in_child(act: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_speaks_on_its_parents_connection_with_the_bare_exporter() -> None:
    with running() as master, http(master.url) as exporter:
        exporter.export([record("parent")])
        assert in_child(lambda: exporter.export([record("child")])) == 0
        is_hole(master.bodies() == ["parent", "child"] and len(set(master.peers)) == 1, "one connection")


def test_a_child_has_its_own_connection_with_master_client() -> None:
    with running() as master, client(master.url) as ours:
        ours.report([line("parent")])
        assert ours.flush(10)

        def report() -> None:
            ours.report([line("child")])
            assert ours.flush(10)

        assert in_child(report) == 0
        assert master.bodies() == ["parent", "child"]
        assert len(set(master.peers)) == 2


# --- 7: a pause that a server asks for over gRPC is read in one of two places -------------------------------


def busy_once(seconds: float) -> tuple[list[float], Callable[[Received], Reply]]:
    """When each call came, and a script that asks for patience in the form that all but Python read."""
    calls: list[float] = []

    def script(received: Received) -> Reply:
        calls.append(time.monotonic())
        if len(calls) > 1:
            return Reply()
        return Reply(grpc.StatusCode.UNAVAILABLE, "busy", as_details(retry_info(seconds)))

    return calls, script


def test_a_pause_in_the_status_details_is_not_seen_by_the_bare_exporter() -> None:
    calls, script = busy_once(20.0)
    with serving(script=script) as master, over_grpc(master.target, 40.0) as exporter:
        assert exporter.export([record("one")]) is SUCCESS
    is_hole(calls[1] - calls[0] < 15, "it came back before the twenty seconds were over")


def test_a_pause_in_the_status_details_is_waited_for_by_master_client() -> None:
    calls, script = busy_once(2.0)
    with serving(script=script) as master, client(master.target) as ours:
        ours.report([line("one")])
        deadline = time.monotonic() + 20
        while len(calls) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert ours.flush(10)
    assert calls[1] - calls[0] >= 2.0


# --- 8: a quota that is used up is tried again and again ----------------------------------------------------


def exhausted(received: Received) -> Reply:
    return Reply(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota of the day")


def test_an_exhausted_resource_without_a_hint_is_tried_again_by_the_bare_exporter() -> None:
    with serving(script=exhausted) as master, over_grpc(master.target, 6.0) as exporter:
        exporter.export([record("one")])
        is_hole(len(master.seen) > 1, "tried again although the specification says not to")


def test_an_exhausted_resource_without_a_hint_is_final_for_master_client() -> None:
    with serving(script=exhausted) as master, client(master.target) as ours:
        ours.report([line("one")])
        assert ours.flush(10)
        assert len(master.seen) == 1
        assert ours.stats()["dropped.refused"] == 1


# --- 9: a message above the server's limit is lost whole ----------------------------------------------------

LONG = [f"{number:02} {os.urandom(100_000).hex()}" for number in range(25)]  # 5 MB; servers take 4 MiB


def test_five_megabytes_are_lost_with_the_bare_exporter() -> None:
    with serving() as master, over_grpc(master.target, 1.5) as exporter:
        exporter.export([record(body) for body in LONG])
        is_hole(master.bodies() == [], "the server's limit of 4 MiB: all 25 records are lost")


def test_five_megabytes_arrive_in_parts_with_master_client() -> None:
    large = ClientSettings(bulk_seconds=0.05, batch_bytes=16 * 1024 * 1024)
    with serving() as master, client(master.target, large) as ours:
        ours.report([line(body) for body in LONG])
        assert ours.flush(20)
        assert master.bodies() == LONG
        assert ours.stats()["dropped"] == 0


# --- 10: variables that the exporters misread ---------------------------------------------------------------


def test_no_compression_cannot_be_said_to_the_bare_grpc_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    try:
        GrpcLogExporter("http://127.0.0.1:9").shutdown()
        refused = False
    except InvalidCompressionValueException:
        refused = True
    is_hole(refused, "COMPRESSION=none, which the specification lists, is an error")


def test_no_compression_can_be_said_to_master_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    with serving() as master, client(master.target) as ours:
        ours.report([line("plain")])
        assert ours.flush(10)
        assert master.bodies() == ["plain"]
