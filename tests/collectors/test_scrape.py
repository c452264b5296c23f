"""Answers that a server should not give, from real sockets: none of them becomes a figure."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from arobust_otel.agent.data_collector import MetricCollector
from arobust_otel.collectors import scrape as scraping
from arobust_otel.collectors.scrape import scrape
from arobust_otel.collectors.xpu_timer import XpuTimerCollector
from arobust_otel.plugins import Clock, Node

LINE = b'XPU_TIMER_COLL_KERNEL_P99_LATENCY{local_rank="0",operation="AllGather",rank="0"} 772\n'
OK = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def answering(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """Each connection is answered by `talk` and closed; gives the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.recv(65536)
                    talk(connection)
                except OSError:  # who asked has gone
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def whole(*parts: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(b"".join(parts))


def length(count: int) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % count


def drip(connection: socket.socket) -> None:
    connection.sendall(OK + length(len(LINE)))
    for byte in LINE:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def flood(connection: socket.socket) -> None:
    connection.sendall(OK + b"\r\n")
    for _ in range(20):
        connection.sendall(LINE * 1000)


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(LINE)
WRONG = {
    "cut off": (whole(OK, length(len(LINE)), LINE[:-2]), "cut off after 83 bytes"),  # 77 where it was 772
    "cut off, of unknown length": (whole(OK, b"\r\n", LINE[:-2]), "cut off after 83 bytes"),
    "cut off, in chunks": (whole(OK, CHUNKED, LINE[:-2]), "no whole HTTP (IncompleteRead)"),
    "elsewhere": (whole(b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n", length(0)), "HTTP 302"),
    "no HTTP": (whole(b"SSH-2.0-OpenSSH_9.6\r\n"), "no whole HTTP (BadStatusLine)"),
    "byte by byte": (drip, "timed out"),
    "without end": (flood, "more than 100000 bytes"),
}


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraping, "MAX_BYTES", 100_000)
    monkeypatch.setattr("arobust_otel.agent.data_collector.metric._CALL_SECONDS", 0.5)
    for name in ("arobust_XPU_TIMER_PORT", "AROBUST_XPU_TIMER_PORT", "XPU_TIMER_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_an_error_and_no_figure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    talk, words = WRONG[name]
    with answering(talk) as port:
        found: list[object] = []
        with pytest.raises(ConnectionError) as raised:
            found.extend(XpuTimerCollector(port=port, timeout_seconds=0.5).collect(Clock(1, 2), Node()))
        assert words in str(raised.value)
        assert found == []

        monkeypatch.setenv("XPU_TIMER_PORT", str(port))
        collector = MetricCollector()
        assert collector.is_enabled()
        assert collector.collect_data() == ""
        assert words in collector.last_error


@pytest.mark.parametrize(
    "answer",
    [
        whole(OK, length(len(LINE)), LINE),
        whole(OK, length(len(LINE) - 1), LINE[:-1]),
        whole(OK, CHUNKED, LINE, b"\r\n0\r\n\r\n"),
        whole(b"HTTP/1.0 200 OK\r\n\r\n", LINE),
    ],
)
def test_a_whole_answer_is_read_however_it_is_framed(answer: Callable[[socket.socket], None]) -> None:
    with answering(answer) as port:
        assert scrape(port, 5.0).strip() == LINE.decode().strip()
