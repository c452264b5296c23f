"""What Prometheus 3 does with what a master forwards: real streams, a real journal, asked back by PromQL."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from arobust_otel.forwarders.otlp_http import OtlpHttp
from arobust_otel.master.incident_streams import OtlpStream
from arobust_otel.master.streams import BulkStream
from arobust_otel.model.incident import rfc3339
from tests.forwarders.sink import sinking
from tests.master.delivering import World, an_incident, ended
from tests.master.running import until
from tests.stack.running import asked, free_ports, running, until_answer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SECOND = 10**9
PROMOTED = "otlp: {promote_resource_attributes: [arobust.job.id, host.name]}\n"
LATE = "storage: {tsdb: {out_of_order_time_window: 24h}}\n"


class Prometheus:
    """One on a port of its own, with the lines of configuration that a test wants."""

    def __init__(self, folder: Path, lines: str) -> None:
        (self.port,) = free_ports(1)
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "prometheus.yml").write_text(PROMOTED + lines)

    @contextlib.contextmanager
    def runs(self) -> Iterator[None]:
        address = f"127.0.0.1:{self.port}"
        arguments = [f"--config.file={self.folder / 'prometheus.yml'}", "--web.enable-otlp-receiver"]
        arguments += [f"--storage.tsdb.path={self.folder / 'tsdb'}", f"--web.listen-address={address}"]
        with running("prometheus", arguments, self.folder, f"{self.url}/-/ready"):
            yield

    def forwarder(self, **options: Any) -> OtlpHttp:
        return OtlpHttp(endpoint=f"{self.url}/api/v1/otlp", signals=("metrics",), **options)

    def values(self, query: str) -> dict[str, list[float]]:
        """Values of a range query such as ``x[1h]`` by the label `rank`, in order of time."""
        answer = asked(f"{self.url}/api/v1/query", query=query)
        rows = answer["data"]["result"] if answer else []
        return {
            row["metric"].get("arobust_rank", ""): [float(value) for _, value in row["values"]]
            for row in rows
        }


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with sinking() as unused:
        made = World(tmp_path, unused)
        yield made
        made.appender.close()


def steps(times_ns: list[int], *, rank: int = 0, name: str = "arobust.training.step") -> bytes:
    """One metric of one agent; the value of each point is its place in the list."""
    request = ExportMetricsServiceRequest()
    entry = request.resource_metrics.add()
    for key, value in (("service.name", "arobust-agent"), ("service.instance.id", f"node-{rank}/gpt")):
        entry.resource.attributes.add(key=key).value.string_value = value
    metric = entry.scope_metrics.add().metrics.add(name=name, unit="{step}")
    for place, time_ns in enumerate(times_ns):
        point = metric.gauge.data_points.add(time_unix_nano=time_ns, as_int=place)
        point.attributes.add(key="arobust.rank").value.int_value = rank
    return request.SerializeToString()


def delta(time_ns: int) -> bytes:
    request = ExportMetricsServiceRequest()
    entry = request.resource_metrics.add()
    entry.resource.attributes.add(key="service.name").value.string_value = "someone"
    metric = entry.scope_metrics.add().metrics.add(name="somebodys.delta")
    metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    metric.sum.is_monotonic = True
    metric.sum.data_points.add(time_unix_nano=time_ns, start_time_unix_nano=time_ns - 1, as_int=1)
    return request.SerializeToString()


def test_bad_points_cost_themselves_only_and_what_was_sent_before_an_outage_is_whole(
    world: World, tmp_path: Path
) -> None:
    """No window for late points: one that is out of order makes Prometheus refuse the whole request."""
    prometheus = Prometheus(tmp_path, "")
    now_ns = time.time_ns()
    times = [now_ns - (60 - place) * SECOND for place in range(60)]
    with prometheus.runs():
        world.append(steps(times[:20]), steps(times[:20], rank=1))
        world.deliver(BulkStream, prometheus.forwarder())
        late = [times[30], times[5], times[31]]
        world.append(steps(late), steps(times[20:30], rank=1), delta(now_ns))
        with world.delivering(BulkStream, prometheus.forwarder()) as stream:
            counts = stream.sender.counts
            until("the bad ones are given up", lambda: _given_up(world, counts.dropped, 2))
            until("the rest", lambda: counts.next_offset == world.appender.next_offset)
        whole = until_answer("all good points", lambda: _if(prometheus, {"0": 22, "1": 30}))
    assert whole["1"] == [*range(20), *range(10)]
    assert whole["0"] == [*range(20), 0, 2]
    dropped = stream.sender.counts.dropped
    assert sum(dropped.values()) == 2, dropped
    assert stream.sender.counts.state == "ok"

    # Away for a while: what arrives meanwhile is kept, and arrives in order.
    world.append(steps(times[40:50], rank=1))
    with world.delivering(BulkStream, prometheus.forwarder()) as away:
        until("a try", lambda: away.sender.counts.retries)
        world.append(steps(times[50:60], rank=1))
        with prometheus.runs():
            rest = until_answer("the rest", lambda: _if(prometheus, {"0": 22, "1": 50}))
            until("told", lambda: away.sender.counts.next_offset == world.appender.next_offset)
        assert away.sender.counts.dropped == {}
    assert rest["1"][-20:] == [*range(10), *range(10)]


def _given_up(world: World, dropped: dict[str, int], items: int) -> bool:
    """Prometheus answers 500 to a delta: that it takes other metrics is the proof, so there are some."""
    world.append(steps([time.time_ns()], name="somebodys.other"))
    return sum(dropped.values()) == items


def _if(prometheus: Prometheus, counts: dict[str, int]) -> dict[str, list[float]] | None:
    found = prometheus.values("arobust_training_step[1h]")
    return found if {rank: len(values) for rank, values in found.items()} == counts else None


def test_with_the_window_of_our_configuration_late_points_arrive_and_too_old_ones_are_not_sent(
    world: World, tmp_path: Path
) -> None:
    prometheus = Prometheus(tmp_path, LATE)
    now_ns = time.time_ns()
    hour_ns = 3600 * SECOND
    with prometheus.runs():
        for age in (0, 1, 20, 30):
            world.append(steps([now_ns - age * hour_ns]))
        stream = world.deliver(BulkStream, prometheus.forwarder(max_age_seconds=86_400))
        until_answer("three", lambda: len(prometheus.values("arobust_training_step[2d]").get("0", [])) == 3)
    assert stream.sender.counts.dropped == {"too_old": 1}


@pytest.mark.parametrize("lines", ["", LATE.replace("24h", "30m")], ids=["no-window", "short-window"])
def test_a_store_that_says_too_old_catches_up_without_a_limit_of_age(
    world: World, tmp_path: Path, lines: str
) -> None:
    """These words of Prometheus are known: so 400 old points cost no 400 requests and more."""
    prometheus = Prometheus(tmp_path, lines)
    now_ns = time.time_ns()
    with prometheus.runs():
        world.append(steps([now_ns]))
        world.deliver(BulkStream, prometheus.forwarder())
        for rank in range(1, 5):
            world.append(steps([now_ns - (7200 - place) * SECOND for place in range(100)], rank=rank))
        world.append(steps([now_ns + SECOND]))
        forwarder = Counting(prometheus.forwarder())
        stream = world.deliver(BulkStream, forwarder)
        until_answer("the new", lambda: len(prometheus.values("arobust_training_step[1h]").get("0", [])) == 2)
    assert stream.sender.counts.dropped == {"too_old": 400}
    assert forwarder.requests < 300


class Counting:
    """A forwarder whose requests are counted, whatever became of them."""

    def __init__(self, forwarder: OtlpHttp) -> None:
        self.forwarder = forwarder
        self.requests = 0

    def accepts(self, signal: str) -> bool:
        return self.forwarder.accepts(signal)

    def send(self, signal: str, body: bytes) -> None:
        self.requests += 1
        self.forwarder.send(signal, body)


def test_an_incident_is_one_and_then_zero_also_when_prometheus_was_away(world: World, tmp_path: Path) -> None:
    prometheus = Prometheus(tmp_path, "")
    now_ns = time.time_ns()

    def at(age_seconds: int) -> str:
        return rfc3339(now_ns - age_seconds * SECOND) or ""

    opened = an_incident(opened_at=at(600), first_evidence_at=at(610), updated_at=at(600))
    world.incident(opened)
    world.incident(an_incident(cause="hang_device", opened_at=at(600), updated_at=at(500)))
    world.incident(ended(cause="hang_device", opened_at=at(600), updated_at=at(300), resolved_at=at(300)))
    with world.delivering(OtlpStream, prometheus.forwarder()) as stream:
        until("a try", lambda: stream.sender.counts.retries)
        with prometheus.runs():
            rows = until_answer("both verdicts", lambda: _incidents(prometheus))
        assert stream.sender.counts.dropped == {}
    assert rows == {"hang_user_code": [1.0, 0.0], "hang_device": [1.0, 0.0]}


def _incidents(prometheus: Prometheus) -> dict[str, list[float]] | None:
    answer = asked(f"{prometheus.url}/api/v1/query", query="arobust_incident_open[1h]")
    rows = answer["data"]["result"] if answer else []
    found = {row["metric"]["arobust_cause"]: [float(value) for _, value in row["values"]] for row in rows}
    for row in rows:
        labels = row["metric"]
        assert labels["arobust_job_id"] == "job-1"
        assert (labels["arobust_rank"], labels["host_name"]) == ("2", "gpu-a")
        assert labels["arobust_severity"] == "critical"
        assert "arobust_forwarded" not in labels
    return found if sum(map(len, found.values())) == 4 else None


def test_a_long_backlog_is_sent_in_few_requests(world: World, tmp_path: Path) -> None:
    prometheus = Prometheus(tmp_path, "")
    now_ns = time.time_ns()
    count = 1500
    for place in range(count):
        world.append(steps([now_ns - (count - place) * SECOND // 2]))
    with prometheus.runs():
        stream = world.deliver(BulkStream, prometheus.forwarder())
        until_answer("all", lambda: len(prometheus.values("arobust_training_step[1h]").get("0", [])) == count)
    assert stream.sender.counts.sent_requests <= 10
    assert stream.sender.counts.dropped == {}


def test_prometheus_scrapes_the_page(tmp_path: Path) -> None:
    """The page of a real master is in tests/master/test_deliver.py; here, that Prometheus understands it."""
    import http.server
    import threading

    from arobust_otel.forwarders.prometheus_scrape import PrometheusScrape
    from arobust_otel.model import signals
    from arobust_otel.model.samples import Point

    board = PrometheusScrape()
    own = [Point(signals.FORWARDER_SENT, 5, 1, {signals.FORWARDER: "loki", signals.STREAM: "bulk"}, 1)]
    board.show([an_incident()], 1)

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = board.page(self.headers.get("accept", ""), lambda now_ns: own)
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        target = f"127.0.0.1:{server.server_address[1]}"
        job = f"{{job_name: m, scrape_interval: 1s, static_configs: [{{targets: ['{target}']}}]}}"
        prometheus = Prometheus(tmp_path, f"scrape_configs: [{job}]\n")
        with prometheus.runs():
            until_answer("the incident", lambda: prometheus.values("arobust_incident_open[1m]"))
            assert prometheus.values('arobust_forwarder_sent_total{arobust_forwarder="loki"}[1m]')
            board.show([], 2)
            gone = "absent(arobust_incident_open)[5s:1s]"
            until_answer("it goes at once", lambda: prometheus.values(gone))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
