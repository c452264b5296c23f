"""Any OTLP/HTTP endpoint: a Collector, a vendor's intake, another master.

Which answers mean "later" follows the OTLP specification, with one difference: what an operator can repair
(credentials, path, method) is retried for ever: dropping a journal because of a wrong token helps nobody.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import urlsplit

import requests
from google.protobuf.message import DecodeError as ProtobufError

from arobust_otel.errors import ConfigurationError, DeliveryError, PermanentDelivery, RetryableDelivery
from arobust_otel.otlp.messages import REJECTED, RESPONSES, SIGNALS

CONTENT_TYPE = "application/x-protobuf"
COMPRESSIONS = ("gzip", "none")
_UNACCEPTABLE = frozenset({400, 413, 415, 422, 500, 501})  # these bytes, whoever sends them
_EXCERPT_CHARACTERS = 200


@dataclass
class OtlpHttp:
    """Sends serialized requests to ``<endpoint>/v1/<signal>`` as protobuf.

    Options: endpoint (base URL), headers (a table), timeout_seconds, compression (gzip or none), signals.
    `rejected_items` counts what the destination rejected for ever in partial successes.
    """

    name: ClassVar[str] = "otlp_http"

    endpoint: str = "http://127.0.0.1:4318"
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float = 10.0
    compression: str = "gzip"
    signals: tuple[str, ...] = SIGNALS
    _session: requests.Session = field(
        default_factory=requests.Session, init=False, repr=False, compare=False
    )

    rejected_items: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Check what only this forwarder can know.

        Raises:
            ConfigurationError: names the option.
        """
        url = urlsplit(self.endpoint)
        if url.scheme not in ("http", "https") or not url.netloc:
            raise ConfigurationError("endpoint", self.endpoint, "a URL such as http://collector:4318")
        if self.compression not in COMPRESSIONS:
            raise ConfigurationError("compression", self.compression, f"one of {', '.join(COMPRESSIONS)}")
        for signal in self.signals:
            if signal not in SIGNALS:
                raise ConfigurationError("signals", signal, f"some of {', '.join(SIGNALS)}")

    def accepts(self, signal: str) -> bool:
        """Whether requests of this signal are wanted."""
        return signal in self.signals

    def send(self, signal: str, body: bytes) -> None:
        """Send one request.

        Raises:
            RetryableDelivery: the destination is away, overloaded, or refuses us.
            PermanentDelivery: it will never take these bytes.
        """
        headers = {"content-type": CONTENT_TYPE, **self.headers}
        if self.compression == "gzip":
            body, headers["content-encoding"] = gzip.compress(body, 1), "gzip"
        url = f"{self.endpoint.rstrip('/')}/v1/{signal}"
        try:
            response = self._session.post(
                url, data=body, headers=headers, timeout=self.timeout_seconds, allow_redirects=False
            )
        except requests.RequestException as error:
            raise RetryableDelivery(f"{url} cannot be reached: {_reason(error)}") from None
        if not 200 <= response.status_code < 300:
            raise _refusal(url, response)
        self.rejected_items += _rejected(signal, response.content)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()


def _refusal(url: str, response: requests.Response) -> DeliveryError:
    text = "".join(filter(str.isprintable, response.text[:_EXCERPT_CHARACTERS]))
    reason = f"{url} answered {response.status_code}: {text}"
    if response.status_code in _UNACCEPTABLE:
        return PermanentDelivery(reason)
    return RetryableDelivery(reason, _retry_after(response.headers.get("retry-after", "")))


def _retry_after(text: str) -> float | None:
    """Seconds; a date, which the specification allows too, is not worth a parser: the back-off serves."""
    return float(text) if text.isdecimal() else None


def _rejected(signal: str, body: bytes) -> int:
    """Items of a partial success; an answer that is not OTLP says that nothing was."""
    response = RESPONSES[signal]()
    try:
        response.ParseFromString(body)
    except ProtobufError:
        return 0
    partial = response.partial_success  # type: ignore[attr-defined]
    return int(getattr(partial, REJECTED[signal]))


def _reason(error: requests.RequestException) -> str:
    """The innermost cause, which names the trouble."""
    cause: BaseException = error
    while cause.__context__ is not None:
        cause = cause.__context__
    return str(cause)[:_EXCERPT_CHARACTERS]
