"""One destination as a stream sees it: sends until it is delivered, cut and dropped, or told to stop."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import tenacity

from arobust_otel import guard
from arobust_otel.errors import (
    DecodeError,
    DeliveryError,
    OverloadedDelivery,
    PermanentDelivery,
    RetryableDelivery,
    UncertainDelivery,
)
from arobust_otel.master.control import log
from arobust_otel.master.pace import MOST_BYTES, Counts, Pace, Try
from arobust_otel.otlp.ages import Span, count_items, within

FIRST_RETRY_SECONDS = 0.2
MAX_RETRY_SECONDS = 15.0
MAX_HINT_SECONDS = 60.0  # of what a destination says with Retry-After
MAX_CUTS = 500  # sends that one refused request may cost; what is left then is dropped
UNCERTAIN_SECONDS = 30.0  # for which a failing destination gets the same bytes before they are suspected
SUSPECT_SECONDS = 600.0  # for which a destination that failed at some bytes is thought to do so again

REFUSED = "refused"  # reasons of drops, beside those of `otlp.ages`
FAILED = "failed"
REJECTED = "rejected"
EXPIRED = "expired"


class Stopped(Exception):
    """The master ends; what was not delivered is read again at the next start."""


class Sender:
    """Wraps a forwarder; used from one thread.

    Args:
        name: the forwarder's in the configuration, for messages.
        forwarder: sends once.
        abort: ends every retry.
    """

    def __init__(self, name: str, forwarder: Any, abort: threading.Event) -> None:
        self.name = name
        self.forwarder = forwarder
        self.counts = Counts()
        self.pace = Pace(getattr(forwarder, "max_request_bytes", MOST_BYTES))
        self.uncertain_seconds = UNCERTAIN_SECONDS
        self._abort = abort
        self._rejected = 0
        self._failed_at: float | None = None

    def accepts(self, signal: str) -> bool:
        """Whether the destination wants this signal."""
        return bool(self.forwarder.accepts(signal))

    def send(self, signal: str, body: bytes) -> None:
        """Deliver; what the destination refuses for ever is cut, and its bad items are dropped and counted.

        Raises:
            Stopped: told to stop before it was delivered.
        """
        waiting, cuts, before = deque([body]), 0, self.counts.sent_requests
        while waiting:
            piece = self._try(signal, waiting.popleft(), lives=self.counts.sent_requests > before)
            error = self._retry(lambda piece=piece: self._attempt(piece), piece)  # type: ignore[misc]
            if error is None:
                continue
            self.pace.shrink()
            overloaded = isinstance(error, OverloadedDelivery)  # nothing is wrong with the bytes then
            cut = piece.cut() if overloaded or cuts < MAX_CUTS else None
            cuts += not overloaded
            if cut is None:
                self._drop(piece, error)
            elif isinstance(error, UncertainDelivery):
                waiting.extend(cut)  # behind the others: if these are taken, it is the bytes
            else:
                waiting.extendleft(reversed(cut))

    def try_once(self, signal: str, body: bytes) -> bool:
        """Deliver if that works at once: for what will be sent again soon anyway."""
        try:
            self._contained(lambda: self._once(signal, body))
        except DeliveryError:
            self.counts.retries += 1
            return False
        return True

    def call(self, act: Callable[[], None]) -> bool:
        """Do what raises RetryableDelivery until it works; False where it was refused for ever.

        Raises:
            Stopped: told to stop before it worked.
        """
        error = self._retry(act, Try("", b"", self.uncertain_seconds, self.uncertain_seconds))
        if error is None:
            self.counts.sent_requests += 1
            return True
        self.dropped(REFUSED if isinstance(error, PermanentDelivery) else FAILED, 1, str(error))
        self.counts.state = str(error)
        return False

    def dropped(self, reason: str, items: int, why: str = "") -> None:
        """Count what this destination will never get; the first of a reason is said."""
        if items and reason not in self.counts.dropped:
            log.warning("forwarder %s: dropped %d for the first time (%s): %s", self.name, items, reason, why)
        if items:
            self.counts.dropped[reason] = self.counts.dropped.get(reason, 0) + items

    def snapshot(self, now_ns: int, end_offset: int) -> dict[str, Any]:
        """Counters for the status page; `end_offset` is that of the journal's next record."""
        counts = self.counts
        waiting_ns = counts.waiting_ns
        return {
            "state": counts.state,
            "sent_requests": counts.sent_requests,
            "sent_bytes": counts.sent_bytes,
            "retries": counts.retries,
            "dropped": dict(counts.dropped),
            "next_offset": counts.next_offset,
            "lag_records": max(0, end_offset - counts.next_offset),
            "lag_seconds": round(max(0, now_ns - waiting_ns) / 1e9, 1) if waiting_ns else 0.0,
        }

    def _try(self, signal: str, body: bytes, *, lives: bool) -> Try:
        """`lives`: the destination took other bytes meanwhile, so a failure is due to these."""
        if lives:
            return Try(signal, body, 0.0, 0.0)
        return Try(
            signal, body, 0.0 if self._was_at_fault() else self.uncertain_seconds, self.uncertain_seconds
        )

    def _attempt(self, piece: Try) -> None:
        piece.body = self._timely(piece.signal, piece.body)
        if piece.body:
            self._once(piece.signal, piece.body)

    def _retry(self, act: Callable[[], None], piece: Try) -> Exception | None:
        def enough(attempt: tenacity.RetryCallState) -> bool:
            error = attempt.outcome.exception() if attempt.outcome else None
            return self._abort.is_set() or piece.is_over(error)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RetryableDelivery),
            wait=_wait,
            stop=enough,
            sleep=tenacity.sleep_using_event(self._abort),
            before_sleep=self._away,
            reraise=True,
        )
        try:
            retrying(self._contained, act)
        except PermanentDelivery as error:
            return error
        except RetryableDelivery as error:
            if self._abort.is_set():
                raise Stopped from None
            return error
        self._works()
        return None

    def _contained(self, act: Callable[[], None]) -> None:
        """A forwarder that fails in a way of its own must not end the others: that is uncertain, too."""
        _, error = guard.attempt(f"forwarder {self.name}", act)
        if error is None:
            return
        if isinstance(error, (DeliveryError, Stopped)):
            raise error
        raise UncertainDelivery(f"{type(error).__name__}: {error}") from error

    def _once(self, signal: str, body: bytes) -> None:
        self.forwarder.send(signal, body)
        rejected = int(getattr(self.forwarder, "rejected_items", 0))
        self.dropped(REJECTED, rejected - self._rejected, "the destination's own partial success")
        self._rejected = rejected
        self.counts.sent_requests += 1
        self.counts.sent_bytes += len(body)
        self.pace.grow(len(body))

    def _timely(self, signal: str, body: bytes) -> bytes:
        """Without what is too old or too far ahead for this destination."""
        age = getattr(self.forwarder, "max_age_seconds", 0.0)
        ahead = getattr(self.forwarder, "max_ahead_seconds", 0.0)
        if not (age or ahead):
            return body
        now_ns = time.time_ns()
        span = Span(
            now_ns - int(age * 1e9) if age else None,
            now_ns + int(ahead * 1e9) if ahead else None,
        )
        left, taken = within(signal, body, span)
        for reason, items in taken.items():
            self.dropped(reason, items, f"limits: {age:g} s of age, {ahead:g} s ahead")
        return left

    def _works(self) -> None:
        if self.counts.state != "ok":
            log.info("forwarder %s: delivers again", self.name)
            self.counts.state = "ok"

    def _away(self, attempt: tenacity.RetryCallState) -> None:
        self.counts.retries += 1
        reason = str(attempt.outcome.exception()) if attempt.outcome else "away"
        if self.counts.state == "ok":
            log.warning("forwarder %s: %s; everything is kept and tried again", self.name, reason)
        self.counts.state = reason

    def _was_at_fault(self) -> bool:
        return self._failed_at is not None and time.monotonic() - self._failed_at < SUSPECT_SECONDS

    def _drop(self, piece: Try, error: Exception) -> None:
        try:
            items = count_items(piece.signal, piece.body)
        except DecodeError:
            items = 1
        if isinstance(error, UncertainDelivery):
            self._failed_at = time.monotonic()
        self.dropped(REFUSED if isinstance(error, PermanentDelivery) else FAILED, items, str(error))


_backoff = tenacity.wait_random_exponential(multiplier=FIRST_RETRY_SECONDS, max=MAX_RETRY_SECONDS)


def _wait(attempt: tenacity.RetryCallState) -> float:
    """The destination's own hint where it gave one, else exponential with jitter."""
    error = attempt.outcome.exception() if attempt.outcome else None
    hint = error.retry_after_seconds if isinstance(error, RetryableDelivery) else None
    return max(_backoff(attempt), min(hint or 0.0, MAX_HINT_SECONDS))
