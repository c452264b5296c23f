"""Several ways to a master as one: one after the other, or one for each signal."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from arobust_otel.agent.client.transport import Answer, Transport
from arobust_otel.errors import ConfigurationError, RetryableDelivery

# How long another address serves before the first one is tried again, and how long that try may take.
RETURN_SECONDS = 60.0
PROBE_SECONDS = 1.0


class _Several:
    """What is the same for all that are made so far, `made` by what tells them apart."""

    def __init__(self, made: Mapping[Any, Transport]) -> None:
        self._made: dict[Hashable, Transport] = dict(made)

    @property
    def bytes_raw(self) -> int:
        """See `Transport.bytes_raw`."""
        return sum(transport.bytes_raw for transport in self._made.values())

    @property
    def bytes_sent(self) -> int | None:
        """See `Transport.bytes_sent`."""
        sent = [transport.bytes_sent for transport in self._made.values()]
        known = [size for size in sent if size is not None]
        return sum(known) if len(known) == len(sent) else None

    def reset(self) -> None:
        """See `Transport.reset`."""
        for transport in self._made.values():
            transport.reset()

    def close(self) -> None:
        """See `Transport.close`."""
        for transport in self._made.values():
            transport.close()


class PerSignal(_Several):
    """A way for each signal.

    Args:
        made: by signal; under "" what all others take, which may be missing where there are no others.
    """

    def send(self, signal: str, payload: Any, deadline_seconds: float, batch_id: str = "") -> Answer:
        """See `Transport.send`."""
        way = self._made[signal if signal in self._made else ""]
        return way.send(signal, payload, deadline_seconds, batch_id)


class Failover(_Several):
    """Several ways as one: stays with the one that works, and goes back to the first after a while.

    Args:
        makers: make the ways, the preferred one first; each is made when it is first needed.
        return_seconds: how long another one serves before the first is tried again, spread by half of it.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        makers: Sequence[Callable[[], Transport]],
        return_seconds: float = RETURN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__({})
        self._makers = makers
        self._return_seconds = return_seconds
        self._clock = clock
        self.current = 0
        self._return_at = 0.0

    def send(self, signal: str, payload: Any, deadline_seconds: float, batch_id: str = "") -> Answer:
        """See `Transport.send`; while time is left, a way that fails retryably is followed by the next."""
        end = self._clock() + deadline_seconds
        errors: list[RetryableDelivery] = []
        for index, probe in self._candidates():
            left = end - self._clock()
            if errors and left <= 0:
                break
            seconds = min(left, PROBE_SECONDS) if probe else left
            try:
                answer = self._way(index).send(signal, payload, seconds, batch_id)
            except (RetryableDelivery, OSError, ConfigurationError) as error:
                errors.append(
                    error if isinstance(error, RetryableDelivery) else RetryableDelivery(str(error))
                )
                if not probe:
                    self._move_to((index + 1) % len(self._makers))
                continue
            self._move_to(index)
            return answer
        raise _summary(errors)

    def _candidates(self) -> list[tuple[int, bool]]:
        """Indices in the order of trying, each with whether it only looks if the first is back."""
        count = len(self._makers)
        order = [((self.current + step) % count, False) for step in range(count)]
        if self.current != 0 and self._clock() >= self._return_at:
            self._plan_return()
            order = [(0, True), *(item for item in order if item[0] != 0)]
        return order

    def _move_to(self, index: int) -> None:
        if index != self.current:
            self.current = index
            self._plan_return()

    def _plan_return(self) -> None:
        """Spread, so that a thousand agents do not come back at once."""
        self._return_at = self._clock() + self._return_seconds * random.uniform(1.0, 1.5)  # noqa: S311

    def _way(self, index: int) -> Transport:
        if index not in self._made:
            self._made[index] = self._makers[index]()
        return self._made[index]


def _summary(errors: Sequence[RetryableDelivery]) -> RetryableDelivery:
    """Why nobody took it; a hint counts only where every address gave one."""
    hints = [error.retry_after_seconds for error in errors]
    known = [hint for hint in hints if hint is not None]
    reasons = "; ".join(dict.fromkeys(str(error) for error in errors))
    return RetryableDelivery(reasons, min(known) if known and len(known) == len(hints) else None)
