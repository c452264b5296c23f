"""The bridge to the breaking: loads `faults` from the examples folder, which is no part of this package."""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from arobust_otel.demo.options import CannotRun, DemoOptions
from arobust_otel.demo.places import Places, examples
from arobust_otel.demo.verdict import Deed

ORDER_SECONDS = 40.0


def _load(name: str) -> ModuleType:
    folder = str(examples())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        return importlib.import_module(f"faults.{name}")
    except ImportError as error:
        raise CannotRun(f"what breaks the rank cannot be loaded from {folder}: {error}") from error


class Drill:
    """What will happen to the rank in this run, and the way to make it happen."""

    def __init__(self, options: DemoOptions, places: Places) -> None:
        seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
        plans = _load("plan")
        self._options = options
        self._plan: Any = plans.draw(options.fault, seed, places.sockets)
        self._courier: Any = _load("courier").Courier(places.sockets)
        self.extension: Path = plans.write(self._plan, places.run)

    @property
    def says(self) -> str:
        """In words for the screen: what is done, and where."""
        where = f", in {self._plan.function}() of {self._plan.file}" if self._plan.named else ""
        return f"{self._options.fault}: {self._plan.variant}{where}"

    def close(self) -> None:
        """Give the socket back."""
        self._courier.close()

    def deed(self, rank: int, pid: int | None) -> Deed:
        """What a right verdict has to say."""
        plan = self._plan
        if not plan.named:
            return Deed(plan.cause, rank, pid)
        return Deed(plan.cause, rank, pid, plan.function, plan.file)

    def carry_out(self, rank: int, pid: int) -> float:
        """Do it; returns when it happened, in seconds since the epoch.

        Raises:
            CannotRun: the rank did not take the order.
        """
        try:
            moment: float = _load("courier").carry_out(self._plan, rank, pid, self._courier, ORDER_SECONDS)
        except (OSError, TimeoutError) as error:
            raise CannotRun(f"rank {rank} could not be broken: {error}") from error
        return moment

    def decoys(self, rank: int) -> list[tuple[str, str, tuple[int, ...]]]:
        """Irregularities of healthy work: order, words, and the ranks that get it."""
        everybody = tuple(range(self._options.ranks))
        ranks = {"zero": (0,), "rank": (rank,), "all": everybody}
        return [(decoy.order, decoy.says, ranks[decoy.who]) for decoy in _load("decoys").DECOYS]

    def send(self, ranks: tuple[int, ...], order: str) -> None:
        """Hand an order to several ranks."""
        for rank in ranks:
            self._courier.send(rank, order)

    def answer(self, timeout_seconds: float) -> tuple[int, str] | None:
        """Who is done with its order, and its words; None where nobody is yet."""
        found: tuple[int, str] | None = self._courier.answer(timeout_seconds)
        return found
