"""Destinations with secrets in their URLs or headers: no message holds one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from arobust_otel.errors import DeliveryError
from arobust_otel.forwarders.alertmanager import Alertmanager
from arobust_otel.forwarders.otlp_http import OtlpHttp
from arobust_otel.forwarders.webhook import Webhook
from arobust_otel.model.notice import OPENED, Notice
from tests.forwarders.sink import Sink, sinking
from tests.master.delivering import an_incident

NOTICE = Notice("i1.7.0", OPENED, 1, an_incident())


@pytest.fixture
def sink() -> Iterator[Sink]:
    with sinking() as served:
        yield served


def message(act: Callable[[], Any]) -> str:
    with pytest.raises(DeliveryError) as caught:
        act()
    return str(caught.value)


def url_of(sink: Sink) -> str:
    return f"http://user:hidden@127.0.0.1:{sink.port}/base"


def ways(sink: Sink, **options: Any) -> list[Callable[[], Any]]:
    url = url_of(sink)
    return [
        lambda: OtlpHttp(logs_endpoint=f"{url}/v1/logs?key=hidden", **options).send("logs", b""),
        lambda: Alertmanager(urls=(url,), **options).show([], 1),
        lambda: Webhook(url=f"{url}/services/hidden?a=hidden", **options).notify(NOTICE),
    ]


@pytest.mark.parametrize("number", range(3))
def test_a_refusal_does_not_show_them(sink: Sink, number: int) -> None:
    sink.judge = lambda signal, body: (404, {}, b"Cannot POST /base/services/hidden?a=hidden")
    text = message(ways(sink)[number])
    assert "hidden" not in text.partition("answered")[0]
    assert f"http://127.0.0.1:{sink.port}" in text
    assert number < 2 or "hidden" not in text


@pytest.mark.parametrize("number", range(3))
def test_an_error_does_not_show_them(sink: Sink, number: int) -> None:
    with sinking() as gone:
        pass
    text = message(ways(gone, timeout_seconds=1.0)[number])
    assert "hidden" not in text
    assert f"http://127.0.0.1:{gone.port}" in text


def test_paths_of_otlp_and_alertmanager_are_shown_since_they_help(sink: Sink) -> None:
    sink.judge = lambda signal, body: (404, {}, b"")
    first, second, third = (message(way).partition(" answered")[0] for way in ways(sink))
    assert first.endswith("/base/v1/logs")
    assert second.endswith("/base/api/v2/alerts")
    assert third.endswith(str(sink.port))


@pytest.mark.parametrize("text", ["hidden\u2028x", "hidden\x0bx\ny"])
def test_a_token_that_cannot_be_sent_is_not_shown(sink: Sink, tmp_path: Path, text: str) -> None:
    token = tmp_path / "token"
    token.write_text(text, encoding="utf-8")
    forwarder = OtlpHttp(endpoint=sink.url, token_file=str(token))
    assert "hidden" not in message(lambda: forwarder.send("logs", b""))
