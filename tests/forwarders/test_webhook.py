"""One signed JSON request per change."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arobust_otel.errors import ConfigurationError, PermanentDelivery, RetryableDelivery
from arobust_otel.forwarders.webhook import Webhook, signature
from arobust_otel.model.notice import OPENED, SUSPECTED, Notice
from tests.forwarders.sink import Sink, sinking
from tests.master.delivering import an_incident

NOTICE = Notice("i1.7.0", OPENED, 1_767_225_600_000_000_000, an_incident())


@pytest.fixture
def sink() -> Iterator[Sink]:
    with sinking() as served:
        yield served


def notify(sink: Sink, notice: Notice = NOTICE, **options: Any) -> None:
    hook = Webhook(url=f"{sink.url}/hook", **options)
    try:
        hook.notify(notice)
    finally:
        hook.close()


def test_the_body_says_what_happened_and_holds_the_incident(sink: Sink) -> None:
    notify(sink, headers={"x-team": "a"})
    ((_, body),) = sink.taken
    assert json.loads(body) == {
        "type": "incident.opened",
        "timestamp": "2026-01-01T00:00:00.000000Z",
        "data": {"id": "i1.7.0", "incident": an_incident()},
    }
    (headers,) = sink.headers
    assert (headers["webhook-id"], headers["x-team"]) == ("i1.7.0", "a")
    assert headers["content-type"] == "application/json"
    assert "webhook-signature" not in headers


@pytest.mark.parametrize("coded", [True, False])
def test_the_signature_is_that_of_standard_webhooks(sink: Sink, tmp_path: Path, coded: bool) -> None:
    key = b"a secret of thirty-two bytes....."
    path = tmp_path / "secret"
    path.write_text(f"whsec_{base64.b64encode(key).decode()}\n" if coded else f"{key.decode()}\n")
    notify(sink, secret_file=str(path))
    (headers,), ((_, body),) = sink.headers, sink.taken
    signed = b"%s.%s.%s" % (headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body)
    mac = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{mac}"


def test_the_signature_of_the_standards_own_example() -> None:
    """https://github.com/standard-webhooks/standard-webhooks, the example of its libraries' tests."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    made = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("pending", [True, False])
def test_suspicions_are_told_where_they_are_wanted(sink: Sink, pending: bool) -> None:
    notify(sink, Notice("i1.6.0", SUSPECTED, 1, an_incident(status="pending")), pending=pending)
    assert len(sink.taken) == int(pending)


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, PermanentDelivery), (410, PermanentDelivery)]
    + [(status, RetryableDelivery) for status in (401, 404, 429, 500, 503)],
)
def test_only_what_is_wrong_with_the_notice_itself_is_for_ever(
    sink: Sink, status: int, error: type[Exception]
) -> None:
    sink.judge = lambda signal, body: (status, {"retry-after": "3"}, b"because")
    with pytest.raises(error, match=f"answered {status}: because"):
        notify(sink)


def test_a_secret_that_is_gone_delays_and_an_empty_one_is_refused_at_the_start(
    sink: Sink, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    path.write_text("x")
    hook = Webhook(url=sink.url, secret_file=str(path))
    path.unlink()
    with pytest.raises(RetryableDelivery, match="cannot be read"):
        hook.notify(NOTICE)
    hook.close()
    path.write_text("whsec_\n")
    with pytest.raises(ConfigurationError, match="secret_file"):
        Webhook(url=sink.url, secret_file=str(path))


@pytest.mark.parametrize("options", [{}, {"url": "example.org"}, {"url": "http://a", "ca_file": "/nowhere"}])
def test_a_wrong_option_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=list({"url": "", **options})[-1]):
        Webhook(**options)
