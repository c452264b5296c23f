"""One destination as a stream sees it: sends until all is delivered, dropped with proof, or aside.

A destination that fails (500, or an exception) is down or dislikes the bytes. Proof of the second is that it
takes others just before it fails at these again; without that they are kept, as for any other trouble.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from arobust_otel.errors import (
    DecodeError,
    DeliveryError,
    OverloadedDelivery,
    PermanentDelivery,
    TooOldDelivery,
    UncertainDelivery,
)
from arobust_otel.master.attempts import FAILED, MAX_RETRY_SECONDS, REFUSED, Attempts, Stopped
from arobust_otel.master.pace import Piece
from arobust_otel.otlp.ages import TOO_OLD, count_items

OVERLOADS = 3  # refusals of this kind in a row after which less is sent at once
UNCERTAIN_SECONDS = 30.0  # for which a failing destination gets the same bytes before they are suspected
SUSPECT_SECONDS = 600.0  # for which a destination that failed at some bytes is thought to do so again
CUTS = 200  # new failures in a row after which nothing is cut: it is not the bytes, or not only
CHECKS = 2  # how often an item must fail right after others were taken before it is given up
ASIDE_BYTES = 1024 * 1024  # beyond which a destination that takes nothing at all gets nothing new


class Sender(Attempts):
    """Sends what a stream reads; what the destination fails at waits here, and the cursor before it."""

    def __init__(self, name: str, forwarder: Any, abort: threading.Event) -> None:
        super().__init__(name, forwarder, abort)
        self.uncertain_seconds = UNCERTAIN_SECONDS
        self._waiting: list[Piece] = []  # in the order of the journal
        self._failures: dict[str, int] = {}  # signal: new pieces in a row at which it failed
        self._failed_at: float | None = None
        self._again_at = 0.0
        self._reason = ""

    def send(self, signal: str, body: bytes, offset: int = 0) -> None:
        """Deliver, or put aside what the destination fails at until it has taken something else.

        What it refuses for ever is cut, and the bad items are dropped and counted. The cursor must not pass
        what is aside (`reached`); `again` tries it where nothing else is sent.

        Args:
            signal: of the request.
            body: the request.
            offset: of its first record in the journal.

        Raises:
            Stopped: told to stop before it was delivered.
        """
        self._waiting.append(Piece(signal, body, offset, self.counts.waiting_ns))
        self._retry(self._work)

    def again(self) -> None:
        """Try what is aside, from time to time."""
        if not self._waiting or time.monotonic() < self._again_at:
            return
        self._again_at = time.monotonic() + min(self.uncertain_seconds, MAX_RETRY_SECONDS)
        sent = self.counts.sent_requests
        try:
            self._work(suspects=True)
        except DeliveryError as error:
            self._reason = str(error)
        if self._waiting and self.counts.sent_requests == sent:
            self.counts.state = self._reason
            self.counts.retries += 1

    def holds(self) -> bool:
        """Whether anything was given to it that is neither delivered nor dropped."""
        return bool(self._waiting)

    def reached(self, offset: int) -> int:
        """How far the cursor may move when everything before `offset` was sent."""
        return min([offset, *(piece.offset for piece in self._waiting)])

    def waiting_ns(self) -> int | None:
        """When the oldest of what is aside was received; None where nothing is."""
        return min((piece.received_ns for piece in self._waiting if piece.received_ns), default=None)

    def try_once(self, signal: str, body: bytes) -> bool:
        """Deliver if that works at once: for what will be sent again soon anyway."""
        try:
            self._contained(lambda: self._once(signal, body))
        except DeliveryError:
            self.counts.retries += 1
            return False
        self._failures[signal] = 0
        self._check()
        return True

    def _work(self, *, suspects: bool = False) -> None:
        """Send what waits; raises what makes it necessary to wait and do that again."""
        before = self.counts.sent_requests
        while True:
            taken = self.counts.sent_requests
            self._pass(suspects=suspects)
            if self.counts.sent_requests == taken:
                break
            if not any(not piece.is_single and self._took_others(piece) for piece in self._waiting):
                break
        if self.counts.sent_requests > before:
            self._check()

    def _pass(self, *, suspects: bool) -> None:
        """Once through what waits, in the order of the journal; `_check` cares for suspects."""
        known = [] if suspects else [p for p in self._waiting if p.is_single and self._took_others(p)]
        passed_over, index, error = {id(piece) for piece in known}, 0, None
        while index < len(self._waiting):
            piece = self._waiting[index]
            if id(piece) in passed_over:
                index += 1
                continue
            found = self._attempt(piece)
            left = self._judge(piece, found)
            self._waiting[index : index + 1] = left
            self._moved = self._moved or left != [piece]
            if found is not None and self._abort.is_set():
                raise Stopped
            if left == [piece]:
                index, error = index + 1, found
                self._reason = str(found)
                if found is not None and not (piece.aside and isinstance(found, UncertainDelivery)):
                    raise found
        if error is not None and self._is_full():
            raise error

    def _attempt(self, piece: Piece) -> DeliveryError | None:
        def act() -> None:
            piece.body = self._timely(piece.signal, piece.body)
            if piece.body:
                self._once(piece.signal, piece.body)
                self._failures[piece.signal] = 0

        try:
            self._contained(act)
        except DeliveryError as error:
            return error
        self._works()
        return None

    def _judge(self, piece: Piece, error: DeliveryError | None) -> list[Piece]:
        """What is left of a piece after an attempt: itself, its halves, or nothing."""
        if error is None:
            return []
        if isinstance(error, UncertainDelivery):
            return self._suspect(piece)
        cut: list[Piece] = []
        if isinstance(error, OverloadedDelivery):
            piece.overloads += 1
            cut = piece.cut() if piece.overloads >= OVERLOADS else []
        elif isinstance(error, PermanentDelivery):
            cut = piece.cut()
            if not cut:
                self._refuse(piece, error)
                return []
        if cut:
            self.pace.shrink()
        elif not piece.aside:
            piece.since = None
        return cut or [piece]

    def _suspect(self, piece: Piece) -> list[Piece]:
        """The destination failed: it is given time; then the bytes are cut, or put aside."""
        piece.overloads = 0
        failures = self._failures.get(piece.signal, 0)
        piece.since = piece.since or time.monotonic()
        if piece.aside:
            if piece.is_single or not self._took_others(piece):
                return [piece]
        else:
            at_once = piece.is_part or (self._was_at_fault() and failures < CUTS)
            if not at_once and piece.seconds() < self.uncertain_seconds:
                return [piece]
            self._failures[piece.signal] = failures + 1
        if failures < CUTS:
            cut = piece.cut(suspected=True)
            if cut:
                self.pace.shrink()
                return cut
            piece.is_single = True
        piece.aside, piece.taken = True, self._taken.get(piece.signal, 0)
        return [piece]

    def _check(self) -> None:
        """Something was taken just now: an item that fails now, not for the first time, is to blame."""
        for piece in list(self._waiting):
            due = piece.is_single and piece.seconds() >= self.uncertain_seconds
            if not (due and self._took_others(piece)):
                continue
            error = self._attempt(piece)
            if isinstance(error, UncertainDelivery):
                piece.checks += 1
                piece.taken = self._taken.get(piece.signal, 0)
                if piece.checks < CHECKS:
                    continue
                self._failed_at = time.monotonic()
                self._drop(piece, FAILED, error)
            elif isinstance(error, PermanentDelivery):
                self._refuse(piece, error)
            elif error is not None:
                return
            self._waiting.remove(piece)

    def _took_others(self, piece: Piece) -> bool:
        """Whether the destination has taken requests of this signal since the piece was put aside."""
        return piece.aside and self._taken.get(piece.signal, 0) > piece.taken

    def _is_full(self) -> bool:
        """Whether so much is aside of a destination that takes nothing that reading on must wait."""
        size_bytes = sum(len(piece.body) for piece in self._waiting)
        return size_bytes > ASIDE_BYTES and max(self._failures.values(), default=0) >= CUTS

    def _was_at_fault(self) -> bool:
        return self._failed_at is not None and time.monotonic() - self._failed_at < SUSPECT_SECONDS

    def _refuse(self, piece: Piece, error: PermanentDelivery) -> None:
        """A single item is never taken; what its age says of others is remembered."""
        is_too_old = isinstance(error, TooOldDelivery)
        if is_too_old:
            self._learn_age(piece.signal, piece.body)
        self._drop(piece, TOO_OLD if is_too_old else REFUSED, error)

    def _drop(self, piece: Piece, reason: str, error: Exception) -> None:
        try:
            items = count_items(piece.signal, piece.body)
        except DecodeError:
            items = 1
        self.dropped(reason, items, str(error))
