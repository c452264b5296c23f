"""The live matrix: every fault with ranks 0 and 2, three times, and a table of times to verdict.

`--once` runs every fault once with a drawn rank, for a gate: a case that fails is run again, once, and both
are reported. Exit code 1 where a case failed (with `--once`: failed twice).
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from cases import FAULTS, Result, run_case


@dataclass
class Case:
    """One cell: its attempts in order; only a gate makes a second one."""

    fault: str
    rank: int
    attempts: list[Result]
    spent_seconds: float

    @property
    def ok(self) -> bool:
        return self.attempts[-1].ok


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    cells = once(options) if options.once else matrix(options)
    folder = Path(tempfile.mkdtemp(prefix="matrix-"))
    begun = time.monotonic()
    try:
        cases = [run_cell(fault, rank, folder, options) for fault, rank in cells]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(table(cases))
    failed = [case for case in cases if not case.ok]
    for case in failed:
        print(f"\nFAILED {case.fault} rank {case.rank}: " + "; ".join(case.attempts[-1].problems))
    if options.junitxml:
        write_junit(cases, options.junitxml)
    minutes = (time.monotonic() - begun) / 60
    print(f"\n{len(cases) - len(failed)} of {len(cases)} cases are right, {minutes:.1f} minutes")
    return 1 if failed else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="every fault once, with a drawn rank")
    parser.add_argument("--rank-seed", type=int, help="draw the ranks of --once from this (printed)")
    parser.add_argument("--faults", default=",".join(FAULTS), help="only these, separated by commas")
    parser.add_argument("--ranks", default="0,2", help="the ranks of the full matrix")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--junitxml", type=Path, help="write the cases as JUnit XML")
    parser.add_argument("--keep", type=Path, help="move the runs of failed cases here")
    return parser.parse_args(arguments)


def once(options: argparse.Namespace) -> list[tuple[str, int]]:
    seed = options.rank_seed
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    chance = random.Random(seed)
    ranks = {fault: chance.randrange(4) for fault in FAULTS}
    print(f"ranks drawn with --rank-seed {seed}: {ranks}", flush=True)
    return [(fault, ranks[fault]) for fault in options.faults.split(",")]


def matrix(options: argparse.Namespace) -> list[tuple[str, int]]:
    ranks = [int(rank) for rank in options.ranks.split(",")]
    return [
        (fault, rank) for _ in range(options.repeats) for fault in options.faults.split(",") for rank in ranks
    ]


def run_cell(fault: str, rank: int, folder: Path, options: argparse.Namespace) -> Case:
    begun, attempts = time.monotonic(), []
    for number in range(2 if options.once else 1):
        place = folder / f"{fault}-{rank}-{time.monotonic_ns()}"
        result = run_case(fault, rank, place)
        attempts.append(result)
        say(result, again=number > 0, spent=time.monotonic() - begun)
        if not result.ok and options.keep and place.exists():
            options.keep.mkdir(parents=True, exist_ok=True)
            shutil.move(place, options.keep / place.name)
            (options.keep / place.name / "demo.err").write_text(result.output)
        shutil.rmtree(place, ignore_errors=True)
        if result.ok:
            break
    return Case(fault, rank, attempts, time.monotonic() - begun)


def say(result: Result, *, again: bool, spent: float) -> None:
    verdict = f"verdict {result.seconds:5.1f} s" if result.seconds is not None else "no verdict   "
    word = "ok  " if result.ok else "FAIL"
    rerun = " (run again)" if again else ""
    print(
        f"{word} {result.fault:<10} rank {result.rank}  {verdict}  "
        f"{spent:4.0f} s in all{rerun}  {result.variant}",
        flush=True,
    )
    for problem in result.problems:
        print(f"       {problem}", flush=True)


def table(cases: Sequence[Case]) -> str:
    lines = [f"\n{'fault':<11}{'runs':>5}{'right':>6}{'min':>8}{'median':>8}{'max':>8}   seconds to verdict"]
    for fault in dict.fromkeys(case.fault for case in cases):
        results = [result for case in cases if case.fault == fault for result in case.attempts]
        times = [result.seconds for result in results if result.ok and result.seconds is not None]
        right = sum(result.ok for result in results)
        numbers = [min(times), statistics.median(times), max(times)] if times else []
        cells = "".join(f"{number:8.1f}" for number in numbers) or f"{'-':>8}" * 3
        lines.append(f"{fault:<11}{len(results):>5}{right:>6}{cells}")
    return "\n".join(lines)


def write_junit(cases: Sequence[Case], path: Path) -> None:
    """A case that was right when run again passes, with what happened before in its output."""
    suite = ElementTree.Element("testsuite", name="live", tests=str(len(cases)))
    suite.set("failures", str(sum(not case.ok for case in cases)))
    for case in cases:
        entry = ElementTree.SubElement(suite, "testcase", classname="live", name=f"{case.fault}-{case.rank}")
        entry.set("time", f"{case.spent_seconds:.1f}")
        problems = [problem for attempt in case.attempts for problem in attempt.problems]
        if not case.ok:
            ElementTree.SubElement(entry, "failure", message=problems[-1][:300]).text = "\n".join(problems)
        elif problems:
            ElementTree.SubElement(entry, "system-out").text = "failed first: " + "\n".join(problems)
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


if __name__ == "__main__":
    sys.exit(main())
