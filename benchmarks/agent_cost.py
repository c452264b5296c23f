"""What the agent costs: processor and memory with 8 ranks, and what one report costs its caller.

Runs the agent as a process beside 8 real, mostly idle Python processes with live beacons, a training log of
20 lines a second and a server that takes everything; prints one JSON object and keeps it in
``benchmarks/results/agent.json``.

    python benchmarks/agent_cost.py [--seconds 30] [--ranks 8]
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

from arobust_otel.agent.client.settings import ClientSettings
from arobust_otel.agent.master_client import MasterClient
from arobust_otel.collectors.procfs import PROC, read_stat
from arobust_otel.model import beacon, signals
from arobust_otel.model.beacon import GroupCounters, RankBeacon
from arobust_otel.model.heartbeat import PATH, Reply, encode
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import Point

RESULT = Path(__file__).parent / "results" / "agent.json"
JOB_ID = "agent-cost"
# A stand-in for a rank: five threads, of which one wakes up ten times a second as a watcher does.
RANK = """
import threading, time
stop = threading.Event()
for _ in range(4):
    threading.Thread(target=stop.wait, daemon=True).start()
while True:
    time.sleep(0.1)
"""


class Sink(BaseHTTPRequestHandler):
    """Takes everything and counts bytes."""

    protocol_version = "HTTP/1.1"
    requests = 0
    wire_bytes = 0
    plain_bytes = 0

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer 200."""
        body = self.rfile.read(int(self.headers["content-length"]))
        cls = type(self)
        cls.requests += 1
        cls.wire_bytes += len(body)
        if self.headers.get("content-encoding") == "gzip":
            cls.plain_bytes += len(gzip.decompress(body))
        answer = encode(Reply(2.0)) if self.path == PATH else b""
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def page(pid: int, rank: int, ranks: int, step: int) -> RankBeacon:
    """A rank that trains: its step moves, two groups count."""
    stat = read_stat(PROC, pid)
    assert stat is not None
    mono = time.monotonic_ns()
    groups = (GroupCounters("default_pg", f"0-{ranks - 1}", "gloo", step * 3, step * 3),)
    return RankBeacon(
        pid=pid, start_ticks=stat.start_ticks, rank=rank, local_rank=rank, world_size=ranks,
        local_world_size=ranks, node_rank=0, incarnation=0, job_id=JOB_ID, host="host-a", role="trainer",
        script="train.py", born_ns=time.time_ns(), main_tid=pid, watcher_tid=0, state="running", step=step,
        step_end_mono_ns=mono, step_duration_ns=100_000_000, phase="backward", phase_since_mono_ns=mono,
        event_mono_ns=mono, event_count=step, tick_count=step, tick_mono_ns=mono, groups=groups,
        groups_read_mono_ns=mono, device_counters=False, exception=None, exit_begun_ns=None,
        nonfinite_step=None, nonfinite_ns=None, loss=1.25, stack_request=0, stack_done=0,
        capabilities=(), gaps=(),
    )  # fmt: skip


def train(folder: Path, log: Path, pids: list[int], stop: threading.Event) -> None:
    """Move the beacons ten times and the log twenty times a second."""
    step = 0
    with log.open("a") as file:
        while not stop.wait(0.1):
            step += 1
            file.write(f"step {2 * step} loss 1.25\nstep {2 * step + 1} loss 1.25\n")
            file.flush()
            for rank, pid in enumerate(pids):
                path = folder / beacon.rank_file(rank, pid)
                with path.open("r+b" if path.exists() else "wb") as target:
                    target.write(beacon.encode(page(pid, rank, len(pids), step)))


def measure_agent(ranks: int, seconds: float) -> dict[str, float]:
    """Processor share and memory of the agent after its start."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as root:
        folder = beacon.job_folder(root, JOB_ID)
        folder.mkdir(mode=0o700)
        processes = [subprocess.Popen([sys.executable, "-c", RANK]) for _ in range(ranks)]
        pids = [process.pid for process in processes]
        log = Path(root) / "train.log"
        trainer = threading.Thread(target=train, args=(folder, log, pids, stop))
        trainer.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        command = [sys.executable, "-m", "arobust_otel.agent", "--beacon-dir", root, "--job-id", JOB_ID]
        agent = subprocess.Popen([*command, "--master", url, "--log-file", str(log)])
        try:
            time.sleep(6)  # imports, first discovery, first exports
            return _watch(agent.pid, seconds)
        finally:
            agent.terminate()
            agent.wait()
            stop.set()
            trainer.join()
            for process in processes:
                process.kill()
                process.wait()
            server.shutdown()
            server.server_close()


def _watch(pid: int, seconds: float) -> dict[str, float]:
    process = psutil.Process(pid)
    before, main_before, started = process.cpu_times(), _main_thread_seconds(process), time.monotonic()
    requests, wire, plain = Sink.requests, Sink.wire_bytes, Sink.plain_bytes
    time.sleep(seconds)
    after, passed = process.cpu_times(), time.monotonic() - started
    used = after.user + after.system - before.user - before.system
    main = _main_thread_seconds(process) - main_before
    return {
        "cpu_percent_of_one_core": round(100 * used / passed, 3),
        "cpu_percent_sampling": round(100 * main / passed, 3),
        "cpu_percent_delivery": round(100 * (used - main) / passed, 3),
        "load_average": psutil.getloadavg()[0],
        "memory_mib": round(process.memory_info().rss / 2**20, 1),
        "threads": process.num_threads(),
        "requests_per_second": round((Sink.requests - requests) / passed, 2),
        "wire_bytes_per_second": round((Sink.wire_bytes - wire) / passed),
        "plain_bytes_per_second": round((Sink.plain_bytes - plain) / passed),
    }


def _main_thread_seconds(process: psutil.Process) -> float:
    """Processor time of the thread that samples; the others deliver, beat and watch for exits."""
    return sum(item.user_time + item.system_time for item in process.threads() if item.id == process.pid)


def measure_report() -> dict[str, float]:
    """What `report` costs its caller, with an empty queue that drains and with a full one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = {}
    cases = {
        "draining": (f"http://127.0.0.1:{server.server_address[1]}", ClientSettings()),
        "full": ("http://127.0.0.1:9", ClientSettings(queue_items=2_000)),
    }
    for name, (url, settings) in cases.items():
        client = MasterClient(url, JobIdentity("j", 0, "h"), settings, say=lambda text: None)
        taken = [_one_report(client, number) for number in range(3_000)]
        client.close(5.0)
        taken.sort()
        found[f"report_p50_ms_{name}"] = round(taken[len(taken) // 2] * 1000, 4)
        found[f"report_p99_ms_{name}"] = round(taken[int(len(taken) * 0.99)] * 1000, 4)
    server.shutdown()
    server.server_close()
    return found


def _one_report(client: MasterClient, number: int) -> float:
    points = [Point(signals.STEP, number, time.time_ns(), {signals.RANK: rank}) for rank in range(20)]
    time.sleep(0.001)
    started = time.perf_counter()
    client.report(points)
    return time.perf_counter() - started


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--ranks", type=int, default=8)
    options = parser.parse_args()
    result = {"ranks": options.ranks, **measure_agent(options.ranks, options.seconds), **measure_report()}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2, sort_keys=True))  # noqa: T201 - the result


if __name__ == "__main__":
    main()
