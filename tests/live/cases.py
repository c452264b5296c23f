"""One live case: `arobust demo --json` as a user runs it, then what its journal has to say and to hide."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from arobust_otel.journal import Reader
from arobust_otel.journal.strip import strip

FAULTS = ("hang", "stop", "gil", "kill", "segfault", "exception", "early_exit", "none")
KEYS = {
    "fault",
    "injected_rank",
    "injected_at",
    "incidents",
    "verdict_after_seconds",
    "ok",
    "journal",
}
# Words by which a detector could know that this is no accident.
TELLTALE = (
    b"inject", b"examples/faults", b"faults.plan", b"courier", b"chaos", b"sabot", b"decoy",
    b"arobust demo", b"arobust_otel.demo", b"arobust_otel/demo",
)  # fmt: skip
# Seconds until an incident is open, by what is done: from the first fact for ends, else the injection.
LIMIT_SECONDS = {
    "hang": 20, "stop": 20, "gil": 20, "kill": 5, "segfault": 5, "exception": 5, "early_exit": 5,
}  # fmt: skip
ENDS = ("kill", "segfault", "exception", "early_exit")
BURNING_SECONDS = 45
CORE_DUMP_SECONDS = 20
DEMO_SECONDS = 480


@dataclass
class Result:
    """What one case gave; `problems` is empty where everything is right."""

    fault: str
    rank: int
    seconds: float | None
    problems: list[str] = field(default_factory=list)
    variant: str = ""
    output: str = ""

    @property
    def ok(self) -> bool:
        return not self.problems


def run_case(fault: str, rank: int, folder: Path) -> Result:
    """Run the demo and check everything that has to hold; never raises because of a wrong verdict.

    Args:
        folder: does not exist yet; the kept run goes there.
    """
    command = [sys.executable, "-m", "arobust_otel.cli", "demo", "--json", "--keep", str(folder)]
    command += ["--fault", fault, "--rank", str(rank)]
    environ = {name: value for name, value in os.environ.items() if name != "AROBUST_RAISE"}
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=DEMO_SECONDS, check=False
    )
    result = Result(fault, rank, None, output=done.stderr)
    found = re.search(rf"gets {fault}: (.*)", done.stderr)
    result.variant = found.group(1).strip() if found else ""
    if done.returncode not in (0, 1):
        result.problems.append(f"exit code {done.returncode}: {done.stderr.strip()[-1500:]}")
        return result
    verdict = json.loads(done.stdout)
    result.seconds = verdict["verdict_after_seconds"]
    result.problems += re.findall(r"WRONG: (.*)", done.stderr)
    result.problems += against_object(verdict, fault, rank, done.returncode)
    result.problems += too_late(result, verdict)
    result.problems += [line for line in done.stderr.splitlines() if "had to be killed" in line]
    result.problems += against_journal(folder)
    return result


def against_object(verdict: dict[str, Any], fault: str, rank: int, code: int) -> list[str]:
    problems = []
    if set(verdict) != KEYS:
        problems.append(f"--json has the keys {sorted(verdict)}")
    if verdict["ok"] != (code == 0):
        problems.append(f"exit code {code} with ok = {verdict['ok']}")
    if verdict["fault"] != fault or verdict["injected_rank"] != (None if fault == "none" else rank):
        problems.append(f"the object is about {verdict['fault']} of rank {verdict['injected_rank']}")
    return problems


def too_late(result: Result, verdict: dict[str, Any]) -> list[str]:
    """Stalls are timed from the injection; ends of a process from the first fact, as the targets say."""
    if result.fault == "none" or result.seconds is None:
        return []
    seconds = result.seconds
    if result.fault in ENDS and verdict["incidents"]:
        first = datetime.fromisoformat(verdict["incidents"][0]["first_evidence_at"].replace("Z", "+00:00"))
        injected = datetime.fromisoformat(verdict["injected_at"].replace("Z", "+00:00"))
        seconds -= max(0.0, (first - injected).total_seconds())
    limit = BURNING_SECONDS if "burning" in result.variant else LIMIT_SECONDS[result.fault]
    if result.fault == "segfault" and dumps_core():
        limit = CORE_DUMP_SECONDS
    if seconds <= limit:
        return []
    return [f"verdict after {seconds:.1f} s, the limit is {limit} s"]


def dumps_core() -> bool:
    import resource

    return resource.getrlimit(resource.RLIMIT_CORE)[0] != 0


def against_journal(folder: Path) -> list[str]:
    """The journal gives the run's incidents again without its stored outputs, and gives nothing away."""
    problems = [f"the journal holds {word!r}" for word in words_in_journal(folder)]
    stripped = folder / "stripped" / "journal"
    strip(folder / "data" / "journal", stripped)
    live = (folder / "data" / "incidents.jsonl").read_text()
    again = replay(stripped.parent)
    if again != live:
        problems.append(f"replay differs:\n  live   {live!r}\n  replay {again!r}")
    return problems


def words_in_journal(folder: Path) -> list[str]:
    words = [*TELLTALE, *drawn_words(folder)]
    found = set()
    with Reader(folder / "data" / "journal") as reader:
        while records := reader.read():
            for record in records:
                payload = record.payload.lower()
                found.update(word.decode() for word in words if word in payload)
    return sorted(found)


def drawn_words(folder: Path) -> list[bytes]:
    """The socket folder and the order of this run, read from the rendered file."""
    words = []
    for path in folder.glob("*.py"):
        text = path.read_text()
        words += re.findall(r"_FOLDER = '(.+)'", text)
        words += re.findall(r'_message\(rank\) == "(.+)"', text)
    return [word.lower().encode() for word in words]


def replay(folder: Path) -> str:
    command = [sys.executable, "-m", "arobust_otel.cli", "replay", str(folder), "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
