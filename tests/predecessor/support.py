"""Clients of users, as they write them, and waiting for what threads do."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from arobust_otel.common.constants import DiagnosisDataType
from arobust_otel.common.diagnosis_data import WorkerTrainingMetric
from arobust_otel.model.identity import JobIdentity

JOB = "story"  # that the fixture `folder` names in the environment
IDENTITY = JobIdentity(JOB, 0, "host-a", 0)
XPU_TEXT = """\
# TYPE XPU_TIMER_COMMON_HANG gauge
XPU_TIMER_COMMON_HANG{ip="NOT_SET",job_name="NOT_SET",local_rank="0",pod_name="NOT_SET",rank="0"} 0
XPU_TIMER_COMMON_HANG{ip="NOT_SET",job_name="NOT_SET",local_rank="1",pod_name="NOT_SET",rank="1"} 1
XPU_TIMER_COLL_KERNEL_P99_LATENCY{algorithm="RING_LL",dtype="fp16",ip="NOT_SET",job_name="NOT_SET",\
level="2",local_rank="0",operation="AllGather",pod_name="NOT_SET",rank="0",small="0",\
transport="IntraNode"} 772
exposer_scrapes_total 3
"""


class UserClient:
    """The one method, as the predecessor's manual shows it; `script` decides what a call does."""

    def __init__(self, script: Callable[[WorkerTrainingMetric], Any] = lambda metric: None) -> None:
        self.script = script
        self.metrics: list[WorkerTrainingMetric] = []
        self.times: list[float] = []
        self._changed = threading.Condition()

    def report_diagnosis_agent_metrics(self, metric: WorkerTrainingMetric) -> Any:
        with self._changed:
            self.metrics.append(metric)
            self.times.append(time.monotonic())
            self._changed.notify_all()
        return self.script(metric)

    def of(self, data_type: DiagnosisDataType) -> list[WorkerTrainingMetric]:
        return [metric for metric in self.metrics if metric.data_type is data_type]

    def text(self, data_type: DiagnosisDataType = DiagnosisDataType.TRAINING_LOG) -> str:
        return "".join(metric.data_content for metric in self.of(data_type))

    def wait_for(self, condition: Callable[[], bool], seconds: float = 20.0) -> bool:
        with self._changed:
            return self._changed.wait_for(condition, seconds)


def refuse(metric: WorkerTrainingMetric) -> Any:
    raise ConnectionError("the master is away")


def until(what: str, condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return found


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("arobust-")]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def serving(answer: Callable[[], tuple[int, str]], port: int = 0) -> Iterator[int]:
    """A real HTTP server on a free port; gives the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = answer()
            body = text.encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass

    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
