"""OTLP/gRPC through the SDK's exporters, against a real server."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from arobust_otel.agent.client.encode import Part, encode
from arobust_otel.agent.client.grpc_transport import GrpcTransport, _take_over
from arobust_otel.agent.client.transport import PoisonedBatch
from arobust_otel.errors import ConfigurationError, PermanentDelivery, RetryableDelivery
from arobust_otel.model import signals
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import Event, Frame, LogLine, Point, StackCapture, ThreadStack
from arobust_otel.model.wire_names import BATCH_ID_HEADER
from tests.agent import certificates
from tests.agent.counting_proxy import CountingProxy
from tests.agent.grpc_server import (
    Reply,
    as_details,
    as_trailer,
    retry_info,
    serving,
)
from tests.agent.server import free_port

JOB = JobIdentity("job-1", 0, "host-a")
CALL_SECONDS = 5.0


def payload(signal: str, items: list[Any]) -> Any:
    return encode(signal, [Part(item, JOB, 0) for item in items]).payload


def metrics(value: int = 1) -> Any:
    return payload("metrics", [Point(signals.STEP, value, value)])


def lines(*bodies: str) -> Any:
    return payload("logs", [LogLine(body, 1, "/train.log", 0) for body in bodies])


def way(target: str, secure: bool = False) -> closing[GrpcTransport]:
    return closing(GrpcTransport(target, secure, CALL_SECONDS))


def test_the_three_signals_arrive_with_the_id_of_their_batch() -> None:
    thread = ThreadStack(1, "main", (Frame("f", "train.py", 1),), True)
    capture = StackCapture(1, 0, 0, 5, "py-spy", "", (thread,), "f")
    with serving() as master, way(master.target) as transport:
        transport.send("metrics", metrics(7), 5.0, "a" * 32)
        transport.send("logs", payload("logs", [Event(signals.RANK_BORN, 1, "born")]), 5.0, "b" * 32)
        transport.send("traces", payload("traces", [capture]), 5.0, "c" * 32)
        transport.send("metrics", metrics(8), 5.0)
        assert master.values() == [7, 8]
        assert master.bodies() == ["born"]
        assert [(got.signal, got.metadata.get(BATCH_ID_HEADER)) for got in master.accepted] == [
            ("metrics", "a" * 32),
            ("logs", "b" * 32),
            ("traces", "c" * 32),
            ("metrics", None),
        ]
        assert len({got.peer for got in master.accepted}) == 1  # one connection serves all signals


def test_a_partial_success_is_read() -> None:
    partial = {"rejected_data_points": 3, "error_message": "too old"}
    with serving(script=lambda got: Reply(partial=partial)) as master, way(master.target) as transport:
        answer = transport.send("metrics", metrics(), 5.0)
    assert (answer.rejected, answer.message) == (3, "too old")


@pytest.mark.parametrize("form", [as_trailer, as_details])
@pytest.mark.parametrize("code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE])
def test_a_hint_is_read_in_both_of_its_forms(form: Any, code: grpc.StatusCode) -> None:
    reply = Reply(code, "busy", form(retry_info(7.5)))
    with serving(script=lambda got: reply) as master, way(master.target) as transport:
        with pytest.raises(RetryableDelivery, match="busy") as caught:
            transport.send("metrics", metrics(), 5.0)
        assert len(master.seen) == 1
    assert caught.value.retry_after_seconds == 7.5


@pytest.mark.parametrize(("asked", "kept"), [(3600, 60.0), (0, None)])
def test_a_hint_is_bounded_and_an_empty_one_leaves_the_pause_to_us(asked: float, kept: float | None) -> None:
    reply = Reply(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", as_details(retry_info(asked)))
    with (
        serving(script=lambda got: reply) as master,
        way(master.target) as transport,
        pytest.raises(RetryableDelivery) as caught,
    ):
        transport.send("metrics", metrics(), 5.0)
    assert caught.value.retry_after_seconds == kept


@pytest.mark.parametrize(
    ("code", "details", "error"),
    [
        (grpc.StatusCode.UNAVAILABLE, "restarting", RetryableDelivery),
        (grpc.StatusCode.CANCELLED, "", RetryableDelivery),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", RetryableDelivery),
        (grpc.StatusCode.ABORTED, "", RetryableDelivery),
        (grpc.StatusCode.OUT_OF_RANGE, "", RetryableDelivery),
        (grpc.StatusCode.DATA_LOSS, "", RetryableDelivery),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "quota", PermanentDelivery),
        (grpc.StatusCode.UNAUTHENTICATED, "no token", PermanentDelivery),
        (grpc.StatusCode.PERMISSION_DENIED, "", PermanentDelivery),
        (grpc.StatusCode.UNIMPLEMENTED, "", PermanentDelivery),
        (grpc.StatusCode.INTERNAL, "a bug", PermanentDelivery),
        (grpc.StatusCode.UNKNOWN, "a bug", PermanentDelivery),
        (grpc.StatusCode.INVALID_ARGUMENT, "bad point", PoisonedBatch),
        # Go, Java, .NET and Rust servers on a message above their limit
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "grpc: received message larger than max (5 vs. 4)",
            PoisonedBatch,
        ),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "gRPC message exceeds maximum size 4194304: 5242880",
            PoisonedBatch,
        ),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "Received message exceeds the maximum configured message size.",
            PoisonedBatch,
        ),
        (
            grpc.StatusCode.OUT_OF_RANGE,
            "Error, decoded message length too large: found 5 bytes",
            PoisonedBatch,
        ),
        # Python, Go and Java servers on a message that they cannot decode
        (grpc.StatusCode.INTERNAL, "Exception deserializing request!", PoisonedBatch),
        (grpc.StatusCode.INTERNAL, "grpc: error unmarshalling request: proto: x", PoisonedBatch),
        (grpc.StatusCode.INTERNAL, "Failed to read message.", PoisonedBatch),
        # a proxy that goes away in the middle of an answer refuses nothing
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2", RetryableDelivery),
        (grpc.StatusCode.UNKNOWN, "Stream removed", RetryableDelivery),
    ],
)
def test_each_status_says_what_becomes_of_the_batch(
    code: grpc.StatusCode, details: str, error: type[Exception]
) -> None:
    with serving(script=lambda got: Reply(code, details)) as master, way(master.target) as transport:
        with pytest.raises(error) as caught:
            transport.send("metrics", metrics(), 5.0)
        assert type(caught.value) is error
        assert details in str(caught.value)
        assert len(master.seen) == 1  # one call is one try


def test_a_message_above_the_limit_of_the_server_may_be_cut() -> None:
    with serving() as master, way(master.target) as transport:
        with pytest.raises(PoisonedBatch, match="larger than max"):
            transport.send("logs", lines(*(os.urandom(100_000).hex() for _ in range(25))), 5.0)
        transport.send("logs", lines("small"), 5.0)
        assert master.bodies() == ["small"]


def test_a_master_that_is_away_is_found_again_by_the_same_transport() -> None:
    port = free_port()
    with way(f"127.0.0.1:{port}") as transport:
        started = time.monotonic()
        with pytest.raises(RetryableDelivery, match="refused"):
            transport.send("metrics", metrics(1), 5.0)
        assert time.monotonic() - started < 4
        for value in (2, 3):
            with serving(port) as master:
                send_until_taken(transport, value)
                assert master.values() == [value]


def send_until_taken(transport: GrpcTransport, value: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            transport.send("metrics", metrics(value), 5.0)
            return
        except RetryableDelivery:
            time.sleep(0.05)
    pytest.fail("the master was not found again")


def test_a_server_that_does_not_answer_costs_the_deadline_and_no_more() -> None:
    hold = threading.Event()
    with serving(script=lambda got: Reply(hold=hold)) as master, way(master.target) as transport:
        started = time.monotonic()
        with pytest.raises(RetryableDelivery, match="DEADLINE_EXCEEDED"):
            transport.send("metrics", metrics(), 0.3)
        assert 0.25 < time.monotonic() - started < 4
        hold.set()


def test_a_connection_that_was_lost_without_a_word_costs_one_try() -> None:
    with (
        serving() as master,
        CountingProxy(master.port) as proxy,
        way(f"127.0.0.1:{proxy.port}") as transport,
    ):
        transport.send("metrics", metrics(1), 5.0)
        proxy.lose_connections()
        with pytest.raises(RetryableDelivery, match="DEADLINE_EXCEEDED"):
            transport.send("metrics", metrics(2), 0.5)
        transport.send("metrics", metrics(2), 5.0)
        assert master.values() == [1, 2]


def test_requests_are_compressed_unless_the_variable_says_none(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {}
    for wanted in ("", "none"):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", wanted)
        with (
            serving() as master,
            CountingProxy(master.port) as proxy,
            way(f"127.0.0.1:{proxy.port}") as transport,
        ):
            transport.send("logs", lines("x" * 200_000), 5.0)
            assert master.bodies() == ["x" * 200_000]
            assert transport.bytes_raw > 200_000
            assert transport.bytes_sent is None
            sizes[wanted] = proxy.bytes
    assert sizes[""] < 20_000
    assert sizes["none"] > 200_000


def test_headers_of_the_variable_go_with_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20abc,x-team=blue")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "x-team=red")
    with serving() as master, way(master.target) as transport:
        transport.send("metrics", metrics(), 5.0)
        transport.send("logs", lines("one"), 5.0)
        first, second = (got.metadata for got in master.accepted)
    assert (first["authorization"], first["x-team"]) == ("Bearer abc", "blue")
    assert ("authorization" in second, second["x-team"]) == (False, "red")


@pytest.mark.parametrize("headers", ["x!team=blue", "x-team=%C3%A9"])
def test_a_header_that_grpc_cannot_send_is_refused_at_the_start(
    headers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", headers)
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_HEADERS"):
        GrpcTransport("127.0.0.1:1", False, 1.0)


def test_a_timeout_that_is_no_number_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "10s")
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_LOGS_TIMEOUT"):
        GrpcTransport("127.0.0.1:1", False, 1.0)


def test_exporters_of_another_layout_are_refused_in_words() -> None:
    with pytest.raises(ConfigurationError, match=r"opentelemetry-exporter-otlp-proto-grpc.*http://"):
        _take_over(object(), lambda channel: None)


# --- TLS ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> certificates.Certificates:
    return certificates.make(tmp_path_factory.mktemp("pki"))


def server_credentials(pki: certificates.Certificates, client_needed: bool) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(pki.read("server.key"), pki.read("server.pem"))], pki.read("ca.pem"), client_needed
    )


def test_tls_with_an_authority_of_ones_own(
    pki: certificates.Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(credentials=server_credentials(pki, False)) as master:
        with way(master.target, secure=True) as transport, pytest.raises(RetryableDelivery):
            transport.send("metrics", metrics(1), 5.0)  # nobody vouches for the server
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", pki.path("ca.pem"))
        with way(master.target, secure=True) as transport:
            transport.send("metrics", metrics(2), 5.0)
        assert master.values() == [2]


@pytest.mark.parametrize(
    "files",
    [
        {"CLIENT_CERTIFICATE": "client.pem", "CLIENT_KEY": "client.key"},
        {"CLIENT_CERTIFICATE": "both.pem"},
        {"METRICS_CLIENT_CERTIFICATE": "client.pem", "METRICS_CLIENT_KEY": "client.key"},
    ],
)
def test_mutual_tls(
    files: dict[str, str], pki: certificates.Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", pki.path("ca.pem"))
    for name, file in files.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", pki.path(file))
    with (
        serving(credentials=server_credentials(pki, True)) as master,
        way(master.target, secure=True) as transport,
    ):
        transport.send("metrics", metrics(3), 5.0)
        assert master.values() == [3]


def test_a_file_that_is_not_there_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(tmp_path / "none.key"))
    with pytest.raises(ConfigurationError, match=r"OTEL_EXPORTER_OTLP_CLIENT_KEY.*No such file"):
        GrpcTransport("127.0.0.1:1", True, 1.0)


# --- fork ---------------------------------------------------------------------------------------------------


def test_a_forked_child_opens_its_own_connection_and_leaves_the_parents_alone() -> None:
    with serving() as master, way(master.target) as transport:
        transport.send("metrics", metrics(1), 5.0)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                transport.reset()
                transport.send("metrics", metrics(2), 5.0)
                transport.close()
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        transport.send("metrics", metrics(3), 5.0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert master.values() == [1, 2, 3]
        first, second, third = (got.peer for got in master.accepted)
        assert first == third != second
