"""The client's one thread: takes what is due, sends it, and keeps what cannot be sent.

On the healthy path parcels go from memory to the master. After a failure that may pass, a parcel goes to the
disk where there is one, and what follows it in its lane goes behind it; facts still go first. Which lane may
be tried when is `circuit`'s, whose turn it is then `turns`'.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, set_value

from arobust_otel import guard
from arobust_otel.agent.client.circuit import Circuit, Waits
from arobust_otel.agent.client.delivery import Outcome, deliver
from arobust_otel.agent.client.metrics import ClientMetrics
from arobust_otel.agent.client.queue import ClientQueue
from arobust_otel.agent.client.safekeeping import Safekeeping
from arobust_otel.agent.client.settings import ClientSettings
from arobust_otel.agent.client.transport import Transport
from arobust_otel.agent.client.turns import Turns
from arobust_otel.agent.client.words import Words
from arobust_otel.agent.parcel import SIGNAL_OF_LANE, Chunk, Lane, Parcel
from arobust_otel.errors import RetryableDelivery

# What the sender needs after its last request to count or store what is left.
CLOSING_MARGIN_SECONDS, STORING_MARGIN_SECONDS = 0.25, 1.0
# Above this share of the queue's limits memory is relieved to the disk: a call that hangs may fill the rest.
RELIEF_SHARE = 0.5
# While a lane catches up from the disk, what is newer waits so long in memory: a kill takes little of it.
BEHIND_SECONDS = 1.0
_AFTER_BUG_SECONDS = 1.0
_AGAIN_SECONDS = 1.0  # what the disk refused is offered again
_LOOK_SECONDS = 0.1  # callers drop, too, and tell nobody
_ADOPT_SECONDS = 60.0
_START_SECONDS = 1.0  # where no thread can be started, this is tried again


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a sender works with."""

    queue: ClientQueue
    disk: Safekeeping
    transport: Transport
    metrics: ClientMetrics
    settings: ClientSettings
    words: Words


class Sender:
    """Delivers until it is closed. `start`, `wait` and `close` are for other threads."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._queue, self._disk, self._settings = around.queue, around.disk, around.settings
        self.circuit = Circuit(Waits.of(around.settings))
        self.speaking = threading.Lock()  # held during calls
        self._hands = threading.Lock()  # held by the thread outside of calls: who has it moves parcels
        self._changed = threading.Condition()
        self._flushing = 0
        self._hurry = False
        self._closing_at: float | None = None
        self._failed_in_closing = False
        self._turns = Turns()
        self._tried: dict[Lane, str] = {}
        self._adopt_at = 0.0
        self._thread = threading.Thread(target=self._run, name="arobust-master-client", daemon=True)
        self.started = False
        self._start_at = 0.0
        self._is_closed = False
        self._has_ended = False

    # --- for other threads --------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether nothing failed lately."""
        return not self._around.words.in_outage

    def start(self) -> None:
        """Start the thread, once; where there is no room for one, what comes waits until a later call."""
        with self._changed:
            if self.started or self._is_closed or time.monotonic() < self._start_at:
                return
            _, error = guard.attempt("thread of a client", self._thread.start)
            self.started = error is None
            self._start_at = time.monotonic() + _START_SECONDS
        if error is not None:
            self._around.words.has_no_thread(error)

    def wait(self, condition: Callable[[], bool], deadline: float) -> bool:
        """Send everything now; True where the condition came true before the deadline (monotonic)."""
        with self._changed:
            self._flushing += 1
            try:
                self._wake()
                while not condition() and self._thread.is_alive():
                    left = deadline - time.monotonic()
                    if left <= 0:
                        break
                    self._changed.wait(min(left, _LOOK_SECONDS))
            finally:
                self._flushing -= 1
        return condition()

    def close(self, deadline: float) -> bool:
        """Deliver or store what waits until the deadline (monotonic); True where the thread has ended."""
        left = max(0.0, deadline - time.monotonic())
        if self._closing_at is None:
            margin = STORING_MARGIN_SECONDS if self._disk.is_on else CLOSING_MARGIN_SECONDS
            self._closing_at = deadline - min(margin, left / 2)
        self._wake()
        with self._changed:
            self._is_closed = True
        if self.started:
            self._thread.join(
                max(0.0, self._closing_at + (deadline - self._closing_at) / 4 - time.monotonic())
            )
        if not self.started or self._thread.is_alive():
            self._take_over(deadline)
        return not self._thread.is_alive()

    def _take_over(self, deadline: float) -> None:
        """Store or count everything in the place of the thread, which hangs in a call or never was."""
        if not self._hands.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return
        has_ended_itself = self._has_ended
        try:
            if not has_ended_itself:
                flying = self._queue.flying()
                if flying is not None:
                    self._keep_or_give_back([flying])
                self._end()
        finally:
            self._hands.release()
        if has_ended_itself and self.started:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _wake(self) -> None:
        self._hurry = True
        self._queue.inbox.ring()

    # --- the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        step = guard.contained("MasterClient's sender")(self._step)
        with self._hands:
            try:
                while not self._has_ended and (went_on := step()) is not False:
                    if went_on is None:  # a bug of ours must not spin
                        self._queue.inbox.sleep(_AFTER_BUG_SECONDS, deaf=True)
            finally:
                self._end()

    def _step(self) -> bool:
        """Wait for work and do it; False where the thread has to end."""
        if not self._wait_for_work():
            return False
        self._send_next()
        return True

    def _wait_for_work(self) -> bool:
        """Block until a parcel is due; False where the thread has to end."""
        while True:
            self._look_around()
            if self._closing_at is not None and (self._is_over() or self._has_nothing()):
                return False
            lane, seconds = self._choose()
            if lane is not None:
                return True
            self._sleep(seconds)

    def _has_nothing(self) -> bool:
        return self._queue.is_empty and not self._disk.waiting

    def _is_over(self) -> bool:
        """Whether nothing more can be sent before the end."""
        if self._closing_at is None:
            return False
        if time.monotonic() >= self._closing_at or (self._failed_in_closing and self._disk.is_on):
            return True
        held = [self.circuit.until(lane) for lane in self._working()]
        return bool(held) and min(held) > self._closing_at

    def _working(self) -> list[Lane]:
        """Lanes with something to send."""
        stored = self._disk.lanes()
        return [lane for lane in Lane if lane in stored or self._queue.has(lane)]

    def _look_around(self) -> None:
        """Sort what came, relieve memory, and let what follows failed parcels go to the disk behind them."""
        self._queue.sort()
        if self._hurry:
            self._hurry = False
            self.circuit.hurry()
        if not self._disk.is_on:
            return
        failing = [lane for lane in Lane if self.circuit.fails(lane)]
        behind = [lane for lane in self._disk.lanes() if lane not in failing]
        picks: tuple[Callable[[], Lane | None], ...] = (
            lambda: self._queue.fullest(RELIEF_SHARE),
            lambda: next(iter(self._queue.next_due(failing, eager=False)[0]), None),
            lambda: self._queue.late(behind, BEHIND_SECONDS),
        )
        for pick in picks:
            while (lane := pick()) is not None and self._store_next(lane):
                pass

    def _choose(self) -> tuple[Lane | None, float | None]:
        """The lane whose turn it is, or seconds until some lane may have one; None: nothing waits."""
        now = time.monotonic()
        eager = self._flushing > 0 or self._closing_at is not None
        stored = self._disk.lanes()
        free = self.circuit.free(now)
        due, seconds = self._queue.next_due([lane for lane in free if lane not in stored], eager)
        candidates = [lane for lane in free if lane in stored or lane in due]
        if candidates:
            return (candidates[0] if self.circuit.is_open else self._turns.choose(candidates)), 0.0
        held = [lane for lane in Lane if lane not in free]
        waits = [self.circuit.until(lane) - now for lane in self._working() if lane in held]
        if held and self._disk.is_on:  # what becomes due meanwhile goes there
            refused, later = self._queue.next_due(held, eager=False)
            waits += [_AGAIN_SECONDS if refused or later is None else later]
        return None, min([*waits, *([] if seconds is None else [seconds])], default=None)

    def _sleep(self, seconds: float | None) -> None:
        """Until then, or until a report is due that could go somewhere."""
        somewhere = self._disk.is_on or bool(self.circuit.free(time.monotonic()))
        left = [] if self._closing_at is None else [max(0.001, self._closing_at - time.monotonic())]
        self._queue.inbox.sleep(
            min([*left, *([] if seconds is None else [seconds])], default=None), not somewhere
        )

    # --- one try ------------------------------------------------------------------------------------------

    def _send_next(self) -> None:
        """Try the parcel whose turn it is."""
        lane, _ = self._choose()
        if lane is None:
            return
        stored = lane in self._disk.lanes()
        parcel = self._disk.head(lane) if stored else self._queue.take(lane)
        if parcel is None:  # the disk lost it: that is counted, and tried again later
            self._queue.inbox.sleep(_AGAIN_SECONDS if lane in self._disk.lanes() else 0.0, deaf=True)
            return
        self._turns.took(lane)
        started = time.monotonic()
        outcome = self._deliver(parcel)
        if self._has_ended:  # `close` could not wait: the parcel is in the spool, or counted
            return
        try:
            self._around.metrics.tried(time.monotonic() - started, self._tried.get(lane) == parcel.batch_id)
            self._count(lane, outcome)
            if outcome.retry is not None:
                self._note_failure(lane, outcome.undelivered[0], outcome.retry)
            else:
                self._note_success(lane)
        finally:
            self._settle(parcel, outcome, stored)

    def _deliver(self, parcel: Parcel) -> Outcome:
        """Try a parcel; where that fails by itself, it is dropped and counted: nobody else has it now."""
        self._hands.release()
        try:
            with self.speaking:
                outcome, error = guard.attempt(
                    "delivery of a parcel",
                    lambda: deliver(parcel, self._around.transport, self._left_seconds),
                )
        finally:
            self._hands.acquire()
        if outcome is None:
            outcome = Outcome(settled=list(parcel.chunks))
            outcome.drop("invalid", parcel.items, f"{type(error).__name__}: {error}")
        return outcome

    def _left_seconds(self) -> float:
        left = self._settings.call_seconds
        return left if self._closing_at is None else min(left, self._closing_at - time.monotonic())

    def _count(self, lane: Lane, outcome: Outcome) -> None:
        metrics = self._around.metrics
        metrics.delivered(outcome.delivered_items, SIGNAL_OF_LANE[lane])
        for reason, count in outcome.dropped.items():
            metrics.dropped(reason, count)
        for why in outcome.complaints:
            self._around.words.complain(why)

    def _settle(self, parcel: Parcel, outcome: Outcome, stored: bool) -> None:
        """Move what was tried on; `flush` hears of it last."""
        if stored:
            self._disk.settle(parcel, outcome.undelivered)
        else:
            self._keep_or_give_back(list(outcome.undelivered), outcome.settled)
        self._tell()

    def _store_next(self, lane: Lane) -> bool:
        """Move a lane's next parcel from memory to the disk; False where it stays in memory."""
        parcel = self._queue.take(lane)
        if parcel is None:
            return False
        is_kept = self._keep_or_give_back([parcel])
        self._tell()
        return is_kept

    def _keep_or_give_back(self, parcels: list[Parcel], settled: Sequence[Chunk] = ()) -> bool:
        """The parcel on its way has landed; what is left of it goes to the disk in its order, or waits again.

        Args:
            parcels: what is left; those that wait again stay in the list.
            settled: of the same parcel: delivered, or refused for good.
        """
        try:
            self._queue.settle(settled)
            while parcels and self._disk.keep(parcels[0]):
                self._queue.settle(parcels.pop(0).chunks, in_spool=True)
        finally:
            self._queue.give_back(parcels)
        return not parcels

    def _tell(self) -> None:
        if self._flushing:
            with self._changed:
                self._changed.notify_all()

    def _note_failure(self, lane: Lane, parcel: Parcel, error: RetryableDelivery) -> None:
        self._tried[lane] = parcel.batch_id
        self._failed_in_closing = self._closing_at is not None
        self.circuit.failed(lane, error, time.monotonic())
        self._around.words.failed(error, self._disk.is_on)

    def _note_success(self, lane: Lane) -> None:
        self._tried.pop(lane, None)
        self.circuit.succeeded(lane)
        if self._around.words.in_outage and not self.circuit.is_failing:
            self._around.words.recovered(int(self._around.metrics.totals()["dropped"]))
        if time.monotonic() >= self._adopt_at and self._closing_at is None:
            self._adopt_at = time.monotonic() + _ADOPT_SECONDS
            self._disk.adopt()

    def _end(self) -> None:
        """Store what memory holds, count what nobody keeps; once."""
        if self._has_ended:
            return
        self._has_ended = True
        self._queue.sort()
        for lane in Lane if self._disk.is_on else ():
            while self._store_next(lane):
                pass
        self._queue.close()
        self._disk.close()
        with self._changed:
            self._changed.notify_all()
