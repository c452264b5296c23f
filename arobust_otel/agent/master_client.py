"""MasterClient: takes what collectors produce, and sees that it reaches the master.

One thread sends; `report` only appends to a bounded backlog, so it never blocks and never raises. Around the
SDK's exporters stand batches by size and age, retries with jitter, a deadline per call, and acknowledgements.
Collectors, log files and the disk spool are not its business: a spool plugs in as `spill`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, set_value
from tenacity import RetryCallState, Retrying, retry_if_exception_type

from arobust_otel import guard
from arobust_otel.agent.backlog import Backlog, Chunk, Lane, Receipt, by_lane
from arobust_otel.agent.client_metrics import ClientMetrics
from arobust_otel.agent.client_settings import ClientSettings
from arobust_otel.agent.delivery import Outcome, deliver
from arobust_otel.agent.http_transport import HttpTransport
from arobust_otel.agent.retry import wait_hinted
from arobust_otel.agent.transport import Transport
from arobust_otel.errors import RetryableDelivery
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import Point

# What the sender needs after its last request to count what is left.
CLOSING_MARGIN_SECONDS = 0.25

Spill = Callable[[Chunk], bool]  # takes what does not fit in memory; True where it keeps it


class MasterClient:
    """Delivers points, events, log lines and stacks of one job on one node to the master.

    Args:
        master_addr: base URL of the master; a bare ``host:port`` (OTLP/gRPC) is refused for now.
        resource: the attempt that items belong to unless `report` names another.
        settings: limits and times.
        transports: makes the way to an address; the seam for OTLP/gRPC.
        spill: takes what does not fit in memory; the seam for a disk spool.
        say: where the one warning of an outage goes; standard error by default.

    Raises:
        ConfigurationError: `master_addr` is no URL.
    """

    def __init__(
        self,
        master_addr: str,
        resource: JobIdentity,
        settings: ClientSettings | None = None,
        *,
        transports: Callable[[str, float], Transport] = HttpTransport,
        spill: Spill | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.master_addr = master_addr
        self.resource = resource
        self._settings = settings or ClientSettings()
        self._transport = transports(master_addr, self._settings.call_seconds)
        self._spill = spill
        self._say = say or _to_standard_error
        self._metrics = ClientMetrics(time.time_ns())
        self._backlog = Backlog(self._settings.queue_items, self._settings.queue_bytes)
        self._condition = threading.Condition()
        self._flushing = 0
        self._hurry = False
        self._closing_at: float | None = None
        self._outage_since: float | None = None
        self._complained: set[str] = set()
        self._contained_report = guard.contained("MasterClient.report")(self._report)
        self._thread = threading.Thread(target=self._run, name="arobust-master-client", daemon=True)
        self._thread.start()

    def report(
        self,
        items: Iterable[Any],
        acknowledged: Callable[[], None] | None = None,
        urgent: bool = False,
        identity: JobIdentity | None = None,
        given_up: Callable[[], None] | None = None,
    ) -> None:
        """Hand items over. Returns at once and never raises.

        Args:
            items: Point, Event, LogLine, StackCapture; anything else is counted as invalid.
            acknowledged: called once, from the sender's thread, when every item has been taken by the master
                or refused for good; never where one had to be dropped.
            urgent: points and log lines are sent as soon as facts are. Facts are always urgent.
            identity: the attempt that the items belong to.
            given_up: called at most once, instead of `acknowledged`, when an item had to go for lack of room.
        """
        receipt = Receipt(acknowledged, given_up)
        attempt = identity or self.resource
        self._contained_report(items, receipt, urgent, attempt)

    def flush(self, deadline_seconds: float) -> bool:
        """Send everything now; True where all that was handed over before is delivered or given up."""
        deadline = time.monotonic() + deadline_seconds
        with self._condition:
            self._flushing += 1
            self._hurry = True
            self._condition.notify_all()
            try:
                return (
                    self._condition.wait_for(
                        lambda: self._backlog.items == 0 or not self._thread.is_alive(),
                        max(0.0, deadline - time.monotonic()),
                    )
                    and self._backlog.items == 0
                )
            finally:
                self._flushing -= 1

    def close(self, deadline_seconds: float = 5.0) -> None:
        """Deliver what can be delivered before the deadline, drop and count the rest, end the thread."""
        deadline = time.monotonic() + deadline_seconds
        with self._condition:
            if self._closing_at is None:
                self._closing_at = deadline - min(CLOSING_MARGIN_SECONDS, deadline_seconds / 2)
            self._hurry = True
            self._condition.notify_all()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._drop_rest()
        if not self._thread.is_alive():
            self._transport.close()

    def stats(self) -> dict[str, float]:
        """Figures for people and heartbeats: counts since the start, and what waits now."""
        with self._condition:
            oldest = self._backlog.oldest_mono()
            now: dict[str, float] = {
                "queue_items": self._backlog.items,
                "queue_bytes": self._backlog.bytes,
                "oldest_age_seconds": round(time.monotonic() - oldest, 3) if oldest is not None else 0.0,
                "connected": float(self._outage_since is None),
            }
        return now | self._metrics.totals()

    def self_points(self, now_ns: int) -> list[Point]:
        """The client about itself, as points to be reported like all others."""
        return self._metrics.points_with(self.stats(), now_ns)

    # --- the reporting side -------------------------------------------------------------------------------

    def _report(
        self,
        items: Iterable[Any],
        receipt: Receipt,
        urgent: bool,
        identity: JobIdentity,
    ) -> None:
        lanes, strangers = by_lane(items)
        total = sum(map(len, lanes.values()))
        self._metrics.dropped("invalid", strangers)
        self._metrics.accepted(total)
        receipt.outstanding = total
        now = (identity, receipt, time.time_ns(), time.monotonic(), urgent)
        with self._condition:
            for lane, found in lanes.items():
                chunk = Chunk(lane, found, *now)
                if self._closing_at is not None:
                    self._lose(chunk, "closed")
                    continue
                for lost in self._backlog.put(chunk):
                    self._lose(lost, "queue_full")
            self._condition.notify_all()
        if not total and receipt.acknowledged is not None:
            guard.contained("acknowledgement")(receipt.acknowledged)()

    def _drop_rest(self) -> None:
        with self._condition:
            for chunk in self._backlog.clear():
                self._lose(chunk, "closed")

    def _lose(self, chunk: Chunk, reason: str) -> None:
        if self._spill is not None and self._spill(chunk):
            return
        if not chunk.receipt.lost and reason == "queue_full" and chunk.receipt.given_up is not None:
            guard.contained("given up")(chunk.receipt.given_up)()
        chunk.receipt.lost = True
        self._metrics.dropped(reason, len(chunk.items))

    # --- the sender's thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        retrying = Retrying(
            retry=retry_if_exception_type(RetryableDelivery),
            wait=wait_hinted(self._settings.retry_first_seconds, self._settings.retry_max_seconds),
            stop=lambda _state: self._is_over(),
            sleep=self._pause,
            before_sleep=self._note_outage,
            reraise=True,
        )
        while self._wait_for_work():
            guard.contained("MasterClient's sender")(self._send_what_is_due)(retrying)
        self._drop_rest()

    def _send_what_is_due(self, retrying: Retrying) -> None:
        try:
            while retrying(self._send_next):
                pass
        except RetryableDelivery:  # time is over: `close` counts what is left
            return

    def _is_over(self) -> bool:
        return self._closing_at is not None and time.monotonic() >= self._closing_at

    def _wait_for_work(self) -> bool:
        """Block until a batch is due; False where the thread has to end."""
        with self._condition:
            while True:
                if self._closing_at is not None and (self._backlog.items == 0 or self._is_over()):
                    return False
                lane, seconds = self._next_due()
                if lane is not None:
                    return True
                self._condition.wait(seconds)

    def _next_due(self) -> tuple[Lane | None, float | None]:
        """The most urgent lane with a batch that is due, or seconds until one is; None: nothing waits."""
        now, soonest = time.monotonic(), None
        eager = self._flushing > 0 or self._closing_at is not None
        for lane in Lane:
            head = self._backlog.oldest(lane)
            if head is None:
                continue
            urgent = lane <= Lane.STACKS or head.urgent or self._backlog.has_urgent(lane)
            age = self._settings.urgent_seconds if urgent else self._settings.bulk_seconds
            left = head.handed_mono + age - now
            if left <= 0 or eager or self._backlog.has(lane, self._settings.batch_items):
                return lane, 0.0
            soonest = left if soonest is None else min(soonest, left)
        return None, soonest

    def _send_next(self) -> bool:
        """Deliver the most urgent batch that is due; False where there is none."""
        with self._condition:
            self._hurry = False
            lane, _ = self._next_due()
            if lane is None or self._is_over():
                return False
            chunks = self._backlog.take(lane, self._settings.batch_items, self._settings.batch_bytes)
        started = time.monotonic()
        outcome = deliver(chunks, self._transport, self._left_seconds)
        self._metrics.latency(time.monotonic() - started)
        self._settle(outcome)
        if outcome.retry is not None:
            raise outcome.retry
        self._note_recovery()
        return True

    def _left_seconds(self) -> float:
        left = self._settings.call_seconds
        return left if self._closing_at is None else max(0.1, min(left, self._closing_at - time.monotonic()))

    def _settle(self, outcome: Outcome) -> None:
        """Count, acknowledge outside the lock, and let what was not delivered wait again."""
        self._metrics.delivered(outcome.delivered_items)
        for reason, count in outcome.dropped.items():
            self._metrics.dropped(reason, count)
        for complaint in outcome.complaints:
            self._complain(complaint)
        with self._condition:
            finished = [chunk.receipt for chunk in outcome.settled if chunk.receipt.settle(len(chunk.items))]
        for receipt in finished:
            if receipt.acknowledged is not None:
                guard.contained("acknowledgement")(receipt.acknowledged)()
        with self._condition:  # only now is it delivered for those who wait in `flush`
            self._backlog.done(outcome.settled)
            self._backlog.landed()
            for chunk in self._backlog.give_back(outcome.undelivered):
                self._lose(chunk, "queue_full")
            self._condition.notify_all()

    def _pause(self, seconds: float) -> None:
        """Wait before the next try; `flush` and `close` end the pause once."""
        with self._condition:
            if self._closing_at is not None:
                seconds = max(0.0, min(seconds, self._closing_at - time.monotonic()))
            self._condition.wait_for(lambda: self._hurry, seconds)
            self._hurry = False

    def _note_outage(self, state: RetryCallState) -> None:
        if self._outage_since is not None:
            return
        self._outage_since = time.monotonic()
        error = state.outcome.exception() if state.outcome else None
        self._say(
            f"the master at {self.master_addr} does not take data ({error}); "
            f"up to {self._settings.queue_items} items are kept until it does, training is not affected"
        )

    def _note_recovery(self) -> None:
        if self._outage_since is None:
            return
        seconds, self._outage_since = time.monotonic() - self._outage_since, None
        dropped = int(self._metrics.totals()["dropped"])
        self._say(f"the master takes data again after {seconds:.1f} s; {dropped} items dropped so far")

    def _complain(self, why: str) -> None:
        """Say once why items were given up."""
        if why not in self._complained and len(self._complained) < 20:
            self._complained.add(why)
            self._say(f"items were given up and counted: {why}")


def _to_standard_error(text: str) -> None:
    sys.stderr.write(f"arobust: {text}\n")


__all__ = ["ClientSettings", "MasterClient", "Spill"]
