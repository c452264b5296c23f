"""OTLP/gRPC to the master through the SDK's own exporters.

The exporters do not show the answer, retry by themselves and know one header of a server's hint only. They
take no channel or interceptor from outside, so their stub is replaced by one that makes a single call, keeps
what came back and raises: `_take_over` is the one place that knows their private names, and says so where
another version has others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.otlp.proto.grpc.version import __version__ as EXPORTER_VERSION  # noqa: N812

from arobust_otel import guard
from arobust_otel.agent.client.grpc_answer import Seen, judge, seen_in
from arobust_otel.agent.client.grpc_variables import compression, credentials, headers
from arobust_otel.agent.client.transport import Answer, PoisonedBatch, silence_exporter_loggers
from arobust_otel.errors import ConfigurationError
from arobust_otel.model.wire_names import BATCH_ID_HEADER

_EXPORTERS: dict[str, Any] = {
    "metrics": OTLPMetricExporter,
    "logs": OTLPLogExporter,
    "traces": OTLPSpanExporter,
}
_METHODS = {
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
}
# A master that comes back is found within seconds: gRPC alone waits up to two minutes between connections.
# gRPC shares a connection between channels of equal options, so one that is not to be shared has a number.
_CHANNEL_OPTIONS = (("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 2_000))


class _GivenUp(Exception):
    """Told to the exporter so that it does not retry by itself."""


class _Call:
    """One signal's stub: a single call under the deadline that `begin` set."""

    def __init__(self, signal: str) -> None:
        self._method = _METHODS[signal]
        self._export: Any = None
        self.seen: Seen | None = None
        self.bytes_raw = 0
        self._deadline = 0.0
        self._batch_id = ""

    def begin(self, deadline_seconds: float, batch_id: str) -> None:
        """A new call starts."""
        self.seen = None
        self._deadline = time.monotonic() + deadline_seconds
        self._batch_id = batch_id

    def attach(self, channel: grpc.Channel) -> _Call:
        """Use a channel; this is what an exporter calls to make its stub. Answers stay bytes."""
        self._export = channel.unary_unary(self._method, request_serializer=self._serialize)
        return self

    def _serialize(self, request: Any) -> bytes:
        data: bytes = request.SerializeToString()
        self.bytes_raw += len(data)
        return data

    def Export(self, request: Any, metadata: Sequence[tuple[str, str]], timeout: float) -> None:  # noqa: N802
        """What an exporter calls; its own timeout is that of several tries.

        Raises:
            _GivenUp: the call failed; `seen` says how.
        """
        sent = (*metadata, (BATCH_ID_HEADER, self._batch_id)) if self._batch_id else tuple(metadata)
        left = max(0.05, min(timeout, self._deadline - time.monotonic()))
        try:
            body = self._export(request, metadata=sent, timeout=left)
        except grpc.RpcError as error:
            self.seen = seen_in(error)
            raise _GivenUp(self.seen.details) from None
        self.seen = Seen(grpc.StatusCode.OK, body=body)


class GrpcTransport:
    """The three OTLP/gRPC exporters; one call each time.

    Args:
        target: ``host:port``.
        secure: TLS, by the certificates that the OTLP variables name or the system's.
        call_seconds: longest time of one call.
    """

    def __init__(self, target: str, secure: bool, call_seconds: float) -> None:
        """Opens no connection yet.

        Raises:
            ConfigurationError: a variable names a file that cannot be read, or a header that cannot be sent;
                or the installed exporters are laid out otherwise.
        """
        silence_exporter_loggers()
        self._target = target
        self._secure = secure
        self._call_seconds = call_seconds
        self._calls = {signal: _Call(signal) for signal in _EXPORTERS}
        self._opened = 0
        self._exporters: dict[str, Any] | None = self._open()
        self._inherited: list[Any] = []

    @property
    def bytes_raw(self) -> int:
        """See `Transport.bytes_raw`."""
        return sum(call.bytes_raw for call in self._calls.values())

    @property
    def bytes_sent(self) -> None:
        """See `Transport.bytes_sent`: gRPC compresses below everything that Python sees."""
        return

    def send(self, signal: str, payload: Any, deadline_seconds: float, batch_id: str = "") -> Answer:
        """See `Transport.send`."""
        exporters = self._exporters = self._exporters or self._open()
        call = self._calls[signal]
        call.begin(min(deadline_seconds, self._call_seconds), batch_id)
        _, error = guard.attempt("OTLP/gRPC exporter", lambda: _export(exporters[signal], payload))
        if error is not None or call.seen is None:
            raise PoisonedBatch(f"{signal} could not be encoded: {error}")
        if call.seen.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self.close()  # the other end may be gone without a word: gRPC would keep the connection for long
        return judge(signal, call.seen)

    def _open(self) -> dict[str, Any]:
        """New exporters on a new connection; the three share it."""
        self._opened += 1
        return {signal: self._exporter(signal) for signal in _EXPORTERS}

    def _exporter(self, signal: str) -> Any:
        try:
            exporter = _EXPORTERS[signal](
                endpoint=self._target,
                insecure=not self._secure,
                credentials=credentials(signal) if self._secure else None,
                headers=headers(signal),
                timeout=self._call_seconds,
                compression=compression(signal),
                channel_options=(*_CHANNEL_OPTIONS, ("connection_number", self._opened)),
            )
        except ValueError as error:  # it reads the signal's timeout, too, which is not used here
            name = f"OTEL_EXPORTER_OTLP_{signal.upper()}_TIMEOUT"
            raise ConfigurationError(name, os.environ.get(name, ""), f"a number ({error})") from None
        _take_over(exporter, self._calls[signal].attach)
        return exporter

    def reset(self) -> None:
        """See `Transport.reset`. The parent's channels are kept, untouched: closing one here may block."""
        self._inherited.append(self._exporters)
        self._exporters = None
        for call in self._calls.values():
            call.bytes_raw = 0

    def close(self) -> None:
        """Close the channels that this process opened; another call opens new ones."""
        for exporter in (self._exporters or {}).values():
            exporter.shutdown()
        self._exporters = None


def _export(exporter: Any, payload: Any) -> None:
    try:
        exporter.export(payload)
    except _GivenUp:
        return


def _take_over(exporter: Any, make_stub: Callable[[grpc.Channel], Any]) -> None:
    """Let an exporter call a stub of ours on its own channel.

    Raises:
        ConfigurationError: this version of the exporters keeps stub and channel elsewhere.
    """
    channel = getattr(exporter, "_channel", None)
    known = isinstance(channel, grpc.Channel) and hasattr(getattr(exporter, "_client", None), "Export")
    if not (known and callable(getattr(exporter, "_stub", None))):
        expected = (
            "a version like 1.45, whose exporters have _channel, _client and _stub; or OTLP/HTTP: http://"
        )
        raise ConfigurationError("opentelemetry-exporter-otlp-proto-grpc", EXPORTER_VERSION, expected)
    exporter._stub = make_stub
    exporter._client = make_stub(channel)
