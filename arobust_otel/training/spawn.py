"""Starts the node's agent out of process: own session, no descriptor and no rank variable of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from arobust_otel.training.roles import LAUNCHER_PID, RANK_PID

SWITCH = "AROBUST_AGENT"
_INSTRUMENTATION = os.path.join("opentelemetry", "instrumentation", "auto_instrumentation")
_RANK_PREFIXES = ("TORCHELASTIC_", "GROUP_", "ROLE_", "LOCAL_", "MASTER_", "PET_")
_RANK_NAMES = frozenset({"RANK", "WORLD_SIZE", "NODE_RANK", RANK_PID, LAUNCHER_PID, "PYTHONSTARTUP"})


class AgentOrder(NamedTuple):
    """Everything that the agent is told."""

    job_id: str
    root: Path
    folder: Path
    master: str


def is_wanted(environ: Mapping[str, str]) -> bool:
    """False where the user starts the agent as a service, or wants none."""
    return environ.get(SWITCH, "").lower() not in ("off", "0", "false", "no")


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without auto-instrumentation and without a rank's place; settings are kept.

    The package's own folder stays importable, and the working folder shadows no module.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if name not in _RANK_NAMES and not name.startswith(_RANK_PREFIXES)
    }
    paths = [path for path in kept.get("PYTHONPATH", "").split(os.pathsep) if path]
    package = str(Path(__file__).resolve().parents[2])
    paths = [path for path in paths if not path.rstrip(os.sep).endswith(_INSTRUMENTATION)]
    kept["PYTHONPATH"] = os.pathsep.join([*paths, *([package] if package not in paths else [])])
    kept["PYTHONSAFEPATH"] = "1"
    return kept


def command(order: AgentOrder) -> list[str]:
    """The agent's command line."""
    return [
        sys.executable,
        "-m",
        "arobust_otel.agent",
        "--beacon-dir",
        str(order.root),
        "--job-id",
        order.job_id,
        "--master",
        order.master,
    ]


def start_agent(order: AgentOrder, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the agent and return at once; one that finds another at work ends by itself.

    Raises:
        OSError: it cannot be started.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    log = os.open(order.folder / "agent.log", flags, 0o600)
    try:
        return subprocess.Popen(
            command(order),
            env=scrubbed(environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            close_fds=True,
            start_new_session=True,
        )
    finally:
        os.close(log)
