"""`python -m arobust_otel.agent`: the agent of one job on this node."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from arobust_otel import guard
from arobust_otel.agent.folders import find_root
from arobust_otel.agent.lock import AgentLock
from arobust_otel.agent.runner import Agent, Assignment, become_polite, say
from arobust_otel.agent.sweep import sweep
from arobust_otel.config import agent_settings, config_path, load_file
from arobust_otel.errors import ArobustError, ConfigurationError
from arobust_otel.model.identity import resolve_job_id, resolve_master

USAGE_ERROR = 2


def parser() -> argparse.ArgumentParser:
    """Flags of the agent."""
    made = argparse.ArgumentParser(
        prog="arobust agent",
        description="Watch the ranks of one job on this node and report to the master. "
        "The instrumented launcher starts it by itself; start it as a service where it cannot.",
    )
    made.add_argument("--beacon-dir", type=Path, help="folder that holds the jobs' beacon folders")
    made.add_argument("--job-id", help="the job (default: AROBUST_JOB_ID, or the launcher's)")
    made.add_argument(
        "--master",
        help="URL (OTLP/HTTP) or host:port (OTLP/gRPC) of the master, several with commas between them "
        "(default: AROBUST_MASTER, or http://127.0.0.1:4318)",
    )
    made.add_argument("--config", type=Path, help="TOML file (default: AROBUST_CONFIG)")
    made.add_argument("--log-file", action="append", help="a training log to follow; may be repeated")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; returns an exit code. A second agent of the same job ends with 0 at once."""
    options = parser().parse_args(arguments)
    try:
        return _run(options)
    except ArobustError as error:
        print(f"arobust agent: {error}", file=sys.stderr)
        return USAGE_ERROR


def _run(options: argparse.Namespace) -> int:
    log_files = tuple(options.log_file) if options.log_file else None
    settings = agent_settings(load_file(config_path(options.config)), os.environ, {"log_files": log_files})
    job_id = options.job_id or resolve_job_id(os.environ)
    if not job_id:
        raise ConfigurationError("--job-id", "", "the job's id, or AROBUST_JOB_ID in the environment")
    assignment = Assignment(
        job_id=job_id,
        beacon_root=options.beacon_dir or find_root(os.environ, job_id),
        master=options.master or resolve_master(os.environ),
    )
    lock = AgentLock(assignment.folder)
    if not lock.take():
        say(f"another agent already watches job {assignment.job_id}")
        return 0
    guard.set_sink(lambda where, error: say(f"{where} failed: {type(error).__name__}: {error}"))
    become_polite()
    agent = Agent(assignment, settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    lock.note(assignment.master, time.time_ns())
    say(f"watching job {assignment.job_id} in {assignment.folder}, master {assignment.master}")
    sweep(assignment.beacon_root, time.time())
    agent.run()
    lock.release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
