"""What our part costs inside a training process: start, memory, and one step.

Everything is measured in one run on one machine, alternating, so that the ratios hold where the seconds do
not. Compared are bare `python`, `opentelemetry-instrument` without us, and with us, as a rank.

    python benchmarks/training_overhead.py [--runs N] [--out benchmarks/results/training.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

COMMAND = str(Path(sys.executable).parent / "opentelemetry-instrument")
RANK = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
OURS = {"AROBUST_AGENT": "off", "AROBUST_JOB_ID": "benchmark"}
SCRIPT = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
WORLDS = ("bare", "instrumented", "arobust")
STEP_BUDGET_NS = 4000
IMPORT_BUDGET_MS = 15


def start_once(world: str, folder: str) -> tuple[float, float, float]:
    """Start a Python that does nothing: wall milliseconds, processor milliseconds, peak MiB."""
    environ = {**os.environ, **RANK, **OURS, "AROBUST_BEACON_DIR": folder}
    if world == "instrumented":
        environ["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = "arobust"
    command = [sys.executable, "-c", SCRIPT]
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(
        command if world == "bare" else [COMMAND, *command], env=environ, capture_output=True, check=True
    )
    wall, after = time.perf_counter() - began, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return wall * 1e3, spent * 1e3, int(done.stdout) / 1024


def measure_starts(runs: int) -> dict[str, dict[str, float]]:
    """Medians per world, the worlds taken in turn."""
    seen: dict[str, list[tuple[float, float, float]]] = {world: [] for world in WORLDS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(runs):
            for world in WORLDS:
                seen[world].append(start_once(world, folder))
    names = ("wall_ms", "processor_ms", "peak_mib")
    return {
        world: {
            name: round(statistics.median(values), 2)
            for name, values in zip(names, zip(*rows, strict=True), strict=True)
        }
        for world, rows in seen.items()
    }


def measure_imports(runs: int) -> float:
    """Processor milliseconds from begin to end of our instrumentor, least of fresh processes."""
    source = (
        "import time, wrapt; from opentelemetry.instrumentation.instrumentor import BaseInstrumentor\n"
        "began = time.process_time()\n"
        "from arobust_otel.training.instrumentor import ArobustInstrumentor\n"
        "ArobustInstrumentor().instrument()\n"
        "print((time.process_time() - began) * 1e3)"
    )
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "rank.py"
        script.write_text(source)
        environ = {**os.environ, **RANK, **OURS, "AROBUST_BEACON_DIR": folder}
        took = [
            float(
                subprocess.run(
                    [sys.executable, str(script)], env=environ, capture_output=True, check=True
                ).stdout
            )
            for _ in range(runs)
        ]
    return round(min(took), 2)


def measure_step(steps: int) -> float:
    """Nanoseconds that our hooks add to a step with six phases; what they surround does nothing."""
    from arobust_otel import guard
    from arobust_otel.model.identity import SINGLE
    from arobust_otel.training.groups import GroupBook
    from arobust_otel.training.page import Page
    from arobust_otel.training.rank import Birth, RankWriter
    from arobust_otel.training.torch_hooks import TorchHooks

    class Optimizer:
        pass

    with tempfile.TemporaryDirectory() as folder:
        page = Page(Path(folder) / "rank-0-1.beacon")
        writer = RankWriter(page, Birth(SINGLE, "benchmark", "host", "train.py", os.getpid(), 1))
        hooks = TorchHooks(writer, GroupBook(), lambda: None)
        optimizer = Optimizer()
        before = guard.contained("optimizer")(hooks.before_optimizer)
        after = guard.contained("optimizer")(hooks.after_optimizer)

        def nothing() -> None:
            return

        load = guard.around("loader", nothing, hooks.before_next, hooks.after_next)
        backward = guard.around("backward", nothing, hooks.before_backward, hooks.after_backward)

        def step() -> None:  # data, forward, backward, none, optimizer, none
            load()
            backward()
            before(optimizer, (), {})
            nothing()
            after(optimizer, (), {})

        def bare() -> None:
            nothing()
            nothing()
            nothing()

        return min(_nanoseconds(step, steps) for _ in range(15)) - min(
            _nanoseconds(bare, steps) for _ in range(15)
        )


def _nanoseconds(function: Callable[[], None], times: int) -> float:
    began = time.thread_time_ns()
    for _ in range(times):
        function()
    return (time.thread_time_ns() - began) / times


def main() -> int:
    """Measure, print, and keep the result; 1 where a budget is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "training.json")
    options = parser.parse_args()
    starts = measure_starts(options.runs)
    bare, instrumented, ours = (starts[world] for world in WORLDS)
    result = {
        "machine": {"python": platform.python_version(), "processors": os.cpu_count()},
        "starts": starts,
        "instrumentor_ms": measure_imports(options.runs),
        "step_with_six_phases_ns": round(measure_step(5000)),
        "ratios": {
            "instrumented_over_bare": round(instrumented["processor_ms"] / bare["processor_ms"], 2),
            "arobust_over_instrumented": round(ours["processor_ms"] / instrumented["processor_ms"], 3),
            "added_peak_mib": round(ours["peak_mib"] - instrumented["peak_mib"], 2),
        },
        "budgets": {"instrumentor_ms": IMPORT_BUDGET_MS, "step_with_six_phases_ns": STEP_BUDGET_NS},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    within = (
        result["instrumentor_ms"] <= IMPORT_BUDGET_MS and result["step_with_six_phases_ns"] <= STEP_BUDGET_NS
    )
    return 0 if within else 1


if __name__ == "__main__":
    raise SystemExit(main())
