"""`arobust bench delivery` as a user runs it, shorter; and its network that fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from arobust_otel.bench.delivery import FAULTS
from arobust_otel.bench.delivery_proxy import Mode, Proxy

COMMAND = [sys.executable, "-m", "arobust_otel.cli", "bench", "delivery"]
ENVIRON = {key: value for key, value in os.environ.items() if key != "AROBUST_RAISE"}


def run(*arguments: str) -> tuple[int, dict[str, object], str]:
    done = subprocess.run([*COMMAND, "--json", *arguments], capture_output=True, env=ENVIRON, check=False)
    found = json.loads(done.stdout) if done.stdout else {}
    return done.returncode, found, done.stderr.decode()


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_nothing_is_lost_uncounted_and_nothing_arrives_twice(protocol: str) -> None:
    code, found, errors = run("--minutes", "0.3", "--protocol", protocol)
    (result,) = found["results"]  # type: ignore[misc]
    total = result["rows"][-1]  # type: ignore[index]
    assert code == 0, f"{result}\n{errors}"
    assert [row["fault"] for row in result["rows"]] == ["none", *FAULTS, "total"]  # type: ignore[index]
    assert all(row["reported"] for row in result["rows"])  # type: ignore[index]
    assert total["delivered"] > 1000
    assert (total["uncounted"], total["repeated"], result["still_waiting"]) == (0, 0, 0)  # type: ignore[index]
    assert result["lost_answers"] > 0  # type: ignore[index]
    assert result["reporters_killed"] == 2  # type: ignore[index]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_with_all_that_it_started(tmp_path: Path, number: int) -> None:
    command = [*COMMAND, "--protocol", "http", "--faults", "master stopped", "--keep", str(tmp_path / "kept")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRON)
    assert process.stderr is not None
    while b"master stopped" not in (line := process.stderr.readline()):
        assert line, "it ended"
    process.send_signal(number)
    output, errors = process.communicate(timeout=90)
    assert process.returncode in (1, 130)
    assert output == b""
    assert b"Traceback" not in errors
    assert not os.path.ismount(tmp_path / "kept" / "http" / "master")
    assert (tmp_path / "kept" / "http" / "train.log").stat().st_size > 0


def test_unknown_fault_is_named() -> None:
    code, _, errors = run("--faults", "earthquake")
    assert code == 2
    assert "'earthquake' is none of: master stopped;" in errors


# --- the proxy ----------------------------------------------------------------------------------------------


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[bytes]

    def do_POST(self) -> None:
        self.seen.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"done")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[tuple[int, list[bytes]]]:
    seen: list[bytes] = []
    handler = type("Handler", (Server,), {"seen": seen})
    found = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    found.daemon_threads = False
    thread = threading.Thread(target=found.serve_forever, args=(0.05,))
    thread.start()
    yield found.server_port, seen
    found.shutdown()
    found.server_close()
    thread.join()


@pytest.fixture
def proxy(server: tuple[int, list[bytes]]) -> Iterator[Proxy]:
    found = Proxy(server[0], "http", call_seconds=0.3)
    yield found
    found.close()


def test_each_mode_does_what_it_says(server: tuple[int, list[bytes]], proxy: Proxy) -> None:
    url, seen = f"http://127.0.0.1:{proxy.port}/v1/logs", server[1]
    with requests.Session() as session:
        assert session.post(url, data=b"a").text == "done"
        proxy.mode = Mode.REFUSE
        refused = [session.post(url, data=b"b") for _ in range(2)]
        assert sorted(answer.status_code for answer in refused) == [429, 503]
        assert refused[0].headers["retry-after"] == "0"
        proxy.mode = Mode.LOSE
        with pytest.raises(requests.ConnectionError):
            session.post(url, data=b"c")
        assert proxy.lost_answers == 1
        proxy.mode = Mode.SLOW
        begun = time.monotonic()
        assert [session.post(url, data=b"d").text for _ in range(3)] == ["done"] * 3
        assert time.monotonic() - begun > 0.3 * 2
        proxy.mode = Mode.PASS
        assert session.post(url, data=b"e").text == "done"
    assert seen == [b"a", b"c", b"d", b"d", b"d", b"e"]
