"""One destination as a stream sees it: sends until it is delivered, cut and dropped, or told to stop."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from typing import Any

import tenacity

from arobust_otel.errors import DecodeError, PermanentDelivery, RetryableDelivery
from arobust_otel.master.control import log
from arobust_otel.otlp.envelope import halves
from arobust_otel.plugins import Forwarder

FIRST_RETRY_SECONDS = 0.2
MAX_RETRY_SECONDS = 15.0
MAX_CUTS = 500  # sends that one refused request may cost; what is left then is dropped


class Stopped(Exception):
    """The master ends; what was not delivered is read again at the next start."""


@dataclass(slots=True)
class Counts:
    """What became of deliveries. `state` is ``ok``, or why the destination does not take anything now."""

    state: str = "ok"
    sent_requests: int = 0
    sent_bytes: int = 0
    retries: int = 0
    dropped_requests: int = 0
    dropped_bytes: int = 0
    rejected_items: int = 0
    next_offset: int = 0


class Sender:
    """Wraps a forwarder; used from one thread."""

    def __init__(self, name: str, forwarder: Forwarder, abort: threading.Event) -> None:
        """`abort` ends every retry."""
        self.name = name
        self.counts = Counts()
        self._forwarder = forwarder
        self._abort = abort

    def accepts(self, signal: str) -> bool:
        """Whether the destination wants this signal."""
        return self._forwarder.accepts(signal)

    def send(self, signal: str, body: bytes) -> None:
        """Deliver; what the destination refuses for ever is cut, and its bad items are dropped and counted.

        Raises:
            Stopped: told to stop before it was delivered.
        """
        waiting, cuts = [body], 0
        while waiting:
            piece = waiting.pop()
            reason = self._deliver(signal, piece)
            if reason is None:
                continue
            cut = _cut(signal, piece) if cuts < MAX_CUTS else None
            cuts += 1
            if cut is None:
                self._drop(signal, piece, reason)
            else:
                waiting.extend(reversed(cut))

    def try_once(self, signal: str, body: bytes) -> None:
        """Deliver if that works at once: for what will be sent again soon anyway."""
        try:
            self._once(signal, body)
        except (RetryableDelivery, PermanentDelivery):
            self.counts.retries += 1

    def snapshot(self) -> dict[str, Any]:
        """Counters for the status page."""
        return asdict(self.counts)

    def _deliver(self, signal: str, body: bytes) -> str | None:
        """None once delivered, else why it never will be."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RetryableDelivery),
            wait=_wait,
            stop=tenacity.stop_when_event_set(self._abort),
            sleep=tenacity.sleep_using_event(self._abort),
            before_sleep=self._away,
            reraise=True,
        )
        try:
            retrying(self._once, signal, body)
        except PermanentDelivery as error:
            return str(error)
        except RetryableDelivery:
            raise Stopped from None
        return None

    def _once(self, signal: str, body: bytes) -> None:
        self._forwarder.send(signal, body)
        self.counts.rejected_items = getattr(self._forwarder, "rejected_items", 0)
        self.counts.sent_requests += 1
        self.counts.sent_bytes += len(body)
        if self.counts.state != "ok":
            log.info("forwarder %s: delivers again", self.name)
            self.counts.state = "ok"

    def _away(self, attempt: tenacity.RetryCallState) -> None:
        self.counts.retries += 1
        reason = str(attempt.outcome.exception()) if attempt.outcome else "away"
        if self.counts.state == "ok":
            log.warning("forwarder %s: %s; everything is kept and tried again", self.name, reason)
        self.counts.state = reason

    def _drop(self, signal: str, body: bytes, reason: str) -> None:
        self.counts.dropped_requests += 1
        self.counts.dropped_bytes += len(body)
        if self.counts.dropped_requests == 1:
            log.warning("forwarder %s: %d bytes of %s dropped: %s", self.name, len(body), signal, reason)


_backoff = tenacity.wait_random_exponential(multiplier=FIRST_RETRY_SECONDS, max=MAX_RETRY_SECONDS)


def _wait(attempt: tenacity.RetryCallState) -> float:
    """The destination's own hint where it gave one, else exponential with jitter."""
    error = attempt.outcome.exception() if attempt.outcome else None
    hint = error.retry_after_seconds if isinstance(error, RetryableDelivery) else None
    return max(_backoff(attempt), min(hint or 0.0, 60.0))


def _cut(signal: str, body: bytes) -> tuple[bytes, bytes] | None:
    try:
        return halves(signal, body)
    except DecodeError:  # it was validated on entry: only another version could have journaled it
        return None
