"""Under a real launcher, without a master: the broken rank takes the job with it, or holds it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from faults.courier import Courier, carry_out
from faults.plan import draw, write

from tests.ports import free_port

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "train_gpt.py"
pytestmark = [pytest.mark.torch, pytest.mark.timeout(240)]


@contextmanager
def training(fault: str, folder: Path, sockets: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Two ranks; rank 1 has got its order when this is entered."""
    plan = draw(fault, 3, sockets)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(free_port()), str(SCRIPT)]
    command += ["--steps", "1000000", "--log-every", "1", "--extension", str(write(plan, folder))]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "out").open("wb") as output:
        launcher = subprocess.Popen(command, cwd=folder, env=environ, stdout=output, stderr=output)
    try:
        until(lambda: steps(folder) >= 3, "steps", folder)
        with closing(Courier(sockets)) as courier:
            carry_out(plan, 1, 0, courier)
        yield launcher
    finally:
        end(launcher)


def end(launcher: subprocess.Popen[bytes]) -> None:
    ranks = psutil.Process(launcher.pid).children() if launcher.poll() is None else []
    for rank in ranks:
        rank.send_signal(signal.SIGKILL)
    launcher.terminate()
    launcher.wait(60)


def steps(folder: Path) -> int:
    log = folder / "train.log"
    return log.read_text().count(" loss ") if log.exists() else 0


def stands_still(folder: Path, seconds: float) -> bool:
    before = steps(folder)
    time.sleep(seconds)
    return steps(folder) == before


def until(condition: object, what: str, folder: Path, seconds: float = 120.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < limit, f"no {what}: {(folder / 'out').read_text()[-2000:]}"
        time.sleep(0.1)


def test_a_rank_that_hangs_holds_the_others(tmp_path: Path, socket_folder: Path) -> None:
    with training("hang", tmp_path, socket_folder) as launcher:
        until(lambda: stands_still(tmp_path, 1.0), "stop", tmp_path)
        assert stands_still(tmp_path, 3.0)
        assert launcher.poll() is None


def test_a_rank_whose_data_ends_early_exits_with_0_and_its_peer_fails(
    tmp_path: Path, socket_folder: Path
) -> None:
    with training("early_exit", tmp_path, socket_folder) as launcher:
        assert launcher.wait(60) == 1
    text = (tmp_path / "out").read_text()
    assert "local_rank: 0" in text
    assert "local_rank: 1" not in text.split("Root Cause")[-1]
