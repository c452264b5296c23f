"""One batch, delivered: cut where a part of it is refused, settled or dropped, and counted.

Runs in the sender's thread of `MasterClient`; knows no queue limits and no retries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from arobust_otel import guard
from arobust_otel.agent.backlog import SIGNAL_OF_LANE, Chunk
from arobust_otel.agent.encode import Part, encode
from arobust_otel.agent.transport import Answer, PoisonedBatch, Transport
from arobust_otel.errors import PermanentDelivery, RetryableDelivery

# Requests that the search for poisoned items in one batch may cost: 8 single items among a thousand.
MAX_CUTS = 160


@dataclass(slots=True)
class Outcome:
    """What became of a batch; `undelivered` has to be tried again because of `retry`."""

    settled: list[Chunk] = field(default_factory=list)
    delivered_items: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    undelivered: list[Chunk] = field(default_factory=list)
    retry: RetryableDelivery | None = None

    def drop(self, reason: str, count: int, why: str = "") -> None:
        """Count items that are given up."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count
            if why:
                self.complaints.append(why)


def deliver(chunks: Sequence[Chunk], transport: Transport, left_seconds: Callable[[], float]) -> Outcome:
    """Send chunks of one lane; a batch refused for its content is halved until the bad items stand alone.

    Args:
        chunks: in order; the order is kept, also of what has to be tried again.
        transport: the way to the master.
        left_seconds: time left for the next request.
    """
    outcome = Outcome()
    waiting: list[list[Chunk]] = [list(chunks)]
    cuts = 0
    while waiting:
        batch = waiting.pop()
        try:
            answer = _send(batch, transport, left_seconds(), outcome)
        except RetryableDelivery as error:
            outcome.retry = error
            outcome.undelivered = [chunk for part in (batch, *reversed(waiting)) for chunk in part]
            break
        except PoisonedBatch as error:
            if count_items(batch) > 1 and cuts < MAX_CUTS:
                cuts += 1
                waiting.extend(reversed(halves(batch)))
                continue
            outcome.drop("refused", count_items(batch), str(error))
        except PermanentDelivery as error:
            outcome.drop("refused", count_items(batch), str(error))
        else:
            outcome.drop(
                "rejected", answer.rejected, answer.message or "the master rejected a part of a request"
            )
        outcome.settled.extend(batch)
    return outcome


def _send(batch: list[Chunk], transport: Transport, seconds: float, outcome: Outcome) -> Answer:
    """Encode and send once; a bug of ours is a permanent failure of this batch, never of the thread."""
    signal = SIGNAL_OF_LANE[batch[0].lane]
    parts = [Part(item, chunk.identity, chunk.handed_wall_ns) for chunk in batch for item in chunk.items]
    encoded, error = guard.attempt("encoding of a batch", lambda: encode(signal, parts))
    if encoded is None:
        raise PoisonedBatch(f"cannot be encoded: {error}")
    answer: Answer | None = Answer()
    if encoded.count:
        answer, error = guard.attempt("delivery", lambda: transport.send(signal, encoded.payload, seconds))
    if answer is None:
        if isinstance(error, (RetryableDelivery, PermanentDelivery)):
            raise error
        raise PermanentDelivery(f"{type(error).__name__}: {error}")
    outcome.drop("invalid", len(encoded.refused), encoded.refused[0] if encoded.refused else "")
    outcome.delivered_items += max(0, encoded.count - answer.rejected)
    return answer


def count_items(chunks: Iterable[Chunk]) -> int:
    """Items of some chunks."""
    return sum(len(chunk.items) for chunk in chunks)


def halves(chunks: Sequence[Chunk]) -> tuple[list[Chunk], list[Chunk]]:
    """Two parts of about the same number of items, in order; a chunk is cut where the middle lies in it."""
    middle = count_items(chunks) // 2
    first: list[Chunk] = []
    for index, chunk in enumerate(chunks):
        size = len(chunk.items)
        if size > middle:
            head, tail = chunk.cut(middle)
            return [*first, *([head] if middle else [])], [tail, *chunks[index + 1 :]]
        first.append(chunk)
        middle -= size
    return first, []
