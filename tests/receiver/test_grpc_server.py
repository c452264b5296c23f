"""OTLP/gRPC over a real socket: what clients may expect, what a hostile one gets, what HTTP shares."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub

from arobust_otel.checked import Address
from arobust_otel.journal import Kind
from arobust_otel.receiver.grpc_server import SERVICES, GrpcServer, peer_address
from arobust_otel.receiver.server import Tls
from tests.agent import certificates
from tests.receiver.serving import METHODS, Receiver, exporting, receiving
from tests.receiver.test_http import metrics

LARGE = 10 * 1024 * 1024


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with receiving(tmp_path / "journal") as served:
        yield served


def refused(call: Any, *arguments: Any, **named: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, timeout=20, **named)
    return caught.value


def status_of(error: grpc.RpcError) -> Status:
    """google.rpc.Status in the trailers, where most clients look for details."""
    return Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])


def detail(error: grpc.RpcError, kind: type[Message]) -> Any:
    found = kind()
    assert any(entry.Unpack(found) for entry in status_of(error).details), status_of(error)
    return found


def retry_seconds(error: grpc.RpcError) -> tuple[int, int]:
    """Both forms in which clients look for it."""
    trailer = RetryInfo.FromString(dict(error.trailing_metadata())["google.rpc.retryinfo-bin"])
    return detail(error, RetryInfo).retry_delay.seconds, trailer.retry_delay.seconds


# -- what is accepted ----------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
def test_an_empty_request_is_fine_for_every_signal(receiver: Receiver, signal: str) -> None:
    assert receiver.export(signal, b"") == b""
    assert receiver.records() == []


def test_the_services_are_the_official_ones() -> None:
    assert sorted(METHODS.values()) == [
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    ]


def test_the_official_stub_gets_its_answer(receiver: Receiver) -> None:
    with receiver.channel() as channel:
        answer = MetricsServiceStub(channel).Export(ExportMetricsServiceRequest.FromString(metrics()))
    assert answer == ExportMetricsServiceResponse()
    (record,) = receiver.records()
    assert (record.kind, record.signal, record.sender) == (Kind.REQUEST, "metrics", "127.0.0.1")


def test_the_journal_has_the_bytes_as_they_came(receiver: Receiver) -> None:
    body = metrics() + b"\xfa\x7f\x03abc"  # a field that no version knows yet
    assert receiver.export("metrics", body) == b""
    assert [record.payload for record in receiver.records()] == [body]


@pytest.mark.parametrize("compression", list(grpc.Compression))
def test_ten_mebibytes_arrive_compressed_or_not(receiver: Receiver, compression: grpc.Compression) -> None:
    body = metrics(name="m" * LARGE)
    with receiver.channel() as channel:
        exporting(channel, "metrics")(body, compression=compression, timeout=30)
    assert [record.payload for record in receiver.records()] == [body]


def test_what_is_bad_for_ever_is_cut_out_and_said(receiver: Receiver) -> None:
    request = ExportMetricsServiceRequest.FromString(metrics(2))
    request.resource_metrics[0].scope_metrics[0].metrics.add(name="b.sum").sum.data_points.add(as_int=1)
    answer = receiver.export("metrics", request.SerializeToString())
    partial = ExportMetricsServiceResponse.FromString(answer).partial_success
    assert (partial.rejected_data_points, "b.sum" in partial.error_message) == (1, True)
    assert receiver.intake.counts.status()["rejected_items"] == 1


# -- what is refused -----------------------------------------------------------------------------------


def test_a_bad_message_is_invalid_and_says_why(receiver: Receiver) -> None:
    with receiver.channel() as channel:
        error = refused(exporting(channel, "metrics"), b"\xff" * 10)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert status_of(error).code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "not an OTLP request" in detail(error, BadRequest).field_violations[0].description
    assert "google.rpc.retryinfo-bin" not in dict(error.trailing_metadata())


def test_a_long_reason_fits_into_the_trailers(receiver: Receiver) -> None:
    request = ExportMetricsServiceRequest()
    bad = request.resource_metrics.add().scope_metrics.add().metrics.add(name="ü" * 20_000)
    bad.sum.data_points.add(as_int=1)
    answer = receiver.export("metrics", request.SerializeToString())
    assert "ü" in ExportMetricsServiceResponse.FromString(answer).partial_success.error_message


def test_a_message_over_the_limit_is_refused_before_and_after_inflating(tmp_path: Path) -> None:
    with receiving(tmp_path / "journal", body_bytes=100_000) as receiver, receiver.channel() as channel:
        call = exporting(channel, "metrics")
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            error = refused(call, metrics(name="m" * 200_000), compression=compression)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "google.rpc.retryinfo-bin" not in dict(error.trailing_metadata())
        assert call(metrics(), timeout=20) == b""


@pytest.mark.parametrize(
    "method",
    [
        "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Import",
        "/an.other.Service/Export",
    ],
)
def test_what_is_not_served_is_unimplemented(receiver: Receiver, method: str) -> None:
    with receiver.channel() as channel:
        assert refused(channel.unary_unary(method), b"").code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_token_is_asked_for_before_the_message_is_read(tmp_path: Path) -> None:
    with receiving(tmp_path / "journal", token="secret") as receiver, receiver.channel() as channel:
        call = exporting(channel, "metrics")
        for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", "secret"),)):
            error = refused(call, metrics(name="m" * LARGE), metadata=metadata)
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert call(metrics(), metadata=(("authorization", "bearer secret"),), timeout=20) == b""
        rows = receiver.intake.counts.status()["requests"]
    assert [(row["result"], row["status"], row["count"]) for row in rows] == [
        ("accepted", "", 1),
        ("refused", "UNAUTHENTICATED", 3),
    ]


def test_overload_is_unavailable_with_both_hints(tmp_path: Path) -> None:
    with receiving(tmp_path / "journal", in_flight_bytes=50) as receiver, receiver.channel() as channel:
        error = refused(exporting(channel, "metrics"), metrics(20))
        assert (error.code(), retry_seconds(error)) == (grpc.StatusCode.UNAVAILABLE, (2, 2))
        assert receiver.app.budget.held_bytes == 0


def test_a_journal_that_takes_nothing_is_unavailable(receiver: Receiver) -> None:
    receiver.appender.close()
    with receiver.channel() as channel:
        error = refused(exporting(channel, "metrics"), metrics())
    assert (error.code(), retry_seconds(error)) == (grpc.StatusCode.UNAVAILABLE, (2, 2))


def test_a_call_without_a_message_is_invalid(receiver: Receiver) -> None:
    with receiver.channel() as channel:
        error = refused(channel.stream_unary(METHODS["metrics"]), iter(()))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_message_that_does_not_come_is_given_up(tmp_path: Path) -> None:
    with receiving(tmp_path / "journal", body_seconds=0.2) as receiver, receiver.channel() as channel:
        silent = threading.Event()

        def never() -> Iterator[bytes]:
            silent.wait(20)
            yield b""

        error = refused(channel.stream_unary(METHODS["metrics"]), never())
        silent.set()
        assert (error.code(), error.details()) == (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "the message did not arrive in time",
        )


def test_few_messages_are_read_at_one_time(tmp_path: Path) -> None:
    with (
        receiving(tmp_path / "journal", grpc_reads=1, drain_seconds=0.2) as receiver,
        receiver.channel() as channel,
    ):
        silent = threading.Event()

        def late() -> Iterator[bytes]:
            silent.wait(20)
            yield metrics()

        slow = channel.stream_unary(METHODS["metrics"]).future(late(), timeout=30)
        deadline = time.monotonic() + 20
        while not receiver.grpc_app._reads.locked():
            assert time.monotonic() < deadline
        error = refused(exporting(channel, "metrics"), metrics())
        assert (error.code(), retry_seconds(error)) == (grpc.StatusCode.UNAVAILABLE, (2, 2))
        silent.set()
        assert slow.result() == b""


def test_many_calls_over_one_connection_are_all_taken(receiver: Receiver) -> None:
    """gRPC counts an ended call as open for a moment: its limit per connection must leave room for these."""
    with receiver.channel() as channel, ThreadPoolExecutor(128) as callers:
        export = exporting(channel, "metrics")
        calls = [callers.submit(export, metrics(), timeout=60) for _ in range(800)]
        assert [call.exception() for call in calls] == [None] * 800
    assert sum(record.kind == Kind.REQUEST for record in receiver.records()) == 800


def test_a_client_that_goes_away_harms_nobody(receiver: Receiver) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", receiver.grpc_port), 10) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 40)
    with receiver.channel() as channel:
        for _ in range(20):
            exporting(channel, "metrics").future(metrics(), timeout=20).cancel()
    assert receiver.export("metrics", metrics(name="after")) == b""
    assert metrics(name="after") in [record.payload for record in receiver.records()]


def test_clients_may_ping_as_they_like(receiver: Receiver) -> None:
    """Each ping would be a strike by default, and the third ends the connection."""
    often = {
        "keepalive_time_ms": 50,
        "keepalive_permit_without_calls": 1,
        "http2.max_pings_without_data": 0,
    }
    with receiver.channel(**often) as channel:
        call = exporting(channel, "metrics")
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append)
        call(b"", timeout=20)
        time.sleep(1.0)  # twenty pings
        call(b"", timeout=20)
    assert states.count(grpc.ChannelConnectivity.READY) == 1


# -- health, drain, TLS --------------------------------------------------------------------------------


def health_of(channel: grpc.Channel, service: str) -> int:
    return int(HealthStub(channel).Check(HealthCheckRequest(service=service), timeout=20).status)


def test_health_is_told_without_a_token_for_every_service(tmp_path: Path) -> None:
    with receiving(tmp_path / "journal", token="secret") as receiver, receiver.channel() as channel:
        assert {health_of(channel, name) for name in ("", *SERVICES)} == {HealthCheckResponse.SERVING}
        error = refused(HealthStub(channel).Check, HealthCheckRequest(service="an.other.Service"))
        assert error.code() is grpc.StatusCode.NOT_FOUND


def test_while_draining_new_calls_are_sent_away_and_those_in_flight_answered(receiver: Receiver) -> None:
    with receiver.channel() as channel:
        begun, go = threading.Event(), threading.Event()

        def slowly() -> Iterator[bytes]:
            begun.set()
            go.wait(20)
            yield metrics()

        running = channel.stream_unary(METHODS["metrics"]).future(slowly(), timeout=30)
        assert begun.wait(20)
        deadline = time.monotonic() + 20
        while receiver.grpc_app.idle.is_set():
            assert time.monotonic() < deadline
        watched = HealthStub(channel).Watch(HealthCheckRequest(), timeout=20)
        assert next(watched).status == HealthCheckResponse.SERVING
        receiver.call(receiver.grpc.drain())
        assert next(watched).status == HealthCheckResponse.NOT_SERVING
        watched.cancel()
        error = refused(exporting(channel, "metrics"), metrics())
        assert (error.code(), retry_seconds(error)) == (grpc.StatusCode.UNAVAILABLE, (2, 2))
        assert not receiver.grpc_app.idle.is_set()
        go.set()
        assert running.result() == b""
    assert [record.payload for record in receiver.records()] == [metrics()]


def test_tls_with_the_files_of_http(tmp_path: Path) -> None:
    made = certificates.make(tmp_path)
    tls = Tls(made.path("server.pem"), made.path("server.key"))
    with receiving(tmp_path / "journal", tls=tls) as receiver:
        credentials = grpc.ssl_channel_credentials(made.read("ca.pem"))
        with grpc.secure_channel(f"localhost:{receiver.grpc_port}", credentials) as channel:
            assert exporting(channel, "metrics")(metrics(), timeout=20) == b""
        with receiver.channel() as plain:
            assert refused(exporting(plain, "metrics"), metrics()).code() is grpc.StatusCode.UNAVAILABLE


def test_a_port_that_is_taken_is_said(receiver: Receiver) -> None:
    for port in (receiver.grpc_port, receiver.port):
        second = GrpcServer(receiver.grpc_app, Address("127.0.0.1", port), receiver.limits)
        with pytest.raises(OSError, match=f"{port} cannot be bound"):
            receiver.call(second.start())


def test_a_port_that_is_held_but_not_listened_on_can_be_served(receiver: Receiver) -> None:
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        server = GrpcServer(receiver.grpc_app, Address(*held.getsockname()), receiver.limits)
        for _ in range(2):  # again after it ended
            receiver.call(server.start())
            with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                assert exporting(channel, "metrics")(b"", timeout=20) == b""
            receiver.call(server.stop())


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:4711", "10.0.0.1"),
        ("ipv6:%5B2001:db8::1%5D:4711", "2001:db8::1"),
        ("ipv6:[::1]:4711", "::1"),
        ("unix:", "unix"),
    ],
)
def test_peers_are_named_by_address(peer: str, address: str) -> None:
    assert peer_address(peer) == address
