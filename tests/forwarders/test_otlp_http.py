"""The forwarder sends once and says what became of it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from arobust_otel import plugins
from arobust_otel.errors import (
    ConfigurationError,
    OverloadedDelivery,
    PermanentDelivery,
    RetryableDelivery,
    UncertainDelivery,
)
from arobust_otel.forwarders.otlp_http import OtlpHttp
from tests.forwarders.sink import Sink, sinking
from tests.trickling import trickling


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


@pytest.mark.parametrize("status", [400, 413, 415])
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
    assert isinstance(caught.value, OverloadedDelivery) == (status == 429)


PAGE = b"<html><body>Log in, please</body></html>"


@pytest.mark.parametrize("status", [200, 400, 415, 501])
def test_a_web_page_is_neither_success_nor_refusal(sink: Sink, status: int) -> None:
    """Whoever answered so is not the destination: an operator will repair the URL, and nothing was lost."""
    sink.judge = lambda signal, body: (status, {"content-type": "text/html; charset=utf-8"}, PAGE)
    forwarder = OtlpHttp(endpoint=sink.url)
    with pytest.raises(RetryableDelivery, match="answered"):
        forwarder.send("logs", b"")
    forwarder.close()


def test_a_proxy_that_finds_a_request_too_large_says_so_with_a_page(sink: Sink) -> None:
    sink.judge = lambda signal, body: (413, {"content-type": "text/html"}, PAGE)
    forwarder = OtlpHttp(endpoint=sink.url)
    with pytest.raises(PermanentDelivery):
        forwarder.send("logs", b"")
    forwarder.close()


def test_a_failure_of_the_destination_is_uncertain(sink: Sink) -> None:
    sink.judge = lambda signal, body: (500, {}, b"")
    forwarder = OtlpHttp(endpoint=sink.url)
    with pytest.raises(UncertainDelivery, match="500"):
        forwarder.send("logs", b"")
    forwarder.close()


def test_a_token_file_may_begin_with_a_byte_order_mark(sink: Sink, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n", encoding="utf-8-sig")
    forwarder = OtlpHttp(endpoint=sink.url, token_file=str(token))
    forwarder.send("logs", b"")
    forwarder.close()
    assert sink.headers[0]["authorization"] == "Bearer secret"


def test_a_token_that_cannot_stand_in_a_header_may_be_repaired(sink: Sink, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("se\u2028cret", encoding="utf-8")
    forwarder = OtlpHttp(endpoint=sink.url, token_file=str(token))
    with pytest.raises(RetryableDelivery) as caught:
        forwarder.send("logs", b"")
    forwarder.close()
    assert not isinstance(caught.value, UncertainDelivery)


def test_a_destination_that_is_away_is_retryable() -> None:
    with sinking() as gone:
        url = gone.url
    forwarder = OtlpHttp(endpoint=url, timeout_seconds=1.0)
    with pytest.raises(RetryableDelivery, match="cannot be reached"):
        forwarder.send("logs", b"")
    forwarder.close()


def test_a_destination_that_does_not_answer_in_time_may_take_less(sink: Sink) -> None:
    release = threading.Event()

    def hold(signal: str, body: bytes) -> Any:
        release.wait(20)
        return 200, {}, b""

    sink.judge = hold
    forwarder = OtlpHttp(endpoint=sink.url, timeout_seconds=0.2)
    with pytest.raises(OverloadedDelivery, match=r"did not answer within 0\.2 s"):
        forwarder.send("logs", b"")
    release.set()
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


def test_each_signal_may_have_a_place_of_its_own(sink: Sink) -> None:
    forwarder = OtlpHttp(
        metrics_endpoint=f"{sink.url}/api/v1/otlp/v1/metrics", logs_endpoint=f"{sink.url}/otlp/logs"
    )
    assert [forwarder.accepts(signal) for signal in ("metrics", "logs", "traces")] == [True, True, False]
    forwarder.send("metrics", b"")
    forwarder.send("logs", b"")
    forwarder.close()
    assert sink.paths == ["/api/v1/otlp/v1/metrics", "/otlp/logs"]


def test_secrets_are_read_from_files_for_each_request(sink: Sink, tmp_path: Path) -> None:
    token, tenant = tmp_path / "token", tmp_path / "tenant"
    token.write_text("first\n")
    tenant.write_text("team-a")
    forwarder = OtlpHttp(
        endpoint=sink.url, token_file=str(token), header_files={"X-Scope-OrgID": str(tenant)}
    )
    forwarder.send("logs", b"")
    token.write_text("second")
    forwarder.send("logs", b"")
    token.unlink()
    with pytest.raises(RetryableDelivery, match="token cannot be read"):
        forwarder.send("logs", b"")
    forwarder.close()
    assert [row["authorization"] for row in sink.headers] == ["Bearer first", "Bearer second"]
    assert sink.headers[0]["X-Scope-OrgID"] == "team-a"


def test_an_authority_of_ones_own_is_trusted_and_no_other(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    with sinking(certificate=certificate) as sink:
        trusting = OtlpHttp(endpoint=sink.url, ca_file=str(certificate[0]))
        trusting.send("logs", b"\x0a\x00")
        trusting.close()
        other = OtlpHttp(endpoint=sink.url)
        with pytest.raises(RetryableDelivery, match="certificate"):
            other.send("logs", b"")
        other.close()
    assert sink.taken == [("logs", b"\x0a\x00")]


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Certificate and key of 127.0.0.1, made by the openssl command."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", *options.split(), *names], check=True, capture_output=True)
    return certificate, key


@pytest.mark.parametrize(
    ("option", "options"),
    [
        ("endpoint", {}),
        ("endpoint", {"endpoint": "collector:4318"}),
        ("logs_endpoint", {"logs_endpoint": "ftp://loki"}),
        ("logs_endpoint", {"metrics_endpoint": "http://a/b", "signals": ("metrics", "logs")}),
        ("compression", {"endpoint": "http://a", "compression": "zstd"}),
        ("signals", {"endpoint": "http://a", "signals": ("metric",)}),
        ("token_file", {"endpoint": "http://a", "token_file": "/nowhere"}),
        ("ca_file", {"endpoint": "http://a", "ca_file": "/nowhere"}),
        ("header_files.x", {"endpoint": "http://a", "header_files": {"x": "/nowhere"}}),
    ],
)
def test_a_wrong_option_is_refused_by_name(option: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        OtlpHttp(**options)
    assert caught.value.key == option


def test_it_is_found_as_a_part() -> None:
    part = plugins.discover("forwarders")["otlp_http"]
    assert {"endpoint", "metrics_endpoint", "signals", "max_age_seconds"} <= set(part.options())
    built = plugins.build(part, {"endpoint": "http://127.0.0.1:1"})
    assert isinstance(built, OtlpHttp)
    built.close()


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"])
def test_an_answer_that_comes_byte_by_byte_costs_the_time_limit_and_no_more(head: bytes) -> None:
    with trickling(head) as port:
        forwarder = OtlpHttp(endpoint=f"http://127.0.0.1:{port}", timeout_seconds=0.5)
        started = time.monotonic()
        with pytest.raises((RetryableDelivery, OverloadedDelivery)):
            forwarder.send("logs", b"\x0a\x00")
        assert 0.4 < time.monotonic() - started < 5
        forwarder.close()


def test_an_answer_without_end_is_cut_off() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\r\n"
    with trickling(head, part=bytes(65536), every_seconds=0.0) as port:
        forwarder = OtlpHttp(endpoint=f"http://127.0.0.1:{port}", timeout_seconds=60.0)
        with pytest.raises(RetryableDelivery, match="more than 4194304 bytes"):
            forwarder.send("logs", b"\x0a\x00")
        forwarder.close()
