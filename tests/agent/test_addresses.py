"""What an address means, and several of them as one way: against real servers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from arobust_otel.agent.client.addresses import (
    Address,
    heartbeat_url,
    make_transport,
    resolve_addresses,
)
from arobust_otel.agent.client.encode import Part, encode
from arobust_otel.agent.client.http_transport import HttpTransport
from arobust_otel.agent.client.ways import Failover
from arobust_otel.agent.master_client import MasterClient
from arobust_otel.errors import ConfigurationError, RetryableDelivery
from arobust_otel.model import signals
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import Point, StackCapture
from tests.agent.grpc_server import serving
from tests.agent.server import Answer, MasterDouble, free_port, running

JOB = JobIdentity("job-1", 0, "host-a")


def metrics(value: int) -> object:
    return encode("metrics", [Part(Point(signals.STEP, value, value), JOB, 0)]).payload


def values(master: MasterDouble) -> list[float]:
    return [value for _, value, _ in master.points()]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://m:4318", "http://m:4318"),
        ("http://m:4318/", "http://m:4318"),
        ("https://m", "https://m:443"),
        ("m:4317", "grpc://m:4317"),
        ("grpc://m:4317", "grpc://m:4317"),
        ("grpc://m", "grpc://m:4317"),
        ("grpcs://m:9/", "grpcs://m:9"),
        ("[::1]:4317", "grpc://[::1]:4317"),
        ("http://[::1]:4318", "http://[::1]:4318"),
        ("http://user:secret@m:4318/base/", "http://m:4318"),
    ],
)
def test_an_address_says_protocol_host_and_port(text: str, shown: str) -> None:
    (address,) = resolve_addresses(text, {})
    assert str(address) == shown


def test_a_url_keeps_its_path_and_password_for_requests() -> None:
    (address,) = resolve_addresses("http://user:secret@m:4318/base/", {})
    assert address.url == "http://user:secret@m:4318/base"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "m",
        "m:",
        ":4317",
        "m:x",
        "m:70000",
        "::1:4317",
        "ftp://m:1",
        "grpc://m:1/path",
        "http://",
        "a b:1",
        "http://[::1",
        "m\N{FULLWIDTH COLON}4317",
        "m\x00:4317",
        "metrics=",
        "metrics=m",
        5,
        b"m:4317",
        ["m:4317", None],
    ],
)
def test_what_is_no_address_is_refused_with_the_forms(text: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"http://host:4318.*host:4317.*brackets"):
        resolve_addresses(text, {})


@pytest.mark.parametrize("name", ["AROBUST_MASTER", "arobust_MASTER_ADDR", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_a_variable_that_holds_no_address_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} = 'm' is not valid"):
        resolve_addresses(None, {name: "m"})


@pytest.mark.parametrize("given", ["http://a:1, b:2", ["http://a:1", "b:2"], ["http://a:1,b:2", "b:2"]])
def test_several_addresses_stand_behind_commas_or_in_a_list(given: str | Sequence[str]) -> None:
    assert [str(address) for address in resolve_addresses(given, {})] == ["http://a:1", "grpc://b:2"]


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({}, "http://127.0.0.1:4318"),
        ({"AROBUST_MASTER": "m:4317", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://o:1"}, "grpc://m:4317"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://o:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "grpcs://o:1",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://o:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "http://o:1",
        ),
        ({"AROBUST_MASTER": "m:4317", "OTEL_EXPORTER_OTLP_INSECURE": "false"}, "grpcs://m:4317"),
        ({"AROBUST_MASTER": "m:4317", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem"}, "grpcs://m:4317"),
        ({"AROBUST_MASTER": "grpc://m:4317", "OTEL_EXPORTER_OTLP_INSECURE": "false"}, "grpc://m:4317"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "grpc://127.0.0.1:4317"),
        ({"AROBUST_MASTER": "m:4317", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://l:1"}, "grpc://m:4317"),
    ],
)
def test_without_an_address_the_environment_says_where(environ: dict[str, str], shown: str) -> None:
    (address,) = resolve_addresses(None, environ)
    assert str(address) == shown


def test_an_endpoint_of_one_signal_stands_beside_that_of_the_others() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://o:1",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "m:2",
        "OTEL_EXPORTER_OTLP_METRICS_INSECURE": "false",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://l:3",
        "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://t:4/path/",
    }
    others, of_metrics, of_logs, of_traces = resolve_addresses(None, environ)
    assert (str(others), others.signal) == ("http://o:1", "")
    assert (str(of_metrics), of_metrics.signal) == ("metrics=grpcs://m:2", "metrics")
    assert str(of_logs) == "logs=grpc://l:3"
    assert of_traces.url == "https://t:4/path/", "it is used as it is"


def test_where_each_signal_has_its_endpoint_nothing_else_is_an_address() -> None:
    environ = {
        f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT": f"http://{signal}:1"
        for signal in ("METRICS", "LOGS", "TRACES")
    }
    assert [address.signal for address in resolve_addresses(None, environ)] == ["metrics", "logs", "traces"]


def test_each_signal_goes_to_its_own_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as others, running() as of_logs, serving() as of_metrics:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", others.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", of_metrics.target)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", f"{of_logs.url}/tenant/logs")
        ours = MasterClient(None, JOB, say=lambda text: None)
        ours.report([Point(signals.STEP, 7, 1), StackCapture(1, 1, 0, 1, "py-spy", "c", (), "stacks")])
        assert ours.flush(10)
        assert of_metrics.values() == [7]
        assert (of_logs.bodies(), of_logs.paths) == (["stacks"], ["/tenant/logs"])
        assert ([span.name for span in others.spans()], others.paths) == (
            [signals.STACK_CAPTURE],
            ["/v1/traces"],
        )
        assert ours.stats()["bytes_raw"] > 0
        ours.close()


@pytest.mark.parametrize(
    ("master", "environ", "url"),
    [
        ("metrics=http://m:2/v1/metrics,http://a:1", {}, "http://a:1"),
        ("logs=l:4317,metrics=http://m:2/v1/metrics", {}, "http://m:2"),
        ("http://a:1/base", {}, "http://a:1/base"),
        ("a:4317,https://b:2", {}, "https://b:2"),
        ("a:4317", {}, "http://a:4318"),
        ("grpcs://[::1]:9", {}, "https://[::1]:4318"),
        ("a:4317", {"AROBUST_HEARTBEAT_URL": "http://h:7/"}, "http://h:7"),
        ("a:4317", {"AROBUST_HEARTBEAT_URL": "http://h:7/arobust/v1/heartbeat"}, "http://h:7"),
    ],
)
def test_heartbeats_go_over_http_also_beside_grpc(master: str, environ: dict[str, str], url: str) -> None:
    assert heartbeat_url(resolve_addresses(master, {}), environ) == url


def test_a_heartbeat_url_that_is_none_of_http_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="AROBUST_HEARTBEAT_URL"):
        heartbeat_url((Address("grpc", False, "a", 1),), {"AROBUST_HEARTBEAT_URL": "h:4317"})


def test_a_master_that_is_gone_is_followed_by_the_next_within_the_same_call() -> None:
    with running() as second:
        way = make_transport(resolve_addresses(f"http://127.0.0.1:{free_port()},{second.url}", {}), 2.0)
        way.send("metrics", metrics(1), 2.0)
        way.send("metrics", metrics(2), 2.0)
        assert values(second) == [1, 2]
        way.close()


def test_the_first_address_is_used_again_after_a_while() -> None:
    now = [0.0]
    port = free_port()
    with running() as second:
        urls = (f"http://127.0.0.1:{port}", second.url)
        way = Failover([lambda url=url: HttpTransport(url, 2.0) for url in urls], 10.0, lambda: now[0])
        way.send("metrics", metrics(1), 2.0)
        now[0] = 20.0  # looks, and finds nobody
        way.send("metrics", metrics(2), 2.0)
        with running(port) as first:
            now[0] = 21.0
            way.send("metrics", metrics(3), 2.0)
            now[0] = 40.0
            way.send("metrics", metrics(4), 2.0)
            now[0] = 41.0
            way.send("metrics", metrics(5), 2.0)
            assert values(first) == [4, 5]
        assert values(second) == [1, 2, 3]
        way.close()


def test_where_nobody_takes_it_the_batch_may_be_tried_again_and_every_reason_is_said() -> None:
    with running(script=lambda signal, body: Answer(503, headers={"retry-after": "7"})) as busy:
        addresses = resolve_addresses(f"{busy.url},http://127.0.0.1:{free_port()}", {})
        way = make_transport(addresses, 2.0)
        with pytest.raises(RetryableDelivery, match=r"503.*refused") as caught:
            way.send("metrics", metrics(1), 2.0)
        assert caught.value.retry_after_seconds is None  # only one of the two asked for patience
        way.close()


def test_a_way_that_cannot_be_opened_is_followed_by_the_next() -> None:
    def unreadable() -> HttpTransport:
        raise ConfigurationError("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem", "a PEM file")

    with running() as second:
        way = Failover([unreadable, lambda: HttpTransport(second.url, 2.0)])
        way.send("metrics", metrics(1), 2.0)
        assert values(second) == [1]
        way.close()


def test_the_shortest_hint_counts_where_every_address_gave_one() -> None:
    with (
        running(script=lambda signal, body: Answer(503, headers={"retry-after": "7"})) as first,
        running(script=lambda signal, body: Answer(429, headers={"retry-after": "4"})) as second,
    ):
        way = make_transport(resolve_addresses([first.url, second.url], {}), 2.0)
        with pytest.raises(RetryableDelivery) as caught:
            way.send("metrics", metrics(1), 2.0)
        assert caught.value.retry_after_seconds == 4.0
        way.close()


def test_masters_of_both_protocols_stand_in_for_each_other() -> None:
    port = free_port()
    with running() as http:
        way = make_transport(resolve_addresses(f"127.0.0.1:{port},{http.url}", {}), 2.0)
        way.send("metrics", metrics(1), 2.0)
        assert values(http) == [1]
        assert way.bytes_sent is None  # what went out over gRPC is not seen
        assert way.bytes_raw > 0
    with serving(port) as grpc:
        deadline = time.monotonic() + 20
        while not grpc.values() and time.monotonic() < deadline:
            with suppress(RetryableDelivery):
                way.send("metrics", metrics(2), 2.0)
        assert grpc.values() == [2]
    way.close()
