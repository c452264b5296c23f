"""Where this process writes to, and the start of the agent: what launcher and rank have in common."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from arobust_otel import guard
from arobust_otel.errors import BeaconError
from arobust_otel.model.beacon_paths import rank_file
from arobust_otel.model.identity import RankIdentity, resolve_master
from arobust_otel.training import folder, roles
from arobust_otel.training.page import Page

if TYPE_CHECKING:
    import subprocess

JOB_ID = "AROBUST_JOB_ID"


class Place(NamedTuple):
    """Job and folder that this process writes to; no folder where none can be had."""

    job_id: str
    root: Path | None
    folder: Path | None


def say(text: str) -> None:
    """One line for the user; a closed standard error is none of our business."""
    guard.attempt("warning", lambda: sys.stderr.write(f"arobust: {text}\n"))


def find_place(environ: MutableMapping[str, str], command: Sequence[str]) -> Place:
    """Job id and folder, put into the environment so that children use the same."""
    now = time.strftime("%Y%m%d-%H%M%S")
    job_id = roles.job_id(command, environ, now, os.getpid())
    environ[JOB_ID] = job_id
    try:
        root = folder.open_root(environ)
        job = folder.open_job(root, job_id)
    except BeaconError as error:
        say(f"training goes on unobserved by the beacon: {error}")
        return Place(job_id, None, None)
    environ[folder.VARIABLE] = str(root)
    return Place(job_id, root, job)


def open_page(path: Path | None) -> Page:
    """A shared page at `path`, or a private one with a warning: training goes on either way."""
    try:
        return Page(path)
    except BeaconError as error:
        say(f"training goes on unobserved by the beacon: {error}; give {folder.VARIABLE} a folder with space")
        return Page()


def start_agent(place: Place, environ: MutableMapping[str, str]) -> subprocess.Popen[bytes] | None:
    """Start the node's agent unless it is switched off or has no folder to work in."""
    from arobust_otel.training import spawn

    if place.root is None or place.folder is None or not spawn.is_wanted(environ):
        return None
    order = spawn.AgentOrder(place.job_id, place.root, place.folder, resolve_master(environ))
    agent, error = guard.attempt("agent start", lambda: spawn.start_agent(order, environ))
    if error is not None:
        say(f"the agent could not be started, nothing is reported: {error}")
    return agent


def has_instrumented_launcher(environ: MutableMapping[str, str]) -> bool:
    """True where the launcher is ours and alive: then it has started the agent."""
    pid = environ.get(roles.LAUNCHER_PID, "")
    return pid.isdigit() and Path(f"/proc/{pid}").exists()


def rank_path(place: Place, identity: RankIdentity) -> Path | None:
    """Path of this process's beacon; None without a folder."""
    return place.folder / rank_file(identity.rank, os.getpid()) if place.folder else None
