"""Where the beacons of a job may lie on this node. The environment is an argument."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from arobust_otel.model.beacon import job_folder


def roots(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Folders that may hold job folders: the one that is configured alone, else memory, else temporary."""
    named = environ.get("AROBUST_BEACON_DIR")
    if named:
        return (Path(named),)
    name = f"arobust-{os.getuid()}"
    return (Path("/dev/shm") / name, Path(tempfile.gettempdir()) / name)  # noqa: S108 - the lock checks the owner


def find_root(environ: Mapping[str, str], job_id: str) -> Path:
    """The root where this job already has a folder that can be seen; the preferred one where it has none."""
    found = roots(environ)
    # os.path: a root that belongs to somebody else is a no, not a PermissionError in the training process.
    return next((root for root in found if os.path.isdir(job_folder(root, job_id))), found[0])


def job_folders(root: Path, job_id: str, environ: Mapping[str, str]) -> Sequence[Path]:
    """The job's folder, and where a rank falls back to when shared memory is full; a chosen root has none."""
    others = roots(environ)
    return [job_folder(place, job_id) for place in ((root, *others) if root in others else (root,))]
