"""Folders of spools: where they lie, private to the user, and a lock each, so that one process writes.

``BASE/HOST/job-JOB/slot-N``: several clients of one job on one host each take a slot of their own. A file
system shared by hosts is no danger: an agent looks only below its own host's name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from arobust_otel.model.beacon_paths import safe_name

MAX_SLOTS = 64
JOB_PREFIX = "job-"
_SLOT_PREFIX = "slot-"
_LOCK = "lock"
DATABASE, LEDGER = "spool.db", "ledger"
DATABASE_FILES = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal")
_KEPT_DAMAGED = 4  # files: a database and its log
OWN_FILES = (*DATABASE_FILES, LEDGER)


class SpoolRefused(Exception):
    """A folder or file is not to be used: the message says why."""


def spool_base(environ: Mapping[str, str]) -> Path:
    """`AROBUST_SPOOL_DIR`, else ``arobust/spool`` in the user's state folder, or in a temporary one."""
    named = environ.get("AROBUST_SPOOL_DIR")
    if named:
        return Path(named)
    state = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        home = environ.get("HOME") or os.path.expanduser("~")  # Path's raises without a home
        state = f"{home}/.local/state" if os.path.isabs(home) else ""
    if not state:
        return Path(tempfile.gettempdir()) / f"arobust-{os.getuid()}" / "spool"
    return Path(state) / "arobust" / "spool"


def spool_folder(base: Path, host: str, job_id: str) -> Path:
    """Folder of one job on one host, to be given to `Spool.open`."""
    return base / safe_name(host) / f"{JOB_PREFIX}{safe_name(job_id)}"


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can read.

    Raises:
        SpoolRefused: it is a symbolic link, no folder, or somebody else's.
        OSError: it cannot be made.
    """
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise SpoolRefused(f"{folder} is a symbolic link")
    if not stat.S_ISDIR(found.st_mode):
        raise SpoolRefused(f"{folder} is no folder")
    if found.st_uid != os.geteuid():
        raise SpoolRefused(f"{folder} belongs to another user")
    if found.st_mode & 0o077:
        folder.chmod(0o700)


def check_file(path: Path) -> None:
    """Refuse what SQLite would follow or share; make the file private where it exists.

    Raises:
        SpoolRefused: it is a link, no file, or somebody else's.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise SpoolRefused(f"{path} is a symbolic link or no file")
    if found.st_uid != os.geteuid():
        raise SpoolRefused(f"{path} belongs to another user")
    if found.st_mode & 0o077:
        path.chmod(0o600)


class Slot:
    """A locked folder; the lock ends with the process, also when that is killed."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        """Use `take` or `take_free`."""
        self.folder = folder
        self._descriptor = descriptor

    @classmethod
    def take_free(cls, folder: Path) -> Slot:
        """The first slot that no living process holds.

        Raises:
            SpoolRefused: all are held, or a folder is not to be used.
            OSError: a folder or the lock cannot be made.
        """
        make_private(folder.parent)
        make_private(folder)
        for number in range(MAX_SLOTS):
            slot = cls.take(folder / f"{_SLOT_PREFIX}{number}")
            if slot is not None:
                return slot
        raise SpoolRefused(f"{MAX_SLOTS} other processes of this job use {folder}")

    @classmethod
    def take(cls, folder: Path) -> Slot | None:
        """Lock one slot; None where a living process holds it.

        Raises:
            SpoolRefused: the folder is not to be used.
            OSError: the folder or the lock cannot be made.
        """
        path = folder / _LOCK
        while True:
            make_private(folder)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except OSError:
                os.close(descriptor)
                raise
            if _is_same(descriptor, path):  # not deleted by an adopter between open and lock
                return cls(folder, descriptor)
            os.close(descriptor)

    def release(self) -> None:
        """Give the lock back; in a forked child: let go of the parent's."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def remove_database(self) -> None:
        """Delete the parcels; raises OSError."""
        for name in DATABASE_FILES:
            (self.folder / name).unlink(missing_ok=True)

    def dispose(self) -> None:
        """Delete the slot with its files, and the job's folder where nothing else is in it.

        A file that is not one of `OWN_FILES` (a damaged one, set aside) stays, and so does its folder.
        """
        with contextlib.suppress(OSError):
            for name in OWN_FILES:
                (self.folder / name).unlink(missing_ok=True)
            if [path.name for path in self.folder.iterdir()] == [_LOCK]:
                (self.folder / _LOCK).unlink()
            self.folder.rmdir()
            self.folder.parent.rmdir()
        self.release()


def set_aside(source: Path, target: Path, stamp_ns: int) -> None:
    """Move a damaged database with its log out of the way, into `target`; the newest few are kept there."""
    for name in DATABASE_FILES[:2]:
        with contextlib.suppress(FileNotFoundError):
            (source / name).rename(target / f"damaged-{stamp_ns}-{name}")
    for old in sorted(target.glob("damaged-*"))[:-_KEPT_DAMAGED]:
        old.unlink()


def slots_of(folder: Path) -> list[Path]:
    """Slots below a job's folder; empty where it cannot be read."""
    return _listed(folder, _SLOT_PREFIX)


def other_jobs(folder: Path) -> Iterator[Path]:
    """Slots of other jobs of this host and user."""
    for job in _listed(folder.parent, JOB_PREFIX):
        if job != folder:
            yield from slots_of(job)


def _listed(folder: Path, prefix: str) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name.startswith(prefix) and path.is_dir())
    except OSError:
        return []


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
