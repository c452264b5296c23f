"""Holes of the bare exporters that show in a whole process; each beside MasterClient, which has none."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.agent import certificates
from tests.agent.grpc_server import Received, Reply, serving
from tests.agent.holes import is_hole
from tests.agent.server import Answer, free_port, running

ROOT = Path(__file__).parents[2]
SCHEMES = pytest.mark.parametrize("scheme", ["http", "grpc"])


@contextmanager
def program(name: str, kind: str, address: str, **environ: str) -> Iterator[Any]:
    """One of `hole_programs`; killed at the end."""
    command = [sys.executable, "-m", "tests.agent.hole_programs", name, kind, address]
    running_program = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with running_program as process:
        try:
            yield process
        finally:
            process.kill()


def seconds_to_end(process: Any, limit: float) -> float | None:
    """None where it has not ended within the limit."""
    started = time.monotonic()
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    return time.monotonic() - started


# --- 1: a flush of logs never returns while the master is away: each failure is logged, and exported again


def flush_seconds(kind: str, limit: float, scheme: str = "http") -> float | None:
    with program("flush", kind, f"{scheme}://127.0.0.1:{free_port()}") as process:
        assert process.stdout.readline() == "flushing\n"
        return seconds_to_end(process, limit)


@SCHEMES
def test_a_flush_of_logs_never_returns_with_the_bare_exporter(scheme: str) -> None:
    taken = flush_seconds("bare", 8.0, scheme)
    is_hole(taken is None, "force_flush(2 s) has not returned after 8 s")


@SCHEMES
def test_a_flush_of_logs_returns_at_its_deadline_with_master_client(scheme: str) -> None:
    assert flush_seconds("ours", 20.0, scheme) is not None


# --- 2: the end of a program whose master is away takes as long as the retries ------------------------------


def exit_seconds(kind: str, limit: float, scheme: str = "http") -> float | None:
    with program("exit", kind, f"{scheme}://127.0.0.1:{free_port()}") as process:
        assert process.stdout.readline() == "done\n"
        return seconds_to_end(process, limit)


@SCHEMES
def test_the_end_takes_many_seconds_with_the_bare_exporter(scheme: str) -> None:
    taken = exit_seconds("bare", 4.0, scheme)
    is_hole(taken is None, "still retrying 4 s after the last line of the program")


@SCHEMES
def test_the_end_takes_two_seconds_at_most_with_master_client(scheme: str) -> None:
    taken = exit_seconds("ours", 20.0, scheme)
    assert taken is not None
    assert taken < 12


# --- 3: a fork during an export leaves the child's metrics behind a lock that nobody frees ------------------


def what_became_of_the_child(kind: str) -> tuple[str, list[float]]:
    """What the program says, and the child's measurements that arrived while the parent's call was held."""
    hold, first = threading.Event(), threading.Event()

    def script(signal: str, body: bytes) -> Answer:
        if first.is_set():
            return Answer()
        first.set()
        return Answer(hold=hold)

    with running(script=script) as master, program("fork", kind, master.url) as process:
        said = fork_during_a_call(process, first)
        hold.set()
        return said, [value for _, value, _ in master.points() if value >= 2]


def fork_during_a_call(process: Any, called: threading.Event) -> str:
    assert called.wait(20)
    process.stdin.write("fork\n")
    process.stdin.flush()
    return str(process.stdout.readline().strip())


def test_a_child_forked_during_an_export_hangs_with_the_bare_reader() -> None:
    said, arrived = what_became_of_the_child("bare")
    is_hole((said, arrived) == ("child hangs", []), "the child's reader waits for a lock of its parent")


def test_a_child_forked_during_an_export_reports_with_master_client() -> None:
    assert what_became_of_the_child("ours") == ("child ended with 0", [2])


def what_became_of_the_child_over_grpc(kind: str) -> tuple[str, list[float]]:
    """As `what_became_of_the_child`."""
    hold, first = threading.Event(), threading.Event()

    def script(received: Received) -> Reply:
        if first.is_set():
            return Reply()
        first.set()
        return Reply(hold=hold)

    with serving(script=script) as master, program("fork", kind, master.target) as process:
        said = fork_during_a_call(process, first)
        arrived = [value for value in master.values() if value >= 2]
        hold.set()
        return said, arrived


def test_a_child_forked_during_a_call_over_grpc_hangs_with_the_bare_reader() -> None:
    found = what_became_of_the_child_over_grpc("bare")
    is_hole(found == ("child hangs", []), "the child's reader waits for a lock of its parent")


def test_a_child_forked_during_a_call_over_grpc_reports_with_master_client() -> None:
    assert what_became_of_the_child_over_grpc("ours") == ("child ended with 0", [2])


# --- 4: a client's certificate is loaded only where an authority is named, too ------------------------------


def lines_over_mutual_tls(kind: str, folder: Path) -> list[str]:
    """What arrives where the server's authority is one of the system's, as gRPC finds them."""
    pki = certificates.make(folder)
    credentials = grpc.ssl_server_credentials(
        [(pki.read("server.key"), pki.read("server.pem"))], pki.read("ca.pem"), True
    )
    environ = {
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": pki.path("ca.pem"),
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": pki.path("client.pem"),
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": pki.path("client.key"),
    }
    with serving(credentials=credentials) as master:
        with program("certificate", kind, master.target, **environ) as process:
            assert seconds_to_end(process, 30) is not None
        return master.bodies()


def test_mutual_tls_with_a_known_authority_fails_with_the_bare_exporter(tmp_path: Path) -> None:
    is_hole(lines_over_mutual_tls("bare", tmp_path) == [], "no certificate is sent without a CA of one's own")


def test_mutual_tls_with_a_known_authority_works_with_master_client(tmp_path: Path) -> None:
    assert lines_over_mutual_tls("ours", tmp_path) == ["hello"]
