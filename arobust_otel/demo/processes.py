"""Every process of a run: started here, found here, and ended here whatever happened.

All carry the run's beacon folder in their environment or command line: by that the last sweep finds what
has detached itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from arobust_otel.demo.options import CannotRun
from arobust_otel.demo.places import SCRIPT, Places, beside_interpreter
from arobust_otel.master.supervisor import LONGEST_STOP_SECONDS

LAUNCHER_SECONDS = 12.0
RANK_GRACE_SECONDS = 1.5
MASTER_SECONDS = LONGEST_STOP_SECONDS + 5.0  # what it may take, and the interpreter's own end
SWEEP_SECONDS = 8.0
# Of another job: a training that is started from inside one must not believe that it belongs to it.
FOREIGN = ("AROBUST_", "TORCHELASTIC_", "SLURM_", "OMPI_", "PMI_")
FOREIGN_NAMES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)
KEPT = ("AROBUST_RAISE", "AROBUST_TEST_RUN", "AROBUST_CACHE")


class Processes:
    """The processes of one run, by what they are."""

    def __init__(self, places: Places, python_path: Path | None) -> None:
        self._places = places
        self._python_path = python_path
        self._master: subprocess.Popen[bytes] | None = None
        self._launcher: subprocess.Popen[bytes] | None = None
        self._ranks: dict[int, psutil.Process] = {}

    def start_master(self, config: Path | None = None) -> None:
        """`arobust master` on free ports, with the settings of a file where one is given."""
        command = [sys.executable, "-m", "arobust_otel.cli", "master", "--data-dir", str(self._places.data)]
        command += ["--otlp-http", "127.0.0.1:0", "--otlp-grpc", "127.0.0.1:0", "--api", "127.0.0.1:0"]
        command += ["--config", str(config)] if config else []
        self._master = self._start(command, "master.out", self._environment({}))

    def start_training(
        self, master: str, ranks: int, port: int, arguments: Iterable[str], heartbeats: str = ""
    ) -> None:
        """`opentelemetry-instrument torchrun ... train_gpt.py ...`; the ranks meet at `port`.

        Where telemetry goes to a Collector instead of the master, `heartbeats` is the URL of the master.
        """
        torchrun = Path(sys.executable).parent / "torchrun"
        launch = [str(torchrun)] if torchrun.is_file() else [sys.executable, "-m", "torch.distributed.run"]
        instrument = beside_interpreter("opentelemetry-instrument") or "opentelemetry-instrument"
        command = [instrument, *launch, "--nproc-per-node", str(ranks)]
        command += ["--master-addr", "127.0.0.1", "--master-port", str(port), SCRIPT, *arguments]
        environ = self._environment(
            {
                "AROBUST_MASTER": master,
                "AROBUST_LOG_FILES": str(self._places.train_log),
                "OMP_NUM_THREADS": "1",
                "PYTHONUNBUFFERED": "1",
                **({"AROBUST_HEARTBEAT_URL": heartbeats} if heartbeats else {}),
            }
        )
        self._launcher = self._start(command, "train.out", environ)

    def master_code(self) -> int | None:
        """Exit code of the master; None while it runs."""
        return self._master.poll() if self._master else None

    def launcher_code(self) -> int | None:
        """Exit code of the launcher; None while it runs."""
        return self._launcher.poll() if self._launcher else None

    def ranks(self) -> dict[int, int]:
        """Pid of each rank, as the launcher's children say it; those seen once are remembered."""
        if self._launcher is not None and self._launcher.poll() is None:
            with suppress(psutil.Error):
                for child in psutil.Process(self._launcher.pid).children():
                    self._remember(child)
        return {rank: process.pid for rank, process in sorted(self._ranks.items())}

    def end(self) -> list[str]:
        """End everything; returns in words what had to be killed at the very end."""
        self.ranks()
        self._end_training()
        self._end_master()
        return self._sweep()

    def _start(self, command: list[str], output: str, environ: dict[str, str]) -> subprocess.Popen[bytes]:
        try:
            with (self._places.run / output).open("wb") as file:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    cwd=self._places.run,
                    env=environ,
                    start_new_session=True,
                )
        except OSError as error:
            raise CannotRun(f"{command[0]} could not be started: {error}") from error

    def _environment(self, values: dict[str, str]) -> dict[str, str]:
        environ = {
            name: value
            for name, value in os.environ.items()
            if name in KEPT or not (name in FOREIGN_NAMES or name.startswith(FOREIGN))
        }
        environ["AROBUST_BEACON_DIR"] = str(self._places.beacons)
        environ["AROBUST_SPOOL_DIR"] = str(self._places.run / "spool")
        if self._python_path is not None:
            parts = [environ["PYTHONPATH"]] if environ.get("PYTHONPATH") else []
            environ["PYTHONPATH"] = os.pathsep.join([*parts, str(self._python_path)])
        return {**environ, **values}

    def _remember(self, child: psutil.Process) -> None:
        if SCRIPT in " ".join(child.cmdline()):
            rank = child.environ().get("RANK", "")
            if rank.isdigit():
                self._ranks.setdefault(int(rank), child)

    def _end_training(self) -> None:
        ranks = list(self._ranks.values())
        for rank in ranks:
            _signal(rank, signal.SIGCONT)
        if self._launcher is None:
            return
        if self._launcher.poll() is None:
            self._launcher.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(ranks, timeout=RANK_GRACE_SECONDS)
        for rank in alive:
            _signal(rank, signal.SIGKILL)
        _wait_or_kill(self._launcher, LAUNCHER_SECONDS)

    def _end_master(self) -> None:
        if self._master is None:
            return
        roles: list[psutil.Process] = []
        with suppress(psutil.Error):
            roles = psutil.Process(self._master.pid).children(recursive=True)
        self._end_detached(roles)
        if self._master.poll() is None:
            self._master.send_signal(signal.SIGTERM)
        _wait_or_kill(self._master, MASTER_SECONDS)
        for role in roles:
            _signal(role, signal.SIGKILL)

    def _end_detached(self, roles: list[psutil.Process]) -> None:
        """Agents: asked to flush and end while the master is still there to hear it."""
        kept = {role.pid for role in roles} | {self._master.pid if self._master else 0}
        agents = [found for found in self._marked() if found.pid not in kept]
        for agent in agents:
            _signal(agent, signal.SIGTERM)
        psutil.wait_procs(agents, timeout=SWEEP_SECONDS)

    def _sweep(self) -> list[str]:
        left = self._marked()
        words = [f"{process.pid} {_command(process)}" for process in left]
        for process in left:
            _signal(process, signal.SIGCONT)
            _signal(process, signal.SIGKILL)
        _, alive = psutil.wait_procs(left, timeout=SWEEP_SECONDS)
        return [*words, *(f"{process.pid} cannot be ended" for process in alive)]

    def _marked(self) -> list[psutil.Process]:
        mark = str(self._places.beacons)
        found = []
        for process in psutil.process_iter():
            if process.pid == os.getpid():
                continue
            with suppress(psutil.Error, OSError):
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process.environ().get("AROBUST_BEACON_DIR") == mark or mark in process.cmdline():
                    found.append(process)
        return found


def _signal(process: psutil.Process, number: int) -> None:
    with suppress(psutil.Error, ProcessLookupError):
        process.send_signal(number)


def _command(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())[:120]
    return "?"


def _wait_or_kill(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
