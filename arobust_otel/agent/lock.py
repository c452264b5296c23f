"""One agent per node and job: a lock that ends with the process, and a note who holds it.

Locks of open file descriptions: unlike `flock` they can be asked for without being taken, so that whoever
only looks never keeps an agent out.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import struct
import weakref
from pathlib import Path

from arobust_otel.errors import BeaconError

AGENT_LOCK = "agent.lock"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_locks: weakref.WeakSet[AgentLock] = weakref.WeakSet()
_LAYOUT = struct.Struct("hhqqi")  # `struct flock`: type, whence, start, length, process id


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
        _locks.add(self)

    def take(self) -> bool:
        """Take the lock; False where another agent has it.

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
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise BeaconError(f"cannot lock {self._folder}: {error.strerror or error}") from error
        self._descriptor = descriptor
        return True

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
            with contextlib.suppress(OSError):  # a child may have the descriptor, too
                fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_UNLCK))
            self._leave()

    def _leave(self) -> None:
        """Let go of the descriptor only: in a forked child the lock is the parent's."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):  # children like to close everything that they inherit
                os.close(descriptor)


def is_held(folder: Path, name: str = AGENT_LOCK) -> bool:
    """Whether some process holds a lock of this folder now; False where that cannot be told."""
    return _state(folder / name) == fcntl.F_WRLCK


def is_free(folder: Path, name: str = AGENT_LOCK) -> bool:
    """Whether the lock is there and nobody holds it; False where that cannot be told."""
    return _state(folder / name) == fcntl.F_UNLCK


def _state(path: Path) -> int | None:
    """What stands against taking a lock: F_WRLCK, or F_UNLCK for nothing; None where that cannot be told."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_WRLCK))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return int(_LAYOUT.unpack(answer)[0])


def _whole_file(kind: int) -> bytes:
    return _LAYOUT.pack(kind, os.SEEK_SET, 0, 0, 0)


os.register_at_fork(after_in_child=lambda: [*map(AgentLock._leave, list(_locks))])
