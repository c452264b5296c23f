"""How long to wait before the next try: full jitter, a server's own hint first. Strategies for tenacity."""

from __future__ import annotations

import random

from tenacity import RetryCallState, wait_random_exponential
from tenacity.wait import wait_base

from arobust_otel.errors import RetryableDelivery


class wait_hinted(wait_base):  # noqa: N801 - tenacity names its strategies like functions
    """Full jitter up to `max_seconds`; after a hint not earlier than it says, spread over another quarter."""

    def __init__(self, first_seconds: float, max_seconds: float) -> None:
        self._jitter = wait_random_exponential(multiplier=first_seconds, max=max_seconds)

    def __call__(self, retry_state: RetryCallState) -> float:
        """Seconds until the next try."""
        error = retry_state.outcome.exception() if retry_state.outcome else None
        hint = error.retry_after_seconds if isinstance(error, RetryableDelivery) else None
        if hint is None:
            return self._jitter(retry_state)
        return hint * random.uniform(1.0, 1.25)  # noqa: S311 - spreads load, protects nothing
