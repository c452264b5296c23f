"""The HTTP surface over a real socket: what a client of OTLP may expect, and what a hostile one gets."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from google.protobuf import json_format
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from arobust_otel.journal import Kind
from arobust_otel.model.heartbeat import PATH, Command, Heartbeat, decode_reply, encode
from tests.receiver.serving import Receiver, receiving


def metrics(points: int = 3, name: str = "a.metric") -> bytes:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=name)
    for number in range(points):
        metric.gauge.data_points.add(time_unix_nano=1, as_int=number)
    return request.SerializeToString()


def heartbeat(**changes: object) -> bytes:
    values = {
        "agent": "node-a/job-1",
        "job_id": "job-1",
        "incarnation": 0,
        "sequence": 1,
        "host": "node-a",
        "time_ns": 1,
        "interval_seconds": 2.0,
        "world_size": 4,
        **changes,
    }
    return encode(Heartbeat(**values))  # type: ignore[arg-type]


def until_closed(connection: socket.socket) -> bytes:
    """Everything that the server sends before it closes."""
    text = b""
    while part := connection.recv(65536):
        text += part
    return text


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with receiving(tmp_path / "journal") as served:
        yield served


# -- what is accepted ----------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
def test_an_empty_request_is_fine_for_every_signal(receiver: Receiver, signal: str) -> None:
    status, headers, body = receiver.post(f"/v1/{signal}", b"")
    assert (status, body) == (200, b"")
    assert headers["content-type"] == "application/x-protobuf"


def test_a_request_is_in_the_journal_byte_for_byte_when_it_is_acknowledged(receiver: Receiver) -> None:
    status, _, body = receiver.post("/v1/metrics", metrics())
    assert (status, body) == (200, b"")
    (record,) = receiver.records()
    assert (record.kind, record.signal, record.sender) == (Kind.REQUEST, "metrics", "127.0.0.1")
    assert record.payload == metrics()


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("gzip", gzip.compress(metrics())),
        ("GZIP", gzip.compress(metrics())),
        ("deflate", zlib.compress(metrics())),
        ("identity", metrics()),
        ("gzip", gzip.compress(metrics()[:7]) + gzip.compress(metrics()[7:])),
    ],
)
def test_compressed_bodies_are_journaled_plain(receiver: Receiver, name: str, encoded: bytes) -> None:
    assert receiver.post("/v1/metrics", encoded, content_encoding=name)[0] == 200
    assert receiver.records()[0].payload == metrics()


def test_json_is_converted_on_entry_and_answered_in_json(receiver: Receiver) -> None:
    text = json_format.MessageToJson(ExportMetricsServiceRequest.FromString(metrics()))
    status, headers, body = receiver.post(
        "/v1/metrics", text.encode(), content_type="application/json; charset=utf-8"
    )
    assert (status, json.loads(body), headers["content-type"]) == (200, {}, "application/json")
    assert receiver.records()[0].payload == metrics()


def test_a_chunked_body_without_length_is_read(receiver: Receiver) -> None:
    with contextlib.closing(receiver.connect()) as connection:
        parts = iter([metrics()[:5], metrics()[5:]])
        connection.request(
            "POST", "/v1/metrics", parts, {"content-type": "application/x-protobuf"}, encode_chunked=True
        )
        assert connection.getresponse().status == 200
    assert receiver.records()[0].payload == metrics()


def test_a_connection_is_used_again_and_pipelined(receiver: Receiver) -> None:
    head = b"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
    one = head + b"content-length: %d\r\n\r\n" % len(metrics()) + metrics()
    with socket.create_connection(("127.0.0.1", receiver.port), 10) as connection:
        connection.sendall(one * 3)
        text = b""
        while text.count(b"HTTP/1.1 200 OK") < 3:
            part = connection.recv(65536)
            assert part, text
            text += part
    assert len(receiver.records()) == 3


def test_expect_100_continue_is_answered(receiver: Receiver) -> None:
    head = b"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
    head += b"expect: 100-continue\r\n"
    with socket.create_connection(("127.0.0.1", receiver.port), 10) as connection:
        connection.sendall(head + b"content-length: %d\r\n\r\n" % len(metrics()))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(metrics())
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_what_is_bad_for_ever_is_cut_out_and_said(receiver: Receiver) -> None:
    request = ExportMetricsServiceRequest.FromString(metrics(2))
    bad = request.resource_metrics[0].scope_metrics[0].metrics.add(name="b.sum")
    bad.sum.data_points.add(as_int=1)
    status, _, body = receiver.post("/v1/metrics", request.SerializeToString())
    partial = ExportMetricsServiceResponse.FromString(body).partial_success
    assert (status, partial.rejected_data_points) == (200, 1)
    assert "b.sum" in partial.error_message
    kept = ExportMetricsServiceRequest.FromString(receiver.records()[0].payload)
    assert [m.name for m in kept.resource_metrics[0].scope_metrics[0].metrics] == ["a.metric"]


# -- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/v1/metrics", b"\xff\xff\xff", {}, 400),
        ("/v1/metrics", b"{", {"content_type": "application/json"}, 400),
        ("/v1/metrics", b"no gzip", {"content_encoding": "gzip"}, 400),
        ("/v1/metrics", gzip.compress(metrics()) + b"tail", {"content_encoding": "gzip"}, 400),
        ("/v1/metrics", gzip.compress(metrics())[:-9], {"content_encoding": "gzip"}, 400),
        ("/v1/metrics", metrics(), {"content_encoding": "br"}, 415),
        ("/v1/metrics", metrics(), {"content_type": "text/plain"}, 415),
        ("/v1/profiles", metrics(), {}, 404),
        ("/v1development/profiles", b"", {}, 404),
        (PATH, heartbeat(), {}, 415),
        (PATH, b"[]", {"content_type": "application/json"}, 400),
        (PATH, b"[" * 100_000, {"content_type": "application/json"}, 400),
        (PATH, heartbeat(agent=""), {"content_type": "application/json"}, 400),
    ],
)
def test_the_status_says_what_is_wrong_in_the_encoding_of_the_request(
    receiver: Receiver, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    got, answered, text = receiver.post(path, body, **headers)
    assert got == status
    if headers.get("content_type", "application/x-protobuf") == "application/x-protobuf":
        assert answered["content-type"] == "application/x-protobuf"
        assert Status.FromString(text).message
    else:
        assert json.loads(text)["message"]
    assert not receiver.records()
    assert receiver.post("/v1/metrics", metrics())[0] == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_not_a_success(receiver: Receiver, method: str) -> None:
    with contextlib.closing(receiver.connect()) as connection:
        connection.request(method, "/v1/metrics")
        answer = connection.getresponse()
        assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_health_is_answered(receiver: Receiver) -> None:
    with contextlib.closing(receiver.connect()) as connection:
        connection.request("GET", "/healthz")
        assert json.loads(connection.getresponse().read()) == {"status": "ok"}


def test_a_body_over_the_limit_is_413_declared_or_not(tmp_path: Path) -> None:
    with receiving(tmp_path / "journal", body_bytes=1000) as receiver:
        assert receiver.post("/v1/metrics", bytes(2000))[0] == 413
        with contextlib.closing(receiver.connect()) as connection:
            headers = {"content-type": "application/x-protobuf"}
            connection.request("POST", "/v1/metrics", iter([bytes(600)] * 3), headers, encode_chunked=True)
            assert connection.getresponse().status == 413
        assert receiver.post("/v1/metrics", metrics())[0] == 200


def test_a_client_that_still_sends_reads_the_413(receiver: Receiver) -> None:
    size = receiver.limits.body_bytes + 1
    head = b"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
    with socket.create_connection(("127.0.0.1", receiver.port), 10) as connection:
        connection.sendall(head + b"content-length: %d\r\n\r\n" % size + bytes(1024 * 1024))
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_json_of_countless_objects_is_413(receiver: Receiver) -> None:
    body = b'{"resourceLogs":[' + b",".join([b"{}"] * 500_001) + b"]}"
    status, _, answer = receiver.post("/v1/logs", body, content_type="application/json")
    assert status == 413
    assert "500002 JSON objects" in json.loads(answer)["message"]


@pytest.mark.parametrize("bytes_in_flight", [100, 50_000])
def test_a_bomb_is_413_and_never_inflated_whole(tmp_path: Path, bytes_in_flight: int) -> None:
    bomb = gzip.compress(bytes(50 * 1024 * 1024))
    with receiving(tmp_path / "journal", body_bytes=1024 * 1024, inline_bytes=bytes_in_flight) as receiver:
        assert receiver.post("/v1/metrics", bomb, content_encoding="gzip")[0] == 413


def test_a_large_body_is_checked_in_a_thread_and_journaled(receiver: Receiver) -> None:
    large = metrics(points=40_000)
    assert len(large) > receiver.limits.inline_bytes
    assert receiver.post("/v1/metrics", gzip.compress(large), content_encoding="gzip")[0] == 200
    assert receiver.records()[0].payload == large


def test_too_many_bytes_in_flight_are_503_before_the_body_is_read(tmp_path: Path) -> None:
    with receiving(tmp_path / "journal", in_flight_bytes=1000) as receiver:
        head = b"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
        with socket.create_connection(("127.0.0.1", receiver.port), 10) as slow:
            slow.sendall(head + b"content-length: 900\r\n\r\nx")
            while not receiver.app.counts()["in_flight_bytes"]:
                pass
            status, headers, _ = receiver.post("/v1/metrics", bytes(200))
            assert (status, headers["retry-after"]) == (503, "2")


# -- slow and broken clients ---------------------------------------------------------------------------


def test_a_body_that_never_ends_is_408_and_holds_nothing(tmp_path: Path) -> None:
    with receiving(tmp_path / "journal", body_idle_seconds=0.2) as receiver:
        head = b"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
        with socket.create_connection(("127.0.0.1", receiver.port), 10) as connection:
            connection.sendall(head + b"content-length: 900\r\n\r\nx")
            assert until_closed(connection).startswith(b"HTTP/1.1 408")
        assert receiver.app.counts()["in_flight_bytes"] == 0


def test_a_drip_of_bytes_does_not_extend_the_deadline_of_the_body(tmp_path: Path) -> None:
    with receiving(tmp_path / "journal", body_idle_seconds=5, body_seconds=0.5) as receiver:
        head = b"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
        with socket.create_connection(("127.0.0.1", receiver.port), 10) as connection:
            connection.sendall(head + b"content-length: 900\r\n\r\n")
            stop = threading.Event()

            def drip() -> None:
                with contextlib.suppress(OSError):
                    while not stop.wait(0.05):
                        connection.sendall(b"x")

            thread = threading.Thread(target=drip)
            thread.start()
            try:
                assert connection.recv(1000).startswith(b"HTTP/1.1 408")
            finally:
                stop.set()
                thread.join()


@pytest.mark.parametrize("begin", [b"", b"POST /v1/metrics HTTP/1.1\r\nhost:"])
def test_a_header_that_never_ends_is_cut_off(tmp_path: Path, begin: bytes) -> None:
    with (
        receiving(tmp_path / "journal", header_seconds=0.3) as receiver,
        socket.create_connection(("127.0.0.1", receiver.port), 10) as connection,
    ):
        connection.sendall(begin)
        assert connection.recv(1000) == b""


def test_a_header_without_end_is_cut_off(receiver: Receiver) -> None:
    with socket.create_connection(("127.0.0.1", receiver.port), 10) as connection:
        connection.sendall(b"POST /v1/metrics HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            for number in range(5000):
                connection.sendall(b"x-%d: %s\r\n" % (number, b"y" * 200))
        with contextlib.suppress(ConnectionError):
            assert connection.recv(100).startswith(b"HTTP/1.1 4")


def test_connections_over_the_cap_are_503(tmp_path: Path) -> None:
    with receiving(tmp_path / "journal", connections=3) as receiver, contextlib.ExitStack() as stack:
        for _ in range(3):
            held = stack.enter_context(contextlib.closing(receiver.connect()))
            held.request("GET", "/healthz")
            assert held.getresponse().read()
        with socket.create_connection(("127.0.0.1", receiver.port), 10) as one_more:
            assert one_more.recv(1000).startswith(b"HTTP/1.1 503")


def test_a_client_that_goes_away_in_its_body_harms_nobody(receiver: Receiver) -> None:
    head = b"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", receiver.port), 10) as connection:
            connection.sendall(head + b"content-length: 900\r\n\r\nx")
    assert receiver.post("/v1/metrics", metrics())[0] == 200
    assert len(receiver.records()) == 1


def test_garbage_is_400_and_closed(receiver: Receiver) -> None:
    with socket.create_connection(("127.0.0.1", receiver.port), 10) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00 this is no HTTP\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")


# -- many clients, authorisation, the end --------------------------------------------------------------


def test_many_clients_share_few_commits_and_lose_nothing(receiver: Receiver) -> None:
    def client(number: int) -> list[int]:
        with contextlib.closing(receiver.connect()) as connection:
            statuses = []
            for index in range(10):
                headers = {"content-type": "application/x-protobuf"}
                connection.request("POST", "/v1/metrics", metrics(name=f"m.{number}.{index}"), headers)
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
            return statuses

    with ThreadPoolExecutor(32) as pool:
        results = list(pool.map(client, range(32)))
    assert all(status == 200 for statuses in results for status in statuses)
    payloads = {record.payload for record in receiver.records()}
    assert payloads == {metrics(name=f"m.{n}.{i}") for n in range(32) for i in range(10)}
    assert receiver.commit.commits < 320


def test_a_token_is_asked_for_and_compared(tmp_path: Path) -> None:
    with receiving(tmp_path / "journal", token="secret") as receiver:
        status, headers, _ = receiver.post("/v1/metrics", metrics())
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert receiver.post("/v1/metrics", metrics(), authorization="Bearer wrong")[0] == 401
        assert receiver.post(PATH, heartbeat(), content_type="application/json")[0] == 401
        assert receiver.post("/v1/metrics", metrics(), authorization="bearer secret")[0] == 200


def test_while_draining_new_requests_are_sent_away(receiver: Receiver) -> None:
    receiver.app.draining = True
    status, headers, body = receiver.post("/v1/metrics", metrics())
    assert (status, headers["retry-after"]) == (503, "2")
    assert "end" in Status.FromString(body).message


def test_a_full_journal_is_503_and_not_acknowledged(receiver: Receiver) -> None:
    receiver.appender.close()
    assert receiver.post("/v1/metrics", metrics())[0] == 503


# -- heartbeats and commands ---------------------------------------------------------------------------


def a_command(**changes: object) -> Command:
    values = {
        "id": "c1",
        "kind": "capture_stacks",
        "agent": "node-a/job-1",
        "job_id": "job-1",
        "incarnation": 0,
        "expires_in_seconds": 20.0,
        "ranks": (2,),
        **changes,
    }
    return Command(**values)  # type: ignore[arg-type]


def beat(receiver: Receiver, **changes: object) -> list[str]:
    status, _, body = receiver.post(PATH, heartbeat(**changes), content_type="application/json")
    assert status == 200
    return [command.id for command in decode_reply(body).commands]


def test_a_command_is_given_out_once_to_its_agent(receiver: Receiver) -> None:
    receiver.call(receiver.intake.output(b"{}", a_command()))
    assert beat(receiver, agent="other/job-1") == []
    assert beat(receiver) == ["c1"]
    assert beat(receiver) == []
    assert [record.kind for record in receiver.records()].count(Kind.HEARTBEAT) == 3


@pytest.mark.parametrize(
    ("command", "age_seconds", "heard"),
    [
        (a_command(expires_in_seconds=20.0), 21.0, {}),
        (a_command(incarnation=1), 0.0, {}),
        (a_command(), 0.0, {"final": True}),
    ],
)
def test_what_is_expired_or_meant_for_another_attempt_is_never_sent(
    receiver: Receiver, command: Command, age_seconds: float, heard: dict[str, object]
) -> None:
    receiver.call(receiver.intake.output(b"{}", command, age_seconds))
    assert beat(receiver, **heard) == []
    assert receiver.app.counts()["expired_commands"] == 1
