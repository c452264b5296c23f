"""Watching one run from the outside: until it is healthy, until the verdict, and until nothing more comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from arobust_otel import screen
from arobust_otel.demo.api import Api
from arobust_otel.demo.drill import Drill
from arobust_otel.demo.options import HEALTHY_SECONDS, CannotRun, DemoOptions
from arobust_otel.demo.places import Places
from arobust_otel.demo.processes import Processes
from arobust_otel.demo.progress import Progress
from arobust_otel.demo.verdict import opened

HEALTHY_STEP = 5
POLL_SECONDS = 0.2
SETTLE_SECONDS = 5.0
END_SECONDS = 60.0
DECOY_SECONDS = 75.0
TAIL_LINES = 12
ENDING = ("kill", "segfault", "exception", "early_exit")


@dataclass(slots=True)
class Watch:
    """One run under watch; `deadline` is on the monotonic clock."""

    options: DemoOptions
    places: Places
    processes: Processes
    api: Api
    progress: Progress
    deadline: float

    def until_born(self) -> None:
        """Wait until the master knows every rank."""
        self._until(lambda ranks: len(ranks) == self.options.ranks, "all ranks are known to the master")

    def until_healthy(self) -> None:
        """Wait until the master has seen healthy steps of every rank, and we know their processes."""

        def healthy(ranks: list[dict[str, Any]]) -> bool:
            steps = [row.get("step") or 0 for row in ranks]
            return len(steps) == self.options.ranks and min(steps) >= HEALTHY_STEP

        self._until(healthy, "every rank has made some steps")
        if len(self.processes.ranks()) != self.options.ranks:
            raise CannotRun("the launcher's children are not the ranks that were asked for")

    def until_open(self, injected_at: float) -> tuple[list[dict[str, Any]], float | None]:
        """Wait until an incident is open; returns all incidents and the seconds since the injection."""
        while time.monotonic() < self.deadline:
            found = self.api.incidents() or []
            seconds = time.time() - injected_at
            if any(incident.get("status") == "open" for incident in opened(found)):
                return found, seconds
            pending = [incident["summary"] for incident in found if incident.get("status") == "pending"]
            self.progress.tick(f"{seconds:.0f} s after it: {pending[0] if pending else 'no verdict yet'}")
            time.sleep(POLL_SECONDS)
        return self.api.incidents() or [], None

    def settle(self) -> list[dict[str, Any]]:
        """Watch on until nothing more is to be expected; returns all incidents then."""
        end = time.monotonic() + END_SECONDS
        while self.options.fault in ENDING and self.processes.launcher_code() is None:
            if time.monotonic() > min(end, self.deadline):
                break
            self.progress.tick("the launcher takes the job down")
            time.sleep(POLL_SECONDS)
        time.sleep(SETTLE_SECONDS)
        return self.api.incidents() or []

    def healthy_work(self, drill: Drill, begun: float) -> list[str]:
        """Every irregularity of healthy work, one after another; returns what could not be done."""
        undone = []
        for order, says, ranks in drill.decoys(self.options.rank):
            self.progress.say(says)
            drill.send(ranks, order)
            if not self._answered(drill, len(ranks)):
                undone.append(f"not done in time: {says}")
        while time.monotonic() - begun < HEALTHY_SECONDS and time.monotonic() < self.deadline:
            self._require_running()
            self.progress.tick("healthy work")
            time.sleep(POLL_SECONDS)
        if time.monotonic() - begun < HEALTHY_SECONDS:
            undone.append(f"the time limit came before {HEALTHY_SECONDS:.0f} s of healthy work")
        return undone

    def show_ranks(self) -> None:
        """The table of the ranks on standard error."""
        self.progress.block(screen.render_ranks(self.api.ranks() or []))

    def _answered(self, drill: Drill, count: int) -> bool:
        end = min(self.deadline, time.monotonic() + DECOY_SECONDS)
        while count and time.monotonic() < end:
            self._require_running()
            reply = drill.answer(POLL_SECONDS)
            if reply is not None:
                count -= 1
                self.progress.say(f"  rank {reply[0]} is done: {reply[1]}")
        return count == 0

    def _until(self, condition: Callable[[list[dict[str, Any]]], bool], what: str) -> None:
        while time.monotonic() < self.deadline:
            self._require_running()
            self.processes.ranks()
            ranks = self.api.ranks() or []
            if condition(ranks):
                return
            steps = ", ".join(f"rank {row['rank']}: {row.get('step') or 0}" for row in ranks)
            self.progress.tick(f"training starts; steps: {steps or 'none yet'}")
            time.sleep(POLL_SECONDS)
        raise CannotRun(f"the time limit came before {what}\n{self.tail('train.out')}")

    def _require_running(self) -> None:
        for code, name, output in (
            (self.processes.launcher_code(), "training", "train.out"),
            (self.processes.master_code(), "master", "master.out"),
        ):
            if code is not None:
                raise CannotRun(f"the {name} ended with exit code {code}\n{self.tail(output)}")

    def tail(self, name: str) -> str:
        """The last lines of an output, for a message."""
        try:
            lines = (self.places.run / name).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])
