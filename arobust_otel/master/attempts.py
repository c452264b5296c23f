"""Sending to one destination: an attempt, what it counts, and when it is made again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import tenacity

from arobust_otel import guard
from arobust_otel.errors import DeliveryError, PermanentDelivery, RetryableDelivery, UncertainDelivery
from arobust_otel.master.control import log
from arobust_otel.master.pace import MOST_BYTES, Counts, Pace
from arobust_otel.otlp.ages import Span, newest_ns, within

FIRST_RETRY_SECONDS = 0.2
MAX_RETRY_SECONDS = 15.0
NEW_SECONDS = 60.0  # an item that is younger is never held to be too old because another one was
MAX_HINT_SECONDS = 60.0  # of what a destination says with Retry-After

REFUSED = "refused"  # reasons of drops, beside those of `otlp.ages`
FAILED = "failed"
REJECTED = "rejected"
EXPIRED = "expired"
DAMAGED = "damaged"
UNREADABLE = "unreadable"


class Stopped(Exception):
    """The master ends; what was not delivered is read again at the next start."""


class Attempts:
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
        self._abort = abort
        self._rejected = 0
        self._taken: dict[str, int] = {}  # signal: requests that the destination took
        self._too_old_ns: dict[str, int] = {}  # signal: time from before which the destination took nothing
        self._moved = False  # something was sent or cut since the last pause

    def accepts(self, signal: str) -> bool:
        """Whether the destination wants this signal."""
        return bool(self.forwarder.accepts(signal))

    def call(self, act: Callable[[], None]) -> bool:
        """Do it until it works; False where it was refused for ever. In order: nothing is put aside.

        Raises:
            Stopped: told to stop before it worked.
        """
        try:
            self._retry(lambda: self._contained(act))
        except PermanentDelivery as error:
            self.dropped(REFUSED, 1, str(error))
            self.counts.state = str(error)
            return False
        self.counts.sent_requests += 1
        self._works()
        return True

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

    def _retry(self, act: Callable[[], None]) -> None:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RetryableDelivery),
            wait=self._pause,
            stop=lambda _: self._abort.is_set(),
            sleep=tenacity.sleep_using_event(self._abort),
            before_sleep=self._away,
            reraise=True,
        )
        try:
            retrying(act)
        except RetryableDelivery:
            raise Stopped from None

    def _pause(self, attempt: tenacity.RetryCallState) -> float:
        """Seconds before the next attempt; short again where the last one got something done."""
        if self._moved:
            attempt.attempt_number, self._moved = 1, False
        return _wait(attempt)

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
        self._taken[signal] = self._taken.get(signal, 0) + 1
        self.pace.grow(len(body))

    def _timely(self, signal: str, body: bytes) -> bytes:
        """Without what is too old or too far ahead for this destination."""
        age = getattr(self.forwarder, "max_age_seconds", 0.0)
        ahead = getattr(self.forwarder, "max_ahead_seconds", 0.0)
        learnt_ns = self._too_old_ns.get(signal, 0)
        if not (age or ahead or learnt_ns):
            return body
        now_ns = time.time_ns()
        span = Span(
            max(learnt_ns, now_ns - int(age * 1e9) if age else 0),
            now_ns + int(ahead * 1e9) if ahead else None,
        )
        left, taken = within(signal, body, span)
        for reason, items in taken.items():
            self.dropped(reason, items, f"limits: {age:g} s of age, {ahead:g} s ahead")
        return left

    def _learn_age(self, signal: str, body: bytes) -> None:
        """One item was refused because of its age: what is older is not worth a request of its own.

        Never of what is new: a store with a wrong idea of the time must say no to each item itself.
        """
        time_ns = newest_ns(signal, body)
        if time_ns < time.time_ns() - int(NEW_SECONDS * 1e9):
            self._too_old_ns[signal] = max(self._too_old_ns.get(signal, 0), time_ns + 1)

    def _works(self) -> None:
        if self.counts.state != "ok":
            log.info("forwarder %s: delivers again", self.name)
            self.counts.state = "ok"

    def _away(self, attempt: tenacity.RetryCallState) -> None:
        self._too_old_ns.clear()  # what comes back may be another store, or an empty one
        reason = str(attempt.outcome.exception()) if attempt.outcome else "away"
        if self.counts.state == "ok":
            log.warning("forwarder %s: %s; everything is kept and tried again", self.name, reason)
        self.counts.state = reason
        self.counts.retries += 1  # last: who sees it may ask for the reason


_backoff = tenacity.wait_random_exponential(multiplier=FIRST_RETRY_SECONDS, max=MAX_RETRY_SECONDS)


def _wait(attempt: tenacity.RetryCallState) -> float:
    """The destination's own hint where it gave one, else exponential with jitter."""
    error = attempt.outcome.exception() if attempt.outcome else None
    hint = error.retry_after_seconds if isinstance(error, RetryableDelivery) else None
    return max(_backoff(attempt), min(hint or 0.0, MAX_HINT_SECONDS))
