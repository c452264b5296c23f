"""OTLP/HTTP through the SDK's exporters, against a real server."""

from __future__ import annotations

import os
import ssl
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)

from arobust_otel.agent.client.encode import Part, encode
from arobust_otel.agent.client.http_transport import HttpTransport
from arobust_otel.agent.client.transport import PoisonedBatch
from arobust_otel.errors import ConfigurationError, PermanentDelivery, RetryableDelivery
from arobust_otel.model import signals
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import LogLine, Point
from arobust_otel.model.wire_names import BATCH_ID_HEADER
from tests.agent import certificates
from tests.agent.clients import client
from tests.agent.counting_proxy import CountingProxy
from tests.agent.server import Answer, MasterDouble, free_port, running
from tests.trickling import trickling

JOB = JobIdentity("job-1", 0, "host-a")


def metrics(value: int = 1) -> Any:
    return encode("metrics", [Part(Point(signals.STEP, value, value), JOB, 0)]).payload


def lines(*bodies: str) -> Any:
    return encode("logs", [Part(LogLine(body, 1, "/train.log", 0), JOB, 0) for body in bodies]).payload


def way(url: str) -> closing[HttpTransport]:
    return closing(HttpTransport(url, 5.0))


def values(master: MasterDouble) -> list[float]:
    return [value for _, value, _ in master.points()]


def test_every_request_carries_the_id_of_its_batch_and_only_that() -> None:
    with running() as master, way(master.url) as transport:
        transport.send("metrics", metrics(), 5.0, "a" * 32)
        transport.send("logs", lines("one"), 5.0, "b" * 32)
        transport.send("metrics", metrics(), 5.0)
        assert [headers.get(BATCH_ID_HEADER) for headers in master.headers] == ["a" * 32, "b" * 32, None]
        assert {headers["content-type"] for headers in master.headers} == {"application/x-protobuf"}
        assert len(set(master.peers)) == 1  # one connection serves all signals


@pytest.mark.parametrize("compression", ["", "gzip", "deflate", "none"])
def test_bytes_are_counted_before_and_after_compression(
    compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
    with running(script=lambda signal, body: Answer(429)) as master, way(master.url) as transport:
        for _ in range(2):
            with pytest.raises(RetryableDelivery):
                transport.send("logs", lines("x" * 100_000), 5.0)
        assert transport.bytes_sent == sum(int(headers["content-length"]) for headers in master.headers)
        assert 200_000 < transport.bytes_raw < 202_000
        assert transport.bytes_sent < 5_000 or compression == "none"
        asked = {"": "gzip", "none": None}.get(compression, compression)
        assert {headers.get("content-encoding") for headers in master.headers} == {asked}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, PermanentDelivery),
        (308, PermanentDelivery),
        (400, PoisonedBatch),
        (401, PermanentDelivery),
        (404, PermanentDelivery),
        (408, RetryableDelivery),
        (413, PoisonedBatch),
        (422, PoisonedBatch),
        (429, RetryableDelivery),
        (500, PermanentDelivery),
        (502, RetryableDelivery),
        (503, RetryableDelivery),
        (504, RetryableDelivery),
    ],
)
def test_each_status_says_what_becomes_of_the_batch(status: int, error: type[Exception]) -> None:
    headers = {"location": "http://127.0.0.1:1/"} if status < 400 else {}
    with running(script=lambda signal, body: Answer(status, headers=headers)) as master:
        with way(master.url) as transport, pytest.raises(error) as caught:
            transport.send("metrics", metrics(), 5.0)
        assert type(caught.value) is error
        assert len(master.seen) == 1  # one call is one try


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("3600", 60.0), ("soon", None)])
def test_a_hint_is_read_and_bounded(header: str, seconds: float | None) -> None:
    answer = Answer(503, headers={"Retry-After": header})
    with (
        running(script=lambda signal, body: answer) as master,
        way(master.url) as transport,
        pytest.raises(RetryableDelivery) as caught,
    ):
        transport.send("metrics", metrics(), 5.0)
    assert caught.value.retry_after_seconds == seconds


def test_a_partial_success_is_read() -> None:
    partial = ExportMetricsPartialSuccess(rejected_data_points=3, error_message="too old")
    body = ExportMetricsServiceResponse(partial_success=partial).SerializeToString()
    with running(script=lambda signal, _: Answer(body=body)) as master, way(master.url) as transport:
        answer = transport.send("metrics", metrics(), 5.0)
    assert (answer.rejected, answer.message) == (3, "too old")


def test_a_server_that_does_not_answer_costs_the_deadline_and_no_more() -> None:
    hold = threading.Event()
    with running(script=lambda signal, body: Answer(hold=hold)) as master, way(master.url) as transport:
        started = time.monotonic()
        with pytest.raises(RetryableDelivery):
            transport.send("metrics", metrics(), 0.3)
        assert 0.25 < time.monotonic() - started < 4
        hold.set()


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"],
)
def test_a_peer_that_sends_byte_by_byte_costs_the_deadline_and_no_more(head: bytes) -> None:
    with trickling(head) as port, way(f"http://127.0.0.1:{port}") as transport:
        started = time.monotonic()
        with pytest.raises(RetryableDelivery):
            transport.send("metrics", metrics(), 0.5)
        assert 0.4 < time.monotonic() - started < 2


def test_a_kept_connection_that_the_server_closed_costs_no_try() -> None:
    port = free_port()
    with way(f"http://127.0.0.1:{port}") as transport:
        for value in (1, 2):
            with running(port) as master:
                transport.send("metrics", metrics(value), 5.0)
                assert values(master) == [value]
        with pytest.raises(RetryableDelivery, match="refused"):
            transport.send("metrics", metrics(3), 5.0)


def test_a_connection_that_was_lost_without_a_word_costs_one_try() -> None:
    with (
        running() as master,
        CountingProxy(master.port) as proxy,
        way(f"http://127.0.0.1:{proxy.port}") as http,
    ):
        http.send("metrics", metrics(1), 5.0)
        proxy.lose_connections()
        with pytest.raises(RetryableDelivery, match="timed out"):
            http.send("metrics", metrics(2), 0.5)
        http.send("metrics", metrics(2), 5.0)
        assert values(master) == [1, 2]


def test_a_proxy_of_the_environment_is_used_and_its_exceptions_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as proxy, running() as master:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with way("http://master.invalid:4318") as transport:
            transport.send("metrics", metrics(1), 5.0)
            transport.send("metrics", metrics(2), 5.0)
        with way(master.url) as transport:
            transport.send("metrics", metrics(3), 5.0)
        assert (values(proxy), values(master)) == ([1, 2], [3])


def test_headers_and_a_password_in_the_address_go_with_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=blue")
    with running() as master, way(master.url.replace("//", "//ann:secret@")) as transport:
        transport.send("metrics", metrics(1), 5.0)
        transport.send("metrics", metrics(2), 5.0)
        assert [(got["x-team"], got["authorization"]) for got in master.headers] == [
            ("blue", "Basic YW5uOnNlY3JldA==")
        ] * 2


def test_a_bare_address_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigurationError, match=r"gRPC.*http://host:4318"):
        HttpTransport("host:4318", 1.0)


# --- TLS ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> certificates.Certificates:
    return certificates.make(tmp_path_factory.mktemp("pki"))


def secured(master: MasterDouble, pki: certificates.Certificates) -> str:
    """The double's URL, now with TLS that wants a certificate of its clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.path("server.pem"), pki.path("server.key"))
    context.load_verify_locations(pki.path("ca.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    master.server.socket = context.wrap_socket(
        master.server.socket, server_side=True, do_handshake_on_connect=False
    )
    return master.url.replace("http:", "https:")


@pytest.mark.parametrize("bundle", ["", "client.pem"])
def test_mutual_tls_also_where_another_bundle_is_named_for_everything_else(
    bundle: str, pki: certificates.Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", pki.path("ca.pem"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", pki.path("client.pem"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", pki.path("client.key"))
    if bundle:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", pki.path(bundle))
    with running() as master, way(secured(master, pki)) as transport:
        transport.send("metrics", metrics(3), 5.0)
        assert values(master) == [3]


def test_each_signal_has_the_certificates_of_its_own_variables(
    pki: certificates.Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", pki.path("ca.pem"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE", pki.path("both.pem"))
    with running() as master, way(secured(master, pki)) as transport:
        transport.send("metrics", metrics(3), 5.0)
        with pytest.raises(RetryableDelivery):
            transport.send("logs", lines("one"), 5.0)  # the server wants a client's certificate
        assert (values(master), master.bodies()) == ([3], [])


def test_a_certificate_that_is_missing_for_a_moment_costs_nothing(
    pki: certificates.Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_bytes(pki.read("ca.pem"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(authority))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", pki.path("both.pem"))
    with running() as master, client(secured(master, pki)) as ours:
        authority.unlink()
        ours.report([Point(signals.STEP, 3, 3)])
        assert not ours.flush(0.3)
        assert ours.stats()["dropped"] == 0
        authority.write_bytes(pki.read("ca.pem"))
        assert ours.flush(10)
        assert values(master) == [3]


def test_a_server_that_nobody_vouches_for_gets_nothing(pki: certificates.Certificates) -> None:
    with running() as master, way(secured(master, pki)) as transport:
        with pytest.raises(RetryableDelivery, match="certificate"):
            transport.send("metrics", metrics(3), 5.0)
        assert values(master) == []


def test_a_peer_that_sends_byte_by_byte_over_tls_costs_the_deadline_too(
    pki: certificates.Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", pki.path("ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.path("server.pem"), pki.path("server.key"))
    with trickling(b"HTTP/1.1 2", context) as port, way(f"https://127.0.0.1:{port}") as transport:
        started = time.monotonic()
        with pytest.raises(RetryableDelivery):
            transport.send("metrics", metrics(), 0.5)
        assert 0.4 < time.monotonic() - started < 2


# --- fork ---------------------------------------------------------------------------------------------------


def test_a_forked_child_opens_its_own_connection_and_leaves_the_parents_alone() -> None:
    with running() as master, way(master.url) as transport:
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
        assert values(master) == [1, 2, 3]
        first, second, third = master.peers
        assert first == third != second
