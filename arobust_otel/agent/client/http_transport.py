"""OTLP/HTTP to the master through the SDK's own exporters.

Their public `session` argument is where the answer is seen: the exporters ignore partial success, count
redirects as success and retry within their own deadline. Here one call is one try: `MasterClient` governs
retries, so a retryable answer reaches the exporter as an error that it gives up on.
"""

from __future__ import annotations

import gzip
import netrc  # noqa: F401 - requests imports it in its first call: a fork then leaves its lock held for ever
import os
import time
import zlib
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from arobust_otel.agent.client.http_route import Route
from arobust_otel.agent.client.transport import (
    MAX_HINT_SECONDS,
    Answer,
    PoisonedBatch,
    base_url,
    partial_success,
    silence_exporter_loggers,
)
from arobust_otel.errors import PermanentDelivery, RetryableDelivery
from arobust_otel.http_answers import TimelyAdapter, is_web_page
from arobust_otel.model.wire_names import BATCH_ID_HEADER

RETRYABLE_STATUSES = frozenset((408, 429, 502, 503, 504))
CONTENT_STATUSES = frozenset((400, 413, 422))
MAX_ANSWER_BYTES = 64 * 1024
# The exporters take level 9: seven times the processor time of metrics, and often more bytes (1,000 points:
# 7.2 us and 2.8 bytes each, at this level 0.4 us and 2.3 bytes).
GZIP_LEVEL = 6
_EXPORTERS: dict[str, Any] = {
    "metrics": OTLPMetricExporter,
    "logs": OTLPLogExporter,
    "traces": OTLPSpanExporter,
}


class _GivenUp(Exception):
    """Told to the exporter so that it does not retry by itself: it retries connection errors and 503."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What came back: a status, or the error instead of it."""

    status: int | None
    reason: str
    body: bytes = b""
    is_json: bool = False
    is_page: bool = False  # of a web site: whoever that is, it is no OTLP server
    retry_after_seconds: float | None = None


class _Session(requests.Session):
    """Keeps what came back, and ends a call at its deadline."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: _Seen | None = None
        self.bytes_raw = 0
        self.bytes_sent = 0
        self.certificates: dict[str, tuple[Any, Any]] = {}  # by URL: authority, client's
        self.compressed: set[str] = set()  # URLs whose exporter leaves gzip to us
        self._routes: dict[str, Route] = {}
        self._batch_id = ""
        self._deadline = 0.0
        self._tries = 0
        self.reset()

    def begin(self, deadline_seconds: float, batch_id: str) -> None:
        """A new call starts."""
        self.seen = None
        self._batch_id = batch_id
        self._deadline = time.monotonic() + deadline_seconds
        self._tries = 0

    def request(self, *_: Any, **given: Any) -> requests.Response:
        """One request of an exporter; raises `_GivenUp` where the exporter would otherwise retry."""
        self._tries += 1
        try:
            response = self._post(given["url"], given["headers"], given["data"])
            body = self._read(response)
        except OSError as error:  # those of requests, and of files: a certificate may be missing for a moment
            self.seen = _Seen(None, _reason(error))
            stale = isinstance(error, requests.ConnectionError) and not isinstance(error, requests.Timeout)
            if stale and self._tries == 1 and time.monotonic() < self._deadline:
                raise  # a kept connection that the server closed: the exporter tries once more, at once
            raise _GivenUp(self.seen.reason) from None
        self.seen = _Seen(
            response.status_code,
            f"{response.status_code} {response.reason}",
            body,
            "json" in response.headers.get("content-type", ""),
            is_web_page(response.headers.get("content-type", ""), body),
            retry_after(response.headers.get("retry-after"), time.time()),
        )
        if response.status_code in RETRYABLE_STATUSES or 300 <= response.status_code < 400:
            raise _GivenUp(self.seen.reason)
        return response

    def _post(self, url: str, headers: dict[str, str], data: bytes) -> requests.Response:
        self.bytes_raw += raw_size(data, headers.get("Content-Encoding", ""))
        if url in self.compressed:
            data, headers = gzip.compress(data, GZIP_LEVEL), {**headers, "Content-Encoding": "gzip"}
        route = self._routes.get(url)
        if route is None:
            self.verify, self.cert = self.certificates[url]
            route = self._routes[url] = Route.find(self, url, headers)
        self.bytes_sent += len(data)
        left = max(0.05, self._deadline - time.monotonic())
        return route.post(data, left, {BATCH_ID_HEADER: self._batch_id or None})

    def reset(self) -> None:
        """Fresh connection pools; the old ones' sockets belong to the parent process, too."""
        for prefix in tuple(self.adapters):
            self.mount(prefix, TimelyAdapter())
        self._routes.clear()
        self.bytes_raw = self.bytes_sent = 0

    def _read(self, response: requests.Response) -> bytes:
        """The answer's body, within limits of size and time."""
        body = b""
        with response:
            for piece in response.iter_content(8192):
                body += piece
                if len(body) > MAX_ANSWER_BYTES or time.monotonic() > self._deadline:
                    break
        return body


class HttpTransport:
    """The three OTLP/HTTP exporters behind one session.

    Args:
        master: base URL; a bare ``host:port`` is refused.
        call_seconds: longest time of one request.
        is_whole: `master` is the whole URL of the one signal that goes this way: nothing is put behind it.
    """

    def __init__(self, master: str, call_seconds: float, is_whole: bool = False) -> None:
        """Opens no socket yet.

        Raises:
            ConfigurationError: `master` is no URL.
        """
        base = base_url(master)
        silence_exporter_loggers()
        self._session = _Session()
        self._exporters = {
            signal: self._exporter(signal, master if is_whole else f"{base}/v1/{signal}", call_seconds)
            for signal in _EXPORTERS
        }
        self._call_seconds = call_seconds

    def _exporter(self, signal: str, endpoint: str, call_seconds: float) -> Any:
        """One exporter. It writes its certificates into the session that it shares with the others."""
        session = self._session
        session.verify, session.cert = True, None
        is_gzip = _compression(signal) in ("", "gzip")
        compression = Compression.NoCompression if is_gzip else None  # None: as the variable says
        made = _EXPORTERS[signal](
            endpoint=endpoint, timeout=call_seconds, compression=compression, session=session
        )
        if is_gzip:
            session.compressed.add(endpoint)
        session.certificates[endpoint] = (session.verify, session.cert)
        return made

    @property
    def bytes_raw(self) -> int:
        """See `Transport.bytes_raw`."""
        return self._session.bytes_raw

    @property
    def bytes_sent(self) -> int:
        """See `Transport.bytes_sent`."""
        return self._session.bytes_sent

    def send(self, signal: str, payload: Any, deadline_seconds: float, batch_id: str = "") -> Answer:
        """See `Transport.send`."""
        self._session.begin(min(deadline_seconds, self._call_seconds), batch_id)
        self._exporters[signal].export(payload)
        seen = self._session.seen
        if seen is None:
            raise PoisonedBatch(f"{signal} could not be encoded, or are larger than a request may be")
        return judge(signal, seen)

    def reset(self) -> None:
        """See `Transport.reset`."""
        self._session.reset()

    def close(self) -> None:
        """Give back sockets."""
        self._session.close()


def raw_size(body: bytes, encoding: str) -> int:
    """Bytes of what an exporter made, before its own compression."""
    return len(zlib.decompress(body)) if encoding == "deflate" else len(body)


def judge(signal: str, seen: _Seen) -> Answer:
    """What an answer means; raises as `Transport.send` says."""
    if seen.status is None or seen.status in RETRYABLE_STATUSES:
        raise RetryableDelivery(seen.reason, seen.retry_after_seconds)
    if seen.is_page and 200 <= seen.status < 300:
        raise RetryableDelivery("answered with a web page: the address is not that of an OTLP server")
    if 200 <= seen.status < 300:
        return partial_success(signal, seen.body, seen.is_json)
    if seen.status in CONTENT_STATUSES:
        raise PoisonedBatch(seen.reason)
    raise PermanentDelivery(seen.reason)


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds that a Retry-After header asks for (number or HTTP date), at most a minute; None without one.

    >>> retry_after("3", 0), retry_after("Thu, 01 Jan 1970 00:00:10 GMT", 4), retry_after("soon", 0)
    (3.0, 6.0, None)
    """
    if not value:
        return None
    try:
        seconds = (
            float(value) if value.strip().isdecimal() else parsedate_to_datetime(value).timestamp() - now
        )
    except (ValueError, TypeError):
        return None
    return min(max(0.0, seconds), MAX_HINT_SECONDS)


def _compression(signal: str) -> str:
    """What the OTLP variables say; "" where they say nothing."""
    names = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION")
    return next((os.environ[name] for name in names if os.environ.get(name)), "").strip().lower()


def _reason(error: OSError) -> str:
    """The innermost reason: requests and urllib3 wrap it three times."""
    if not isinstance(error, requests.RequestException):
        return str(error)
    inner: BaseException = error
    for _ in range(5):
        following = getattr(inner, "reason", None) or (inner.args[0] if inner.args else None)
        if not isinstance(following, BaseException):
            break
        inner = following
    return str(inner).rpartition(": ")[2] or type(error).__name__
