"""Programs of other projects as children of a test: on free ports of this machine, ended with the test."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.master.running import until
from tests.ports import free_ports
from tools.stack.programs import BY_NAME, find

CONFIG = Path(__file__).parents[2] / "collector_config"
READY_SECONDS = 120.0
END_SECONDS = 60.0
AT_ONCE = (
    "-ingester.min-ready-duration=0s"  # Loki alone waits 15 s for a cluster before it calls itself ready
)


def program(name: str) -> str:
    """Path of a program; skips the test where it is not built."""
    path = find(name)
    if path is None:
        pytest.skip(f"{BY_NAME[name].words} is not built: make stack-programs")
    return str(path)


def check(
    command: Sequence[str], environ: Mapping[str, str] | None = None, folder: Path | None = None
) -> str:
    """Run a program to its end; its words, which are the failure's message where it is not pleased."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=READY_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def configuration(folder: Path, replaced: Mapping[str, str]) -> Path:
    """A copy of collector_config/ whose addresses are this test's; every one of them must occur."""
    copy = folder / "collector_config"
    shutil.copytree(CONFIG, copy)
    for path in copy.rglob("*.y*ml"):
        text = path.read_text(encoding="utf-8")
        for old, new in replaced.items():
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
    everything = "".join(path.read_text(encoding="utf-8") for path in CONFIG.rglob("*.y*ml"))
    for old in replaced:
        assert old in everything, f"{old} is in no file of collector_config/"
    return copy


@contextlib.contextmanager
def running(
    name: str, arguments: Sequence[str], folder: Path, ready: str, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that answers 200 at the URL `ready`; its words are in ``<folder>/<name>.log``."""
    log = folder / f"{name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [program(name), *arguments],
            cwd=folder,
            env={**os.environ, "OTEL_TRACES_SAMPLER": "always_off", "NO_PROXY": "*", **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        until(f"{name} is ready", lambda: _answers(process, log, ready), READY_SECONDS)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(END_SECONDS)


@contextlib.contextmanager
def collecting(file: str, folder: Path, master: str, **environ: str) -> Iterator[str]:
    """The Collector under one of our files; yields the URL of its OTLP/HTTP receiver."""
    health, http, grpc, metrics = free_ports(4)
    values = {
        "AROBUST_MASTER": master,
        "OTELCOL_HEALTH": f"127.0.0.1:{health}",
        "OTELCOL_HTTP": f"127.0.0.1:{http}",
        "OTELCOL_GRPC": f"127.0.0.1:{grpc}",
        "OTELCOL_METRICS_PORT": str(metrics),
        "OTELCOL_QUEUE": str(folder / "queue"),
        **environ,
    }
    arguments = ["--config", str(CONFIG / file)]
    with running("otelcol", arguments, folder, f"http://127.0.0.1:{health}", values):
        yield f"http://127.0.0.1:{http}"


def listens_beyond(pid: int) -> list[str]:
    """Addresses where a process listens to other machines."""
    held = psutil.Process(pid).net_connections("inet")
    places = {(socket_.laddr.ip, socket_.laddr.port) for socket_ in held if socket_.status == "LISTEN"}
    assert places, "it listens nowhere"
    return [f"{ip}:{port}" for ip, port in sorted(places) if not ipaddress.ip_address(ip).is_loopback]


def _answers(process: subprocess.Popen[bytes], log: Path, url: str) -> bool:
    if process.poll() is not None:
        raise AssertionError(f"ended with {process.returncode}:\n{log.read_text(errors='replace')[-4000:]}")
    with contextlib.suppress(requests.RequestException):
        return requests.get(url, timeout=5).status_code == 200
    return False


def asked(url: str, **parameters: Any) -> Any:
    """JSON that a URL answers; None where it does not answer with 200."""
    try:
        answer = requests.get(url, params=parameters, timeout=10)
    except requests.RequestException:
        return None
    return answer.json() if answer.status_code == 200 else None


def until_answer(what: str, ask: Callable[[], Any], seconds: float = READY_SECONDS) -> Any:
    """The first true answer; pauses between questions, since each costs a foreign program some work."""
    import time

    deadline = time.monotonic() + seconds
    while not (found := ask()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)
    return found
