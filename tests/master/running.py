"""A real master in a process of its own, and a job that speaks to it over HTTP, for tests of the whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil
import requests

from arobust_otel.checked import Address
from arobust_otel.config import ForwarderSettings, MasterSettings
from arobust_otel.journal import Kind, Reader, Record
from arobust_otel.testing import Story

START = """
import json, sys
from pathlib import Path
from arobust_otel.master.run import main
from arobust_otel.master.wire import Orders
sys.exit(main(Orders.from_line(sys.stdin.buffer.readline()).settings))
"""
ANY = Address("127.0.0.1", 0)


def until(what: str, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true value of a condition; fails after a time limit."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def settings_for(data_dir: Path, **changes: Any) -> MasterSettings:
    """A fast master: ten ticks a second, each of which stands for a second."""
    values = {"otlp_http": ANY, "otlp_grpc": ANY, "api": ANY, "tick_seconds": 0.1}
    values |= {"engine": {"tick_seconds": 1.0}, **changes}
    return MasterSettings(data_dir=data_dir, **values)


def forward_to(endpoint: str, name: str = "sink", **options: Any) -> tuple[ForwarderSettings, ...]:
    return (ForwarderSettings(name, "otlp_http", {"endpoint": endpoint, **options}),)


class Master:
    """Start with `start`, end with `stop` or `kill`; a context manager ends it in any case."""

    def __init__(self, settings: MasterSettings) -> None:
        self.settings = settings
        self.layout = settings.data_dir
        self.process: subprocess.Popen[bytes] | None = None
        self.errors = ""
        self._said: IO[bytes] | None = None  # a file: a pipe is full one day, and is read to its end only

    def start(self, ready: bool = True) -> Master:
        from arobust_otel.master.wire import Orders

        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-c", START],
            stdin=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        assert self.process.stdin is not None
        self.process.stdin.write(Orders(self.settings, {}).to_line())
        self.process.stdin.close()
        if ready:
            try:
                until("master.json", self._is_ready)
            except BaseException:
                self.stop()
                raise
        return self

    def _is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"ended with {self.process.returncode}: {self.ended()}")
        return self.info().get("pid") == self.process.pid

    def info(self) -> dict[str, Any]:
        try:
            values: dict[str, Any] = json.loads((self.layout / "master.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return values

    @property
    def url(self) -> str:
        return str(self.info()["otlp_http"])

    def query(self, path: str) -> Any:
        """Answer of the query API; None while the judge is away."""
        try:
            answer = requests.get(f"{self.info()['api']}{path}", timeout=5)
        except (requests.RequestException, KeyError):
            return None
        return answer.json()

    def incidents(self, cause: str = "process_killed") -> list[dict[str, Any]]:
        """Open ones of a cause: ten ticks a second make a slow test look like a silent agent."""
        found = (self.query("/api/v1/incidents?status=open") or {}).get("incidents", [])
        return [incident for incident in found if incident["cause"] == cause]

    def role(self, name: str) -> int:
        return int(self.info()["roles"][name])

    def kill_role(self, name: str) -> None:
        """SIGKILL, and wait until the supervisor has started it again."""
        pid = self.role(name)
        os.kill(pid, signal.SIGKILL)
        until(f"a new {name}", lambda: self.info() and self.role(name) != pid)

    def kill(self) -> None:
        """SIGKILL for the supervisor and every role at once."""
        assert self.process is not None
        family = []
        for pid in self.info()["roles"].values():
            with suppress(psutil.NoSuchProcess):
                family.append(psutil.Process(pid))
        self.process.kill()
        for role in family:
            with suppress(psutil.NoSuchProcess):
                role.kill()
        self.process.wait(60)
        psutil.wait_procs(family, 60)

    def ended(self) -> str:
        if self._said is not None:
            self.errors = self.said()
            self._said.close()
            self._said = None
        return self.errors

    def said(self) -> str:
        """What it and its roles have written so far."""
        return os.pread(self._said.fileno(), 1 << 24, 0).decode() if self._said is not None else self.errors

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait(60)
            self.ended()

    def __enter__(self) -> Master:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def journal_of(data_dir: Path) -> list[Record]:
    with Reader(data_dir / "journal") as reader:
        records, part = [], reader.read()
        while part:
            records += part
            part = reader.read()
    return records


def outputs_of(data_dir: Path) -> list[tuple[int, int]]:
    """(cause, index) of every stored output."""
    return [(value["cause"], value["index"]) for value in _stored(data_dir)]


def bodies_of(data_dir: Path) -> list[dict[str, Any]]:
    """Bodies of every stored output."""
    return [value["body"] for value in _stored(data_dir)]


def _stored(data_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(record.payload) for record in journal_of(data_dir) if record.kind == Kind.OUTPUT]


@dataclass(slots=True)
class WireStory(Story):
    """A story told to a real master: its agent posts, and posts again what was not acknowledged.

    `acknowledged` are the payloads that the master said it has.
    """

    master: Master | None = None
    acknowledged: list[bytes] | None = None

    @property
    def now_ns(self) -> int:
        return time.time_ns()

    def _feed(self, kind: Kind, payload: bytes, signal: str = "") -> None:
        assert self.master is not None
        self.acknowledged = self.acknowledged if self.acknowledged is not None else []
        if kind == Kind.TICK:
            return
        path = f"/v1/{signal}" if kind == Kind.REQUEST else "/arobust/v1/heartbeat"
        media = "x-protobuf" if kind == Kind.REQUEST else "json"
        headers = {"content-type": f"application/{media}"}
        until(f"{path} acknowledged", lambda: self._post(path, payload, headers))
        self.acknowledged.append(payload)

    def _post(self, path: str, payload: bytes, headers: dict[str, str]) -> bool:
        assert self.master is not None
        try:
            answer = requests.post(self.master.url + path, payload, headers=headers, timeout=5)
        except (requests.RequestException, KeyError):
            return False
        return answer.status_code == 200
