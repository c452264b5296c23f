"""Each variant of each fault does what it says to a process, with nobody watching."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from faults.bodies import BODIES, Body
from faults.courier import Courier, carry_out
from faults.plan import Plan, draw, write

STANDIN = Path(__file__).with_name("standin.py")


def rows(fault: str) -> list[object]:
    found = [body for body in BODIES if body.fault == fault]
    return [pytest.param(body, id=body.variant.replace(" ", "-")) for body in found]


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


class Victim:
    """A stand-in training whose rank 0 got the fault."""

    def __init__(self, process: subprocess.Popen[str], pulse: Path, plan: Plan) -> None:
        self.process, self.pulse, self.plan = process, pulse, plan

    def pulse_stands_still(self, seconds: float = 1.0) -> bool:
        before = self.pulse.read_text()
        time.sleep(seconds)
        return self.pulse.read_text() == before

    def cpu_share(self, seconds: float = 1.0) -> float:
        return psutil.Process(self.process.pid).cpu_percent(seconds) / 100

    def cpu_seconds(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system


@contextmanager
def broken(body: Body, folder: Path, socket_folder: Path) -> Iterator[Victim]:
    plan = draw(body.fault, 7, socket_folder, body.variant)
    command = [sys.executable, str(STANDIN), str(write(plan, folder)), str(folder / "pulse")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        with closing(Courier(socket_folder)) as courier, process.stdout, process.stderr:
            for _ in range(3):
                assert process.stdout.readline()
            until((folder / "pulse").exists)
            carry_out(plan, 0, process.pid, courier)
            yield Victim(process, folder / "pulse", plan)
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


@pytest.mark.parametrize("body", rows("hang"))
def test_a_hang_blocks_the_main_thread_only(body: Body, tmp_path: Path, socket_folder: Path) -> None:
    with broken(body, tmp_path, socket_folder) as victim:
        time.sleep(0.3)
        assert not victim.pulse_stands_still()
        assert victim.cpu_share() < 0.2
        assert victim.process.poll() is None


@pytest.mark.parametrize("body", rows("gil"))
def test_the_interpreter_lock_is_held_without_end(body: Body, tmp_path: Path, socket_folder: Path) -> None:
    with broken(body, tmp_path, socket_folder) as victim:
        until(lambda: victim.pulse_stands_still(0.5))
        assert victim.pulse_stands_still(2.0)
        if body.variant.startswith("burning"):
            before = victim.cpu_seconds()
            until(lambda: victim.cpu_seconds() > before + 0.3)
        else:
            assert victim.cpu_share() < 0.05
        victim.process.terminate()
        assert victim.process.wait(30) == -signal.SIGTERM


@pytest.mark.parametrize("body", rows("segfault"))
def test_an_invalid_access_ends_the_process(body: Body, tmp_path: Path, socket_folder: Path) -> None:
    with broken(body, tmp_path, socket_folder) as victim:
        assert victim.process.wait(30) == -signal.SIGSEGV


@pytest.mark.parametrize("body", rows("exception"))
def test_an_exception_leaves_the_process_up_for_a_while(
    body: Body, tmp_path: Path, socket_folder: Path
) -> None:
    with broken(body, tmp_path, socket_folder) as victim:
        assert victim.process.stderr is not None
        text = ""
        while "Error" not in text.splitlines()[-1:].__str__():
            line = victim.process.stderr.readline()
            assert line
            text += line
        assert f'{victim.plan.file}", line' in text
        assert f"in {victim.plan.function}" in text
        assert victim.process.poll() is None


@pytest.mark.parametrize("body", rows("early_exit"))
def test_data_that_ends_early_ends_the_loop_with_code_0(
    body: Body, tmp_path: Path, socket_folder: Path
) -> None:
    with broken(body, tmp_path, socket_folder) as victim:
        assert victim.process.wait(30) == 0


@pytest.mark.parametrize("body", rows("stop"))
def test_a_stopped_process_stays_stopped(body: Body, tmp_path: Path, socket_folder: Path) -> None:
    with broken(body, tmp_path, socket_folder) as victim:
        until(lambda: psutil.Process(victim.process.pid).status() == psutil.STATUS_STOPPED)


@pytest.mark.parametrize("body", rows("kill"))
def test_a_killed_process_is_gone(body: Body, tmp_path: Path, socket_folder: Path) -> None:
    with broken(body, tmp_path, socket_folder) as victim:
        assert victim.process.wait(30) == -signal.SIGKILL
