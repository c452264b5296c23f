"""The processes of `bench delivery`: a master that is stopped, killed and starved, and a reporter."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from arobust_otel.bench.delivery_reporter import Orders
from arobust_otel.errors import ArobustError

START_SECONDS = 30.0
STOP_SECONDS = 20.0
_DISK_MEBIBYTES = 96


class CannotBench(ArobustError):
    """A process that the bench needs did not start, or did not do what it was told."""


def until(what: str, condition: Callable[[], Any], seconds: float) -> None:
    """Wait for a condition; raises `CannotBench` where it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise CannotBench(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)


class Disk:
    """Where the master's data lies: a small file system of its own where one can be mounted.

    Elsewhere no file of the process that appends may grow: the same system call fails, with "file too large".
    """

    def __init__(self, folder: Path, keep: bool) -> None:
        self.folder = folder
        self._keep = keep
        folder.mkdir(mode=0o700)
        size = f"size={_DISK_MEBIBYTES}m,mode=0700"
        command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
        self.mounted = False
        if os.geteuid() == 0 and shutil.which("mount"):
            self.mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        self._limited: list[psutil.Process] = []

    @property
    def kind(self) -> str:
        """In words."""
        return f"tmpfs of {_DISK_MEBIBYTES} MiB" if self.mounted else "limit of file size"

    def fill(self, writer: psutil.Process) -> None:
        """No room any more; again and again, since files may be deleted meanwhile."""
        if not self.mounted:
            writer.rlimit(psutil.RLIMIT_FSIZE, (1, psutil.RLIM_INFINITY))
            self._limited = [writer]
            return
        with suppress(OSError), (self.folder / "filler").open("ab", buffering=0) as filler:
            while filler.write(b"\0" * 65536):
                pass
        with suppress(OSError), (self.folder / "filler").open("ab", buffering=0) as filler:
            while filler.write(b"\0" * 512):
                pass

    def free(self) -> None:
        """Room again."""
        (self.folder / "filler").unlink(missing_ok=True)
        for writer in self._limited:
            with suppress(psutil.Error):
                writer.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
        self._limited = []

    def close(self) -> None:
        """Unmount; where files are kept, copy them out of it before."""
        if self.mounted:
            self.free()
            if self._keep:
                shutil.copytree(self.folder, self.folder.with_name(f"{self.folder.name}-kept"))
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False)
            self.mounted = False


class Master:
    """`arobust master` in a group of its own, always on the same ports and the same data."""

    def __init__(self, data_dir: Path, output: Path) -> None:
        self.http_port, self.grpc_port, self._api_port = free_ports(3)
        self._data_dir = data_dir
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it takes data."""
        command = [sys.executable, "-m", "arobust_otel.cli", "master", "--data-dir", str(self._data_dir)]
        ports = {"--otlp-http": self.http_port, "--otlp-grpc": self.grpc_port, "--api": self._api_port}
        for option, port in ports.items():
            command += [option, f"127.0.0.1:{port}"]
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        until("a master that is ready", self._is_ready, START_SECONDS)

    def signal(self, number: int) -> None:
        """To the master and all its roles at once."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL for all of it."""
        if self._process is None:
            return
        family = self._family()
        self.signal(signal.SIGKILL)
        self._process.wait(STOP_SECONDS)
        psutil.wait_procs(family, STOP_SECONDS)

    def stop(self) -> None:
        """The regular end; SIGKILL where that takes too long."""
        if self._process is None:
            return
        self.signal(signal.SIGCONT)
        family = self._family()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        for left in psutil.wait_procs(family, 2.0)[1]:
            with suppress(psutil.Error):
                left.kill()

    def receiver(self) -> psutil.Process:
        """The process that appends to the journal."""
        return psutil.Process(int(self._info()["roles"]["receive"]))

    def _is_ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise CannotBench(f"the master ended; see {self._output}")
        return self._info().get("pid") == self._process.pid

    def _info(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self._data_dir / "master.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found

    def _family(self) -> list[psutil.Process]:
        with suppress(psutil.Error):
            if self._process is not None:
                return psutil.Process(self._process.pid).children(recursive=True)
        return []


class ReporterProcess:
    """One reporter; `number` of them have been started."""

    def __init__(self, orders: Orders) -> None:
        self.number = 0
        self._orders = orders
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the next one, and wait until it reports."""
        values = asdict(self._orders) | {"index": self.number}
        command = [sys.executable, "-m", "arobust_otel.bench.delivery_reporter", json.dumps(values)]
        with Orders(**values).path("output").open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self.number += 1
        until("a reporter that reports", lambda: len(self._said()) > 1, START_SECONDS)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def drain(self, say: Callable[[str], None]) -> bool:
        """Let it deliver what it has and end; True where nothing was left."""
        if self._process is None:
            return True
        self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._orders.drain_seconds + STOP_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        if self._process.poll() is None:
            say("the reporter does not end; it is killed")
            self.kill()
        return self._process.returncode == 0

    def spooled(self) -> int:
        """Items that it said to have on its disk."""
        said = self._said()
        return int(json.loads(said[-1]).get("spool_items", 0)) if said else 0

    def waiting(self) -> int:
        """Items that it said to have undelivered."""
        said = self._said()
        if not said:
            return 0
        stats = json.loads(said[-1])
        return int(stats["queue_items"] + stats.get("spool_items", 0))

    def is_alive(self) -> bool:
        """Whether the newest one runs."""
        return self._process is not None and self._process.poll() is None

    def _said(self) -> list[bytes]:
        path = Path(self._orders.folder) / f"stats-{self.number - 1}"
        try:
            return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        except FileNotFoundError:
            return []


def free_ports(count: int) -> list[int]:
    """Ports that are free now."""
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(holder.getsockname()[1]) for holder in holders]
    for holder in holders:
        holder.close()
    return ports
