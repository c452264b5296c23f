"""Any OTLP/HTTP endpoint: Prometheus 3, Loki, a trace store, a Collector, a vendor's intake, another master.

Which answers mean "later" follows the OTLP specification, with two differences: what an operator can repair
(credentials, scheme, host, path) is retried for ever, since dropping a journal because of a wrong token helps
nobody; and 500, which Loki says while it starts and others say of a request they dislike, is uncertain.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import requests
from google.protobuf.message import DecodeError as ProtobufError

from arobust_otel.errors import (
    ConfigurationError,
    DeliveryError,
    OverloadedDelivery,
    PermanentDelivery,
    RetryableDelivery,
    TooOldDelivery,
    UncertainDelivery,
)
from arobust_otel.forwarders._http import (
    Poster,
    check_file,
    check_url,
    retry_after,
    said,
    secret,
    shown,
    succeeded,
    wants_tls,
)
from arobust_otel.http_answers import is_web_page
from arobust_otel.otlp.messages import REJECTED, RESPONSES, SIGNALS

CONTENT_TYPE = "application/x-protobuf"  # exactly: Prometheus refuses a charset
COMPRESSIONS = ("gzip", "none")
_UNACCEPTABLE = frozenset({400, 413, 415, 422, 501})  # these bytes, whoever sends them
# Prometheus without and with an out-of-order window (storage/interface.go), and Loki (pkg/validation).
_TOO_OLD = (b"out of bounds", b"too old sample", b"timestamp too old")


@dataclass
class OtlpHttp:
    """Sends serialized requests to one OTLP/HTTP destination as protobuf.

    Options:
        endpoint: base of the three paths ``/v1/metrics``, ``/v1/logs``, ``/v1/traces``.
        metrics_endpoint, logs_endpoint, traces_endpoint: the whole URL for a signal; goes before `endpoint`.
        signals: which to send; default: those that have a URL.
        headers: a table. header_files: a table of file names, read for each request.
        token_file: file with a bearer token, read for each request.
        ca_file: authorities to trust, PEM. client_certificate, client_key: for mutual TLS, PEM.
        timeout_seconds, compression (gzip or none).
        max_request_bytes: the most that is put together into one request, before compression.
        max_age_seconds, max_ahead_seconds: what is older, or lies further ahead, is dropped for this
            destination before it is sent, and counted; 0: no limit.
        own_metrics: whether the master's own metrics are sent, too (`prometheus_scrape` shows them as well).

    `rejected_items` counts what the destination rejected for ever in partial successes.
    """

    name: ClassVar[str] = "otlp_http"

    endpoint: str = ""
    metrics_endpoint: str = ""
    logs_endpoint: str = ""
    traces_endpoint: str = ""
    signals: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    header_files: Mapping[str, str] = field(default_factory=dict)
    token_file: str = ""
    ca_file: str = ""
    client_certificate: str = ""
    client_key: str = ""
    timeout_seconds: float = field(default=10.0, metadata={"minimum": 0.1})
    compression: str = "gzip"
    max_request_bytes: int = field(default=2 * 1024 * 1024, metadata={"minimum": 1024})
    max_age_seconds: float = field(default=0.0, metadata={"minimum": 0})
    max_ahead_seconds: float = field(default=0.0, metadata={"minimum": 0})
    own_metrics: bool = False
    rejected_items: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Check what only this forwarder can know.

        Raises:
            ConfigurationError: names the option.
        """
        self._urls = {
            signal: own or (f"{self.endpoint.rstrip('/')}/v1/{signal}" if self.endpoint else "")
            for signal, own in zip(
                SIGNALS, (self.metrics_endpoint, self.logs_endpoint, self.traces_endpoint), strict=True
            )
        }
        self.signals = tuple(self.signals) or tuple(signal for signal in SIGNALS if self._urls[signal])
        self._check()
        certificate = (self.client_certificate, self.client_key or self.client_certificate)
        self._poster = Poster(self.timeout_seconds, self.ca_file, certificate)

    def accepts(self, signal: str) -> bool:
        """Whether requests of this signal are wanted."""
        return signal in self.signals

    def send(self, signal: str, body: bytes) -> None:
        """Send one request.

        Raises:
            RetryableDelivery: the destination is away, overloaded, or refuses us.
            PermanentDelivery: it will never take these bytes.
        """
        url = self._urls[signal]
        headers = {"content-type": CONTENT_TYPE, **self._headers()}
        if self.compression == "gzip":
            body, headers["content-encoding"] = gzip.compress(body, 1), "gzip"
        response = self._poster.post(url, body, headers, shown(url))
        if not succeeded(response):
            raise _refusal(url, response)
        if _is_page(response):
            raise RetryableDelivery(
                f"{shown(url)} answered with a web page: it is not the URL of an OTLP server"
            )
        self.rejected_items += _rejected(signal, response.content)

    def close(self) -> None:
        """Close the connection."""
        self._poster.close()

    def _headers(self) -> dict[str, str]:
        """Headers with what stands in the files now: secrets are renewed while we run."""
        found = dict(self.headers)
        for name, path in self.header_files.items():
            found[name] = secret(path)
        if self.token_file:
            found["authorization"] = f"Bearer {secret(self.token_file)}"
        return found

    def _check(self) -> None:
        if not self.signals:
            raise ConfigurationError("endpoint", self.endpoint, "a URL such as http://collector:4318")
        for signal in self.signals:
            if signal not in SIGNALS:
                raise ConfigurationError("signals", signal, f"some of {', '.join(SIGNALS)}")
        for option in ("endpoint", "metrics_endpoint", "logs_endpoint", "traces_endpoint"):
            text = getattr(self, option)
            if text:
                check_url(option, text, "http://collector:4318")
        for signal in self.signals:
            if not self._urls[signal]:
                raise ConfigurationError(f"{signal}_endpoint", "", f"given, since {signal} are to be sent")
        if self.compression not in COMPRESSIONS:
            raise ConfigurationError("compression", self.compression, f"one of {', '.join(COMPRESSIONS)}")
        self._check_files()

    def _check_files(self) -> None:
        for option in ("token_file", "ca_file", "client_certificate", "client_key"):
            check_file(option, getattr(self, option))
        for name, path in self.header_files.items():
            check_file(f"header_files.{name}", path)


def _refusal(url: str, response: requests.Response) -> DeliveryError:
    reason = said(shown(url), response)
    is_elsewhere = response.status_code != 413 and (_is_page(response) or wants_tls(response))
    if response.status_code in _UNACCEPTABLE and not is_elsewhere:
        return TooOldDelivery(reason) if _is_too_old(response.content) else PermanentDelivery(reason)
    if response.status_code == 500:
        return UncertainDelivery(reason)
    kind = OverloadedDelivery if response.status_code == 429 else RetryableDelivery
    return kind(reason, retry_after(response))


def _is_page(response: requests.Response) -> bool:
    return is_web_page(response.headers.get("content-type", ""), response.content)


def _is_too_old(body: bytes) -> bool:
    """Whether a refusal speaks of a limit of age that holds for all; out of order is said of one series."""
    return any(words in body for words in _TOO_OLD) and b"future" not in body


def _rejected(signal: str, body: bytes) -> int:
    """Items of a partial success; an answer that is not OTLP says that nothing was."""
    response = RESPONSES[signal]()
    try:
        response.ParseFromString(body)
    except ProtobufError:
        return 0
    partial = response.partial_success  # type: ignore[attr-defined]
    return int(getattr(partial, REJECTED[signal]))
