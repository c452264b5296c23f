"""`arobust demo`: start everything, break one rank, judge the verdict, end everything."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from arobust_otel.demo.api import Api, read_master_file
from arobust_otel.demo.drill import Drill
from arobust_otel.demo.options import CANNOT_RUN, INTERRUPTED, RIGHT, WRONG, CannotRun, DemoOptions, Outcome
from arobust_otel.demo.places import Places, copy_script, make_places
from arobust_otel.demo.processes import Processes
from arobust_otel.demo.progress import Progress, show_incidents, show_json
from arobust_otel.demo.torch_env import TorchMissing, ensure
from arobust_otel.demo.verdict import opened, reasons_against
from arobust_otel.demo.watch import Watch
from arobust_otel.model.incident import rfc3339

MASTER_READY_SECONDS = 30.0
TRAINING_ARGUMENTS = ("--steps", "1000000", "--checkpoint-every", "60", "--evaluate-every", "90")


def run(
    *, fault: str, rank: int, ranks: int, as_json: bool, keep: Path | None, timeout_seconds: float | None
) -> int:
    """What the command line calls; see `run_demo`."""
    return run_demo(DemoOptions(fault, rank, ranks, as_json, keep, timeout_seconds))


def run_demo(options: DemoOptions) -> int:
    """One whole run.

    Returns:
        0 where the verdict is right, 1 where it is wrong or missing, 2 where the demo could not run (it says
        why), 130 where it was interrupted. Nothing that it started is left in any case.
    """
    progress = Progress()
    try:
        with _signals_interrupt():
            outcome = _in_places(options, progress)
    except (CannotRun, TorchMissing) as error:
        progress.say(f"The demo could not run: {error}")
        return CANNOT_RUN
    except KeyboardInterrupt:
        progress.say("Interrupted; everything that was started has been ended.")
        return INTERRUPTED
    if options.as_json:
        show_json(outcome)
    _say_judgement(outcome, progress)
    return WRONG if outcome.reasons else RIGHT


def _in_places(options: DemoOptions, progress: Progress) -> Outcome:
    torch = ensure()
    progress.say(torch.says)
    places = make_places(options.keep)
    processes = Processes(places, torch.python_path)
    try:
        return _perform(options, places, processes, progress)
    finally:
        with _signals_ignored():
            progress.say("ending everything that was started")
            for words in processes.end():
                progress.say(f"had to be killed: {words}")
            places.remove()


def _perform(options: DemoOptions, places: Places, processes: Processes, progress: Progress) -> Outcome:
    api = _start_master(places, processes)
    progress.say(f"master listens on {api.otlp_http}, answers on {api.api}")
    drill = Drill(options, places)
    try:
        copy_script(places)
        deadline = time.monotonic() + options.limit_seconds
        arguments = (*TRAINING_ARGUMENTS, "--extension", drill.extension.name)
        processes.start_training(api.otlp_http, options.ranks, _free_port(), arguments)
        progress.say(f"training starts: {options.ranks} ranks, a small GPT on the standard library's text")
        watch = Watch(options, places, processes, api, progress, deadline)
        return _healthy(watch, drill) if options.fault == "none" else _broken(watch, drill)
    finally:
        drill.close()


def _start_master(places: Places, processes: Processes) -> Api:
    processes.start_master()
    end = time.monotonic() + MASTER_READY_SECONDS
    while time.monotonic() < end and processes.master_code() is None:
        found = read_master_file(places.data)
        if found is not None:
            return found
        time.sleep(0.05)
    code = processes.master_code()
    how = (
        f"ended with exit code {code}"
        if code is not None
        else f"was not ready in {MASTER_READY_SECONDS:.0f} s"
    )
    words = (places.run / "master.out").read_text(encoding="utf-8", errors="replace").strip()
    raise CannotRun(f"the master {how}\n{words[-2000:]}")


def _broken(watch: Watch, drill: Drill) -> Outcome:
    options, progress = watch.options, watch.progress
    watch.until_healthy()
    progress.say("training is healthy")
    watch.show_ranks()
    pid = watch.processes.ranks()[options.rank]
    progress.say(f"rank {options.rank} (pid {pid}) gets {drill.says}")
    injected_at = drill.carry_out(options.rank, pid)
    first, seconds = watch.until_open(injected_at)
    if seconds is None:
        progress.say("the time limit came before a verdict")
        progress.block(watch.tail("train.out"))
    else:
        progress.say(f"verdict {seconds:.1f} s after the injection; watching that it stays the only one")
    watch.show_ranks()
    if not options.as_json:
        show_incidents(opened(first))
    final = watch.settle() if seconds is not None else first
    deed = drill.deed(options.rank, pid)
    reasons = reasons_against(deed, final)
    if not reasons and [row["culprits"] for row in opened(first)] != [
        row["culprits"] for row in opened(final)
    ]:
        reasons = ["the culprits changed after the incident was open"]
    return _outcome(watch, final, reasons, injected_at, seconds)


def _healthy(watch: Watch, drill: Drill) -> Outcome:
    watch.until_born()
    begun = time.monotonic()
    watch.progress.say("all ranks are there; their first step is slow on purpose")
    watch.until_healthy()
    undone = watch.healthy_work(drill, begun)
    final = watch.settle()
    watch.show_ranks()
    reasons = [*reasons_against(drill.deed(watch.options.rank, None), final), *undone]
    return _outcome(watch, final, reasons, None, None)


def _outcome(
    watch: Watch, final: list[dict[str, object]], reasons: list[str], at: float | None, seconds: float | None
) -> Outcome:
    options = watch.options
    return Outcome(
        fault=options.fault,
        injected_rank=options.rank if at is not None else None,
        injected_at=rfc3339(int(at * 1e9)) if at is not None else None,
        incidents=tuple(final),
        verdict_after_seconds=round(seconds, 3) if seconds is not None else None,
        reasons=tuple(reasons),
        journal=str(watch.places.journal) if watch.places.keep else None,
    )


def _say_judgement(outcome: Outcome, progress: Progress) -> None:
    for reason in outcome.reasons:
        progress.say(f"WRONG: {reason}")
    if outcome.reasons:
        return
    if outcome.fault == "none":
        progress.say("RIGHT: no incident opened in a healthy job")
    else:
        seconds = f"{outcome.verdict_after_seconds:.1f} s after the injection"
        progress.say(f"RIGHT: rank {outcome.injected_rank} is blamed, {seconds}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does: by ending what it started."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _signals_ignored() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
