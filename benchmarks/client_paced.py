"""Reports at a steady pace, each timed: the heart of ``client_ways.py``.

What a caller waits has two parts: what a report takes, and what the kernel gives to others meanwhile, such as
the master of the benchmark on the same processors. Both count; those that the kernel interrupted are counted
apart, too. The loop that reports costs processor time of its own, which `empty_loop` measures.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PER_SECOND = 200


@dataclass
class Paced:
    """What was measured; times in seconds."""

    taken: list[float] = field(default_factory=list)
    undisturbed: list[float] = field(default_factory=list)  # of these, those that the kernel let through
    times_ns: list[int] = field(default_factory=list)  # when each was handed over
    cpu_seconds: float = 0.0

    def figures(self) -> dict[str, float]:
        """For the result; processor time with that of the loop."""
        return {
            **percentiles("report", self.taken),
            "report_p99_undisturbed_ms": percentiles("", self.undisturbed)["_p99_ms"],
            "reports_interrupted": len(self.taken) - len(self.undisturbed),
            "reports_paced": len(self.taken),
            "cpu_us_with_loop": round(1e6 * self.cpu_seconds / len(self.taken), 1),
        }


def paced(
    count: int, build: Callable[[int], Any], report: Callable[[Any], None], finish: Callable[[], None]
) -> Paced:
    """Report numbers from 1 to `count`; `finish` ends the processor time, which all threads have together."""
    found = Paced()
    used, started = time.process_time(), time.monotonic()
    for number in range(1, count + 1):
        built = build(number)
        found.times_ns.append(time.time_ns())
        interrupted = _interruptions()
        before = time.perf_counter()
        report(built)
        taken = time.perf_counter() - before
        found.taken.append(taken)
        if _interruptions() == interrupted:
            found.undisturbed.append(taken)
        time.sleep(max(0.0, started + number / PER_SECOND - time.monotonic()))
    finish()
    found.cpu_seconds = time.process_time() - used
    return found


def empty_loop(count: int) -> float:
    """Processor time of the loop for one report that does nothing, in microseconds."""
    found = paced(count, lambda number: [number], lambda built: None, lambda: None)
    return round(1e6 * found.cpu_seconds / count, 1)


def _interruptions() -> int:
    """How often the kernel took the processor away from this thread."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def percentiles(name: str, seconds: list[float]) -> dict[str, float]:
    """P50 and P99 in milliseconds."""
    seconds = sorted(seconds)
    return {
        f"{name}_p50_ms": round(1000 * seconds[len(seconds) // 2], 4),
        f"{name}_p99_ms": round(1000 * seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))], 4),
    }
