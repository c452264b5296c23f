"""Where beacons lie: names of the job's folder and of the files in it; pure."""

from __future__ import annotations

import re
from pathlib import Path


def safe_name(job_id: str) -> str:
    """A job id as one path component: other characters than ``A-Za-z0-9._-`` become ``_``."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", job_id).lstrip(".")[:120] or "_"


def job_folder(root: str | Path, job_id: str) -> Path:
    """Folder of a job on this node."""
    return Path(root) / safe_name(job_id)


def rank_file(rank: int, pid: int) -> str:
    """Name of a rank's beacon; side files take its stem."""
    return f"rank-{rank}-{pid}.beacon"


def launcher_file(pid: int) -> str:
    """Name of a launcher's beacon."""
    return f"launcher-{pid}.beacon"
