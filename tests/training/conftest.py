"""Real processes under the real `opentelemetry-instrument`, without agent; torch where it is to be had."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from arobust_otel.errors import BeaconError
from arobust_otel.model import beacon

COMMAND = str(Path(sys.executable).parent / "opentelemetry-instrument")


def torch_folder() -> str | None:
    """Empty where torch can be imported as it is, else a folder of the cache; None: no torch."""
    if importlib.util.find_spec("torch") is not None:
        return ""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "arobust"
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return next((str(path) for path in sorted(cache.glob(f"torch-*-{tag}"))), None)


Until = Callable[..., None]


@dataclass
class Started:
    """A process under instrumentation, and the beacons it writes."""

    process: subprocess.Popen[str]
    root: Path

    def folder(self) -> Path:
        return self.root / "job"

    def rank(self, number: int = 0) -> beacon.RankBeacon:
        found = beacon.read(next(self.folder().glob(f"rank-{number}-*.beacon")))
        assert isinstance(found, beacon.RankBeacon)
        return found

    def launcher(self) -> beacon.LauncherBeacon:
        found = beacon.read(next(self.folder().glob("launcher-*.beacon")))
        assert isinstance(found, beacon.LauncherBeacon)
        return found

    def has_rank(self, number: int = 0) -> bool:
        try:
            return bool(self.rank(number))
        except (StopIteration, BeaconError):
            return False

    def side_file(self, suffix: str) -> str:
        return next(self.folder().glob(f"*{suffix}")).read_text(encoding="utf-8", errors="replace")

    def end(self) -> tuple[str, str]:
        """Wait for the end; standard output and standard error."""
        out, err = self.process.communicate(timeout=200)
        return out, err


@dataclass
class Runner:
    """Starts scripts; `root` is where their beacons go."""

    tmp: Path
    root: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __call__(
        self, source: str, *words: str, env: dict[str, str] | None = None, name: str = "train.py"
    ) -> Started:
        script = self.tmp / name
        script.write_text(source, encoding="utf-8")
        return self.command([sys.executable, *words, str(script)], env)

    def command(self, command: list[str], env: dict[str, str] | None = None) -> Started:
        environ = {**os.environ, "AROBUST_AGENT": "off", "AROBUST_BEACON_DIR": str(self.root)}
        environ |= {"AROBUST_JOB_ID": "job", "OMP_NUM_THREADS": "1"} | (env or {})
        environ = {name: value for name, value in environ.items() if value != "-"}
        process = subprocess.Popen(
            [COMMAND, *command],
            env=environ,
            cwd=self.tmp,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self.started.append(process)
        return Started(process, self.root)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Runner]:
    root = tmp_path / "beacons"
    root.mkdir(mode=0o700)
    runner = Runner(tmp_path, root)
    yield runner
    for process in runner.started:
        process.kill()
        process.communicate()


@pytest.fixture
def torch_env() -> dict[str, str]:
    folder = torch_folder()
    if folder is None:
        pytest.skip("torch is not installed and not in the cache: run the demo once")
    return {"PYTHONPATH": folder} if folder else {}


@pytest.fixture
def until() -> Until:
    """Wait for a condition; one that does not come true in time fails the test."""

    def wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)

    return wait
