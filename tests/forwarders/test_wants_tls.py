"""`http:` for a port that speaks TLS: an operator will repair it, and nothing is lost meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from arobust_otel.errors import RetryableDelivery
from arobust_otel.forwarders.alertmanager import Alertmanager
from arobust_otel.forwarders.otlp_http import OtlpHttp
from arobust_otel.forwarders.webhook import Webhook
from arobust_otel.model.notice import OPENED, Notice
from tests.forwarders.sink import Sink, sinking
from tests.master.delivering import an_incident

GO = ({}, b"Client sent an HTTP request to an HTTPS server.\n")
NGINX = (
    {"content-type": "text/html"},
    b"<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>",
)


def by_otlp(sink: Sink) -> Any:
    OtlpHttp(endpoint=sink.url).send("logs", b"")


def by_alertmanager(sink: Sink) -> Any:
    Alertmanager(urls=(sink.url,)).show([an_incident()], 1)


def by_webhook(sink: Sink) -> Any:
    Webhook(url=f"{sink.url}/hook").notify(Notice("i1.7.0", OPENED, 1, an_incident()))


@pytest.mark.parametrize("answer", [GO, NGINX], ids=["go", "nginx"])
@pytest.mark.parametrize("act", [by_otlp, by_alertmanager, by_webhook])
def test_it_is_tried_again(act: Callable[[Sink], Any], answer: tuple[dict[str, str], bytes]) -> None:
    with sinking() as sink:
        sink.judge = lambda signal, body: (400, *answer)
        with pytest.raises(RetryableDelivery, match="answered 400"):
            act(sink)
