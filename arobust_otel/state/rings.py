"""Rings of recent values: signal x rank x slot, float32, with one time per rank and slot.

All ranks of an export are written by one array operation; 100,000 ranks are one too. float32 is for rates
and medians; what must be exact (counters) is kept beside the rings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Rings:
    """The last `slots` samples of every rank.

    values: (signals, ranks, slots) float32, NaN where absent. times: (ranks, slots) seconds since
    `base_ns`, NaN where empty. written: (ranks,) number of samples ever written.
    """

    values: npt.NDArray[np.float32]
    times: Floats
    written: Ints
    base_ns: int

    @classmethod
    def empty(cls, signals: int, ranks: int, slots: int) -> Rings:
        """Rings without a sample."""
        return cls(
            values=np.full((signals, ranks, slots), np.nan, dtype=np.float32),
            times=np.full((ranks, slots), np.nan),
            written=np.zeros(ranks, dtype=np.int64),
            base_ns=0,
        )

    def grow(self, ranks: int) -> None:
        """Make room for `ranks` ranks; what is there stays."""
        missing = ranks - len(self.written)
        if missing <= 0:
            return
        signals, _, slots = self.values.shape
        empty = Rings.empty(signals, missing, slots)
        self.values = np.concatenate([self.values, empty.values], axis=1)
        self.times = np.concatenate([self.times, empty.times])
        self.written = np.concatenate([self.written, empty.written])

    def write(self, ranks: Ints, fresh: Bools, time_ns: int, columns: Floats) -> None:
        """Write one sample per rank; where `fresh` is False the rank's newest slot is overwritten.

        columns: (signals, len(ranks)).
        """
        if self.base_ns == 0:
            self.base_ns = time_ns
        self.written[ranks[fresh]] += 1
        slots = (self.written[ranks] - 1) % self.times.shape[1]
        self.values[:, ranks, slots] = columns
        self.times[ranks, slots] = (time_ns - self.base_ns) / 1e9

    def history(self, signal: int, rank: int) -> tuple[Floats, npt.NDArray[np.float32]]:
        """Times in seconds and values of one rank, oldest first."""
        slots = self.times.shape[1]
        count = int(min(self.written[rank], slots))
        order = (np.arange(count) + int(self.written[rank]) - count) % slots
        return self.times[rank, order], self.values[signal, rank, order]

    def rate(self, signal: int, rank: int, seconds: float) -> float | None:
        """Growth per second of a counter over about the last `seconds`; None where it cannot be told."""
        times, values = self.history(signal, rank)
        known = ~np.isnan(values)
        times, values = times[known], values[known]
        if len(times) < 2:
            return None
        first = int(np.searchsorted(times, times[-1] - seconds, side="left"))
        first = min(first, len(times) - 2)
        span = float(times[-1] - times[first])
        return float(values[-1] - values[first]) / span if span > 0 else None
