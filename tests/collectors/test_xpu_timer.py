"""Prometheus text of an xpu_timer, from a real server on a free port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from arobust_otel.collectors.xpu_timer import FAMILIES, XpuTimerCollector, parse, points_of
from arobust_otel.errors import CapabilityError
from arobust_otel.model import signals
from arobust_otel.plugins import Clock, Node
from tests.collectors.xpu_timer_text import exposition

AT = Clock(1_000, 2_000)


class Endpoint:
    """Serves a text at /metrics; `status` and `text` may change."""

    def __init__(self, port: int = 0) -> None:
        self.text, self.status = exposition(), 200
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                body = endpoint.text.encode()
                self.send_response(endpoint.status if self.path == "/metrics" else 404)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self._thread = threading.Thread(target=lambda: self.server.serve_forever(0.02), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def no_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("arobust_XPU_TIMER_PORT", "AROBUST_XPU_TIMER_PORT", "XPU_TIMER_PORT"):
        monkeypatch.delenv(name, raising=False)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def values(points: list, name: str) -> list[float]:
    return [point.value for point in points if point.name == name]


def test_all_eighteen_families_become_points_in_base_units() -> None:
    points = points_of(exposition(ranks=1), 5)
    assert len(FAMILIES) == 18
    assert {point.name for point in points} == {family.signal for family in FAMILIES.values()}
    assert values(points, signals.XPU_COLLECTIVE_MEAN) == [pytest.approx(740.5e-6)]
    assert values(points, signals.XPU_COLLECTIVE_BANDWIDTH) == [pytest.approx(45.5e9 / 8)]
    assert values(points, signals.XPU_MATMUL_FLOPS) == [pytest.approx(5.25e12)]
    assert values(points, signals.XPU_MEMORY_CALLS) == [128]
    assert values(points, signals.XPU_HANG) == [0]
    assert {point.time_ns for point in points} == {5}


def test_labels_become_attributes_and_what_is_not_set_is_none() -> None:
    points = points_of(exposition(ranks=2), 5)
    p99 = [point for point in points if point.name == signals.XPU_COLLECTIVE_P99]
    assert [point.attributes[signals.RANK] for point in p99] == [0, 1]
    assert p99[1].attributes == {
        signals.RANK: 1, signals.LOCAL_RANK: 1, signals.OPERATION: "AllGather", signals.ALGORITHM: "RING_LL",
        signals.DTYPE: "fp16", signals.TRANSPORT: "IntraNode", signals.LEVEL: 2, signals.SMALL: False,
    }  # fmt: skip
    in_pod = points_of(exposition(ranks=1, pod="trainer-0"), 5)
    assert {point.attributes[signals.POD_NAME] for point in in_pod} == {"trainer-0"}


def test_before_the_first_timed_events_there_is_no_hang_value_rather_than_zero() -> None:
    early = points_of(exposition(common=False), 5)
    assert values(early, signals.XPU_HANG) == []
    assert values(early, signals.XPU_MATMUL_MEAN)
    assert values(points_of(exposition(hang=(1,)), 5), signals.XPU_HANG) == [0, 1]


def test_a_text_without_comments_as_the_old_collector_sent_it_is_the_same() -> None:
    text = exposition()
    lines = [line for line in text.splitlines() if not line.startswith(("#", "exposer"))]
    assert points_of("\n".join(lines), 5) == points_of(text, 5)


def test_a_line_that_was_cut_and_values_that_are_no_numbers_hide_no_other() -> None:
    text = exposition(ranks=1)
    text = text.replace("XPU_TIMER_COMMON_GC_COUNT{", "XPU_TIMER_COMMON_GC_COUNT{{", 1)
    text = text.replace(" 772\n", " NaN\n") + 'XPU_TIMER_COMMON_HANG{rank="0'
    reading = parse(text, 5)
    assert reading.unreadable == 2
    assert values(reading.points, signals.XPU_COLLECTIVE_P99) == []
    assert values(reading.points, signals.XPU_GC) == []
    assert len(reading.points) == 16


def test_a_family_that_is_not_known_is_left_out() -> None:
    reading = parse('XPU_TIMER_COMMON_NEW{rank="0"} 3\n', 5)
    assert reading.points == []
    assert (reading.samples, reading.unreadable) == (1, 0)


@pytest.mark.parametrize("name", ["arobust_XPU_TIMER_PORT", "AROBUST_XPU_TIMER_PORT", "XPU_TIMER_PORT"])
def test_the_port_comes_from_the_environment_and_may_change_while_the_agent_runs(
    endpoint: Endpoint, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = XpuTimerCollector()
    monkeypatch.setenv(name, str(free_port()))
    with pytest.raises(CapabilityError, match=f"{name} names; start xpu_timer"):
        list(collector.collect(AT, Node()))
    monkeypatch.setenv(name, str(endpoint.port))
    points = list(collector.collect(AT, Node()))
    assert len(points) == 36
    assert {point.time_ns for point in points} == {AT.wall_ns}


def test_the_port_may_stand_in_the_environment_of_a_rank_only(world, endpoint: Endpoint) -> None:
    environ = {**os.environ, "XPU_TIMER_PORT": str(endpoint.port)}
    code = "print('up', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as rank:
        assert rank.stdout is not None
        rank.stdout.readline()
        world.rank(rank.pid)
        points = list(XpuTimerCollector().collect(AT, world.node()))
        rank.communicate(b"\n")
    assert values(points, signals.XPU_HANG) == [0, 0]
    of_rank = [point for point in points if point.attributes[signals.RANK] == 0]
    assert {point.attributes[signals.ROLE] for point in of_rank} == {"trainer"}


def test_nothing_at_the_default_port_is_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arobust_otel.collectors.xpu_timer.DEFAULT_PORT", free_port())
    assert list(XpuTimerCollector().collect(AT, Node())) == []


def test_an_error_of_the_server_is_told_from_no_data(endpoint: Endpoint) -> None:
    collector = XpuTimerCollector(port=endpoint.port)
    endpoint.status = 503
    with pytest.raises(ConnectionError, match="answers HTTP 503"):
        list(collector.collect(AT, Node()))
    endpoint.status, endpoint.text = 200, ""
    assert list(collector.collect(AT, Node())) == []
    endpoint.text = "<html>\n<p>not here</p>\n</html>\n"
    with pytest.raises(ConnectionError, match="no metrics"):
        list(collector.collect(AT, Node()))


def test_an_xpu_timer_that_went_away_is_named() -> None:
    endpoint = Endpoint()
    collector = XpuTimerCollector(port=endpoint.port)
    assert list(collector.collect(AT, Node()))
    endpoint.stop()
    with pytest.raises(ConnectionError, match="answered before and is gone"):
        list(collector.collect(AT, Node()))


def test_a_server_that_does_not_answer_takes_no_longer_than_the_time_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        collector = XpuTimerCollector(port=silent.getsockname()[1], timeout_seconds=0.2)
        with pytest.raises(ConnectionError, match="timed out"):
            list(collector.collect(AT, Node()))
