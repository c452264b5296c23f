"""One agent per node and job: a lock that ends with the process, and a note who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

from arobust_otel.errors import BeaconError

AGENT_LOCK = "agent.lock"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
# Somebody who only looks whether the lock is held has it for an instant.
_TRIES, _PAUSE_SECONDS = 5, 0.01


class AgentLock:
    """Holds `agent.lock` in the job's folder.

    Args:
        folder: the job's beacon folder; made where it does not exist yet.
        name: of the lock's file.
    """

    def __init__(self, folder: Path, name: str = AGENT_LOCK) -> None:
        self._folder = folder
        self._name = name
        self._descriptor: int | None = None

    def take(self, tries: int = _TRIES) -> bool:
        """Take the lock; False where another agent has it.

        Args:
            tries: with a hundredth of a second between them.

        Raises:
            BeaconError: the folder cannot be used.
        """
        try:
            self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            if os.geteuid() not in (0, self._folder.lstat().st_uid):
                raise BeaconError(f"{self._folder} belongs to another user")
            descriptor = os.open(self._folder / self._name, _FLAGS, 0o600)
        except OSError as error:
            raise BeaconError(f"cannot use {self._folder}: {error.strerror or error}") from error
        for left in reversed(range(tries)):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_PAUSE_SECONDS if left else 0.0)
            else:
                self._descriptor = descriptor
                return True
        os.close(descriptor)
        return False

    def note(self, master: str, started_ns: int) -> None:
        """Write `agent.json`: process id, master and start, for people and for the launcher."""
        values = {"pid": os.getpid(), "master": master, "started_ns": started_ns}
        target = self._folder / "agent.json"
        scratch = target.with_suffix(".json.new")
        try:
            scratch.write_text(json.dumps(values), encoding="utf-8")
            scratch.replace(target)
        except OSError:  # a full folder: the note is for people, the lock is what counts
            return

    def release(self) -> None:
        """Give the lock back; the note stays, its process id is gone."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_held(folder: Path, name: str = AGENT_LOCK) -> bool:
    """Whether some process holds a lock of this folder now."""
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
