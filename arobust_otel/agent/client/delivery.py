"""One parcel, delivered: cut where a part of it is refused, settled or dropped, and counted.

Runs in the sender's thread of `MasterClient`; knows no queue limits and no retries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from arobust_otel import guard
from arobust_otel.agent.client.encode import Part, encode
from arobust_otel.agent.client.transport import Answer, PoisonedBatch, Transport
from arobust_otel.agent.parcel import SIGNAL_OF_LANE, Chunk, Parcel
from arobust_otel.errors import ConfigurationError, PermanentDelivery, RetryableDelivery

# Requests that the search for poisoned items in one parcel may cost: 8 single items among a thousand.
MAX_CUTS = 160


@dataclass(slots=True)
class Outcome:
    """What became of a parcel; `undelivered` has to be tried again because of `retry`."""

    settled: list[Chunk] = field(default_factory=list)
    delivered_items: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    undelivered: list[Parcel] = field(default_factory=list)
    retry: RetryableDelivery | None = None

    def drop(self, reason: str, count: int, why: str = "") -> None:
        """Count items that are given up."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count
            if why:
                self.complaints.append(why)


def deliver(parcel: Parcel, transport: Transport, left_seconds: Callable[[], float]) -> Outcome:
    """Send a parcel; one refused for its content is halved until the bad items stand alone.

    Args:
        parcel: the order of its items is kept, also of what has to be tried again.
        transport: the way to the master.
        left_seconds: time left for the next request; 0 ends the search for bad items.
    """
    outcome = Outcome()
    waiting = [parcel]
    cuts = 0
    while waiting:
        part = waiting.pop()
        try:
            answer = _send(part, transport, left_seconds(), outcome)
        except RetryableDelivery as error:
            outcome.retry = error
            outcome.undelivered = [part, *reversed(waiting)]
            break
        except PoisonedBatch as error:
            if part.items > 1 and cuts < MAX_CUTS:
                cuts += 1
                waiting.extend(reversed(part.halves()))
                continue
            outcome.drop("refused", part.items, str(error))
        except PermanentDelivery as error:
            outcome.drop("refused", part.items, str(error))
        else:
            outcome.drop(
                "rejected", answer.rejected, answer.message or "the master rejected a part of a request"
            )
        outcome.settled.extend(part.chunks)
    return outcome


def _send(parcel: Parcel, transport: Transport, seconds: float, outcome: Outcome) -> Answer:
    """Encode and send once; a bug of ours is a permanent failure of this parcel, never of the thread."""
    if seconds <= 0:
        raise RetryableDelivery("the time for deliveries is over")
    signal = SIGNAL_OF_LANE[parcel.lane]
    parts = [
        Part(item, chunk.identity, chunk.handed_wall_ns) for chunk in parcel.chunks for item in chunk.items
    ]
    encoded, error = guard.attempt("encoding of a batch", lambda: encode(signal, parts))
    if encoded is None:
        raise PoisonedBatch(f"cannot be encoded: {error}")
    answer: Answer | None = Answer()
    if encoded.count:
        answer, error = guard.attempt(
            "delivery", lambda: transport.send(signal, encoded.payload, seconds, parcel.batch_id)
        )
    if answer is None:
        if isinstance(error, (RetryableDelivery, PermanentDelivery)):
            raise error
        if isinstance(error, (OSError, ConfigurationError)):  # the way to the master, not the batch
            raise RetryableDelivery(str(error)) from error
        raise PermanentDelivery(f"{type(error).__name__}: {error}")
    outcome.drop("invalid", len(encoded.refused), encoded.refused[0] if encoded.refused else "")
    outcome.delivered_items += max(0, encoded.count - answer.rejected)
    return answer
