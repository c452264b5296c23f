"""No connection stands for ever: each moment between two requests has a deadline, and the right one."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.receiver.serving import Receiver, receiving
from tests.receiver.test_http import metrics

HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
UNKNOWN = b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n"
NO_TOKEN = b"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
UPGRADE = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
HEAD = b"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
SHORT, LONG = 0.4, 30


@contextlib.contextmanager
def connected(receiver: Receiver) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", receiver.port), 10) as connection:
        yield connection


def answers(connection: socket.socket, request: bytes, count: int = 1) -> list[int]:
    """The statuses of so many answers, each read to its end."""
    connection.sendall(request)
    statuses = []
    with connection.makefile("rb") as file:
        for _ in range(count):
            statuses.append(int(file.readline().split()[1]))
            headers = http.client.parse_headers(file)
            file.read(int(headers["content-length"]))
    return statuses


def stands(connection: socket.socket, seconds: float) -> bool:
    """Whether the server keeps it open for so long; it says nothing meanwhile."""
    connection.settimeout(seconds)
    try:
        text = connection.recv(65536)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(10)
    assert text == b""
    return False


@pytest.mark.parametrize(
    "request_", [HEALTH, UNKNOWN, NO_TOKEN, UPGRADE], ids=["health", "404", "401", "upgrade"]
)
@pytest.mark.parametrize("between", [b"\r\n", b"\n", b"\r\n" * 50], ids=["crlf", "lf", "many"])
def test_line_ends_between_requests_do_not_keep_a_connection(
    tmp_path: Path, request_: bytes, between: bytes
) -> None:
    with (
        receiving(tmp_path, token="secret", header_seconds=SHORT, idle_seconds=LONG) as receiver,
        connected(receiver) as connection,
    ):
        answers(connection, request_)
        connection.sendall(between)
        assert not stands(connection, 5)


def test_more_line_ends_do_not_extend_the_deadline(tmp_path: Path) -> None:
    with (
        receiving(tmp_path, header_seconds=1.0, idle_seconds=LONG) as receiver,
        connected(receiver) as connection,
    ):
        answers(connection, HEALTH)
        begin = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - begin < 5:
                connection.sendall(b"\r\n")
                if not stands(connection, 0.05):
                    break
        assert 0.8 < time.monotonic() - begin < 4


def test_a_request_may_follow_line_ends(tmp_path: Path) -> None:
    with (
        receiving(tmp_path, header_seconds=1.0, idle_seconds=LONG) as receiver,
        connected(receiver) as connection,
    ):
        for _ in range(3):
            answers(connection, HEALTH)
            connection.sendall(b"\r\n")
            assert stands(connection, 0.5)  # its time begins anew with each request
        answers(connection, HEALTH)
        assert stands(connection, 1.5)


@pytest.mark.parametrize(
    "requests",
    [HEALTH, HEALTH * 3, b"\r\n" + HEALTH, HEALTH + b"\r\n"],
    ids=["one", "pipelined", "behind", "before"],
)
def test_an_idle_connection_lives_longer_than_a_header_may_take(tmp_path: Path, requests: bytes) -> None:
    with (
        receiving(tmp_path, header_seconds=SHORT, idle_seconds=2) as receiver,
        connected(receiver) as connection,
    ):
        begin = time.monotonic()
        assert set(answers(connection, requests, requests.count(b"GET"))) == {200}
        assert stands(connection, 1.5)
        assert not stands(connection, 5)
        assert 1.8 < time.monotonic() - begin < 5


def test_so_does_one_whose_body_came_after_its_answer(tmp_path: Path) -> None:
    with (
        receiving(tmp_path, token="secret", header_seconds=SHORT, idle_seconds=2) as receiver,
        connected(receiver) as connection,
    ):
        assert answers(connection, HEAD + b"content-length: 10\r\n\r\nx") == [401]
        connection.sendall(b"x" * 9)
        begin = time.monotonic()
        assert stands(connection, 1.5)
        assert not stands(connection, 5)
        assert 1.8 < time.monotonic() - begin < 5


def test_the_deadline_of_a_late_body_is_not_that_of_a_pipelined_request(tmp_path: Path) -> None:
    body = metrics()
    with receiving(tmp_path, drain_seconds=SHORT) as receiver, connected(receiver) as connection:
        begun = HEAD + b"content-length: %d\r\n\r\n" % len(body) + body[:1]
        assert answers(connection, HEALTH + begun) == [200]
        assert stands(connection, 1.0)
        assert answers(connection, body[1:]) == [200]
        assert [record.payload for record in receiver.records()] == [body]
