"""What holds for every test: errors of ours are raised again, and nothing is left running.

A thread or process that a test leaves behind fails this test, not a later one.
"""

from __future__ import annotations

import atexit
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from _pytest.runner import runtestprotocol
from hypothesis import HealthCheck, settings

os.environ["AROBUST_RAISE"] = "1"
# A shell ignores SIGINT in what it runs in the background, and children inherit that: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Inherited by everything that a test starts, so that a process in a session of its own is found too.
_MARK = f"AROBUST_TEST_RUN={os.getpid()}-{time.monotonic_ns()}"
os.environ.update([_MARK.split("=", 1)])

# Agents keep what no master takes: not in the home of whoever runs the tests.
_SPOOLS = tempfile.TemporaryDirectory(prefix="arobust-test-spools-")
os.environ["AROBUST_SPOOL_DIR"] = _SPOOLS.name
atexit.register(_SPOOLS.cleanup)

# An example that takes long on a busy machine is no failure.
settings.register_profile("any", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any")

SETTLE_SECONDS = 20.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fail-on-skip",
        action="store_true",
        help="a skipped test fails the run (the gate sets this: it has everything that tests need)",
    )
    parser.addoption(
        "--rerun-live",
        action="store_true",
        help="run a live test that failed once more and say both (the gate sets this: its machine is busy)",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Live tests run real trainings on few cores: they get minutes, not seconds."""
    for item in items:
        if item.get_closest_marker("live") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(300))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """A second chance for live tests where `--rerun-live` is given; the first failure is printed in full."""
    if not (item.config.getoption("--rerun-live") and item.get_closest_marker("live")):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    if failed := [report for report in reports if report.failed]:
        reporter = item.config.pluginmanager.get_plugin("terminalreporter")
        for report in failed:
            reporter.write_line(
                f"\nfailed, and is run again: {item.nodeid} ({report.when})\n{report.longreprtext}"
            )
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        reporter.write_line(
            f"run again: {item.nodeid} {'failed' if any(r.failed for r in reports) else 'passed'}"
        )
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and session.config.getoption("--fail-on-skip"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"--fail-on-skip: {len(skipped)} skipped", red=True)


def _processes() -> set[psutil.Process]:
    """Our descendants, and detached processes that carry this run's mark."""
    found = set(psutil.Process().children(recursive=True))
    mark = _MARK.encode()
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        if pid == os.getpid():
            continue
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.add(psutil.Process(pid))
        except (OSError, psutil.NoSuchProcess):
            continue
    return found


def _describe(process: psutil.Process) -> str:
    try:
        command = " ".join(process.cmdline())[:160]
        return f"process {process.pid} ({process.status()}): {command}"
    except psutil.ZombieProcess:  # a NoSuchProcess, too
        return f"process {process.pid} ended, and nobody collected it"
    except psutil.NoSuchProcess:
        return ""


def _left(threads: set[threading.Thread], processes: set[psutil.Process]) -> list[str]:
    """In words; a process that ended but waits for its parent's `wait` counts: nobody collected it."""
    alive = [f"thread {thread.name}" for thread in threading.enumerate() if thread not in threads]
    return alive + [text for text in map(_describe, _processes() - processes) if text]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    threads, processes = set(threading.enumerate()), _processes()
    yield
    deadline = time.monotonic() + SETTLE_SECONDS
    while (left := _left(threads, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, "left behind: " + "; ".join(left)
