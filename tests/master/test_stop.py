"""A stop or a failure at the very start: roles end at once, and nothing but the reason is written."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from arobust_otel.master.layout import Layout
from arobust_otel.master.wire import Orders
from tests.master.running import Master, settings_for, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@contextlib.contextmanager
def judging(data: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process `judge` alone."""
    with socket.create_server(("127.0.0.1", 0)) as api:
        judge = subprocess.Popen(
            [sys.executable, "-m", "arobust_otel.master.roles", "judge"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[api.fileno()],
        )
        assert judge.stdin is not None
        assert judge.stdout is not None
        try:
            with judge.stdin, judge.stdout:
                judge.stdin.write(Orders(settings_for(data), {"api": api.fileno()}).to_line())
                judge.stdin.flush()
                yield judge
        finally:
            judge.kill()
            judge.wait()


def test_a_judge_that_the_receiver_never_greets_can_be_stopped(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.make()
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(layout.outputs_socket))
        mute.listen()
        mute.settimeout(60)
        with judging(tmp_path) as judge, mute.accept()[0]:
            judge.terminate()
            assert judge.wait(60) == 0


def test_a_failed_start_says_the_reason_and_no_more(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "journal").mkdir(parents=True)
    (data / "journal").chmod(0o700)
    (data / "journal" / f"{0:020d}.segment").write_bytes(b"no journal" * 100)
    master = Master(settings_for(data)).start(ready=False)
    assert master.process is not None
    assert master.process.wait(60) in (1, 2)  # every role finds it out: who is first?
    words = master.ended()
    assert "before it was ready" in words
    assert "never retrieved" not in words
    assert "Traceback" not in words


def test_an_interrupted_start_says_nothing_of_itself(tmp_path: Path) -> None:
    """It is interrupted while it waits for the receiver, which is suspended as soon as it is there."""
    master = Master(settings_for(tmp_path / "data")).start(ready=False)
    try:
        receiver = until("the receiver", lambda: _receiver(master))
        receiver.suspend()
        assert master.process is not None
        master.process.terminate()
        until("its stop", lambda: _is_told_to_end(receiver.pid))
        with contextlib.suppress(psutil.NoSuchProcess):
            receiver.resume()
    finally:
        code = master.stop()
    assert code == 0
    assert "never retrieved" not in master.errors
    assert "Traceback" not in master.errors


def _receiver(master: Master) -> psutil.Process | None:
    assert master.process is not None
    for child in psutil.Process(master.process.pid).children():
        with contextlib.suppress(psutil.Error):
            if child.cmdline()[-1:] == ["receive"]:
                return child
    return None


def _is_told_to_end(pid: int) -> bool:
    """Whether SIGTERM waits for a suspended process, or it was killed: one without orders needs no more."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return True
    pending = dict(line.split(":", 1) for line in lines)["ShdPnd"]
    return bool(int(pending, 16) >> (signal.SIGTERM - 1) & 1)
