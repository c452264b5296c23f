"""Programs for `test_exporter_holes_process`: the same few lines with the SDK alone and with MasterClient.

python -m tests.agent.hole_programs NAME bare|ours ADDRESS
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from arobust_otel.agent.client.settings import ClientSettings
from arobust_otel.agent.master_client import MasterClient
from arobust_otel.model import signals
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import LogLine, Point

JOB = JobIdentity("job-1", 0, "host-a")
CHILD_SECONDS = 3.0
OUR_CHILD_SECONDS = 20.0  # ours does not hang: a busy machine may take its time
FLUSH_SECONDS = 2.0


class Bridge(logging.Handler):
    """The program's own log records as log lines of a MasterClient."""

    def __init__(self, client: MasterClient) -> None:
        super().__init__()
        self._client = client

    def emit(self, record: logging.LogRecord) -> None:
        self._client.report([LogLine(record.getMessage(), time.time_ns(), "/train.log", 0)])


def say(text: str) -> None:
    print(text, flush=True)


def logger_provider(url: str, seconds: float | None) -> LoggerProvider:
    provider = LoggerProvider()
    provider.add_log_record_processor(BatchLogRecordProcessor(log_exporter(url, seconds)))
    return provider


def log_exporter(url: str, seconds: float | None) -> Any:
    if url.startswith("grpc://"):
        return GrpcLogExporter(url.replace("grpc", "http", 1), timeout=seconds)
    return OTLPLogExporter(f"{url}/v1/logs", timeout=seconds)


# --- a flush while the program's logging is exported --------------------------------------------------------


def flush_bare(url: str) -> None:
    from opentelemetry.sdk._logs import LoggingHandler  # on its way to the instrumentation of logging

    provider = logger_provider(url, FLUSH_SECONDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger().addHandler(LoggingHandler(logger_provider=provider))
    logging.getLogger("train").warning("one line")
    say("flushing")
    provider.force_flush(int(1000 * FLUSH_SECONDS))
    say("flushed")
    os._exit(0)


def flush_ours(url: str) -> None:
    client = MasterClient(url, JOB, ClientSettings(call_seconds=0.5), say=lambda text: None)
    logging.getLogger().addHandler(Bridge(client))
    logging.getLogger("train").warning("one line")
    say("flushing")
    client.flush(FLUSH_SECONDS)
    say("flushed")
    client.close(1.0)


# --- the end of a program whose master is away --------------------------------------------------------------


def exit_bare(url: str) -> None:
    provider = logger_provider(url, None)
    provider.get_logger("train").emit(body="last words")
    say("done")


def exit_ours(url: str) -> None:
    client = MasterClient(url, JOB)
    client.report([LogLine("last words", 1, "/train.log", 0)])
    say("done")


# --- a fork while an export is in flight --------------------------------------------------------------------


def fork_bare(url: str) -> None:
    if url.startswith("http://"):
        exporter: Any = OTLPMetricExporter(f"{url}/v1/metrics", timeout=30)
    else:
        exporter = GrpcMetricExporter(f"http://{url}", timeout=30)
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=1e7)
    steps = MeterProvider([reader]).get_meter("train").create_counter("steps")
    steps.add(1)
    threading.Thread(target=reader.force_flush, daemon=True).start()

    def in_child() -> None:
        steps.add(2)
        reader.force_flush()

    fork_when_told(in_child, 2 * CHILD_SECONDS)


def fork_ours(url: str) -> None:
    client = MasterClient(url, JOB, ClientSettings(call_seconds=30.0))
    client.report([Point(signals.STEP, 1, 1)], urgent=True)

    def in_child() -> None:
        client.report([Point(signals.STEP, 2, 2)], urgent=True)
        if not client.flush(OUR_CHILD_SECONDS):
            os._exit(3)

    fork_when_told(in_child, 2 * OUR_CHILD_SECONDS)


def fork_when_told(in_child: Callable[[], None], seconds: float) -> None:
    """Fork at a line on standard input; a child that does not end is killed and said."""
    sys.stdin.readline()
    child = os.fork()
    if child == 0:
        in_child()
        os._exit(0)
    deadline = time.monotonic() + seconds
    ended, status = 0, 0
    while not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.02)
    if not ended:
        os.kill(child, 9)
        os.waitpid(child, 0)
    say(f"child ended with {os.waitstatus_to_exitcode(status)}" if ended else "child hangs")
    os._exit(0)


# --- a client's certificate beside the system's authorities -------------------------------------------------


def certificate_bare(target: str) -> None:
    provider = LoggerProvider()
    exporter = GrpcLogExporter(f"https://{target}", timeout=2)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    provider.get_logger("train").emit(body="hello")
    provider.force_flush()
    os._exit(0)


def certificate_ours(target: str) -> None:
    client = MasterClient(f"grpcs://{target}", JOB)
    client.report([LogLine("hello", 1, "/train.log", 0)])
    client.flush(20.0)
    client.close(1.0)


if __name__ == "__main__":
    globals()[f"{sys.argv[1]}_{sys.argv[2]}"](sys.argv[3])
