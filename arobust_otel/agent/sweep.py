"""Old jobs' beacon folders are removed: shared memory is nobody's archive."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from arobust_otel.agent.lock import is_free

KEEP_SECONDS = 7 * 24 * 3600.0


def sweep(root: Path, now_seconds: float, keep_seconds: float = KEEP_SECONDS) -> list[str]:
    """Remove folders of jobs in which nothing was written for `keep_seconds` and that no agent holds.

    Only folders with an agent's lock are ours to remove; links are left alone. Returns the removed names.
    """
    removed = []
    try:
        with os.scandir(root) as entries:
            folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    for entry in folders:
        folder = Path(entry.path)
        if _is_old(folder, now_seconds - keep_seconds) and is_free(folder):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(entry.name)
    return sorted(removed)


def _is_old(folder: Path, before_seconds: float) -> bool:
    try:
        with os.scandir(folder) as entries:
            return all(entry.stat(follow_symlinks=False).st_mtime < before_seconds for entry in entries)
    except OSError:
        return False
