"""The forwarder sends once and says what became of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from arobust_otel import plugins
from arobust_otel.errors import ConfigurationError, PermanentDelivery, RetryableDelivery
from arobust_otel.forwarders.otlp_http import OtlpHttp
from tests.forwarders.sink import Sink, sinking


@pytest.fixture
def sink() -> Iterator[Sink]:
    with sinking() as served:
        yield served


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_bytes_arrive_as_they_are_with_the_configured_headers(sink: Sink, compression: str) -> None:
    forwarder = OtlpHttp(endpoint=f"{sink.url}/", headers={"x-team": "a"}, compression=compression)
    forwarder.send("logs", b"\x0a\x00")
    forwarder.close()
    assert sink.taken == [("logs", b"\x0a\x00")]
    assert sink.headers[0]["x-team"] == "a"
    assert sink.headers[0]["content-type"] == "application/x-protobuf"


@pytest.mark.parametrize("status", [400, 413, 415, 500])
def test_what_will_never_be_taken_is_permanent(sink: Sink, status: int) -> None:
    sink.judge = lambda signal, body: (status, {}, b"no such thing")
    forwarder = OtlpHttp(endpoint=sink.url)
    with pytest.raises(PermanentDelivery, match=f"answered {status}: no such thing"):
        forwarder.send("logs", b"")
    forwarder.close()


@pytest.mark.parametrize("status", [401, 403, 404, 405, 408, 429, 502, 503, 504, 302])
def test_what_may_be_repaired_is_retryable(sink: Sink, status: int) -> None:
    sink.judge = lambda signal, body: (status, {"retry-after": "7"}, b"")
    forwarder = OtlpHttp(endpoint=sink.url)
    with pytest.raises(RetryableDelivery) as caught:
        forwarder.send("logs", b"")
    forwarder.close()
    assert caught.value.retry_after_seconds == 7.0


def test_a_destination_that_is_away_is_retryable() -> None:
    with sinking() as gone:
        url = gone.url
    forwarder = OtlpHttp(endpoint=url, timeout_seconds=1.0)
    with pytest.raises(RetryableDelivery, match="cannot be reached"):
        forwarder.send("logs", b"")
    forwarder.close()


def test_partial_success_is_counted_and_not_an_error(sink: Sink) -> None:
    answer = ExportMetricsServiceResponse()
    answer.partial_success.rejected_data_points = 5
    sink.judge = lambda signal, body: (200, {}, answer.SerializeToString())
    forwarder = OtlpHttp(endpoint=sink.url)
    forwarder.send("metrics", b"")
    sink.judge = lambda signal, body: (200, {}, b"this is no protobuf")
    forwarder.send("metrics", b"")
    forwarder.close()
    assert forwarder.rejected_items == 5


@pytest.mark.parametrize(
    ("key", "value"),
    [("endpoint", "collector:4318"), ("compression", "zstd"), ("signals", ("metric",))],
)
def test_a_wrong_option_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=key):
        OtlpHttp(**{key: value})  # type: ignore[arg-type]


def test_it_is_found_as_a_part() -> None:
    part = plugins.discover("forwarders")["otlp_http"]
    assert {"endpoint", "headers", "timeout_seconds", "compression", "signals"} == set(part.options())
    assert isinstance(plugins.build(part, {}), OtlpHttp)
