"""The folder of beacons: where it is, whether it is ours, and files made in it without following links."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from arobust_otel.errors import BeaconError
from arobust_otel.model.beacon_paths import job_folder

VARIABLE = "AROBUST_BEACON_DIR"
_ROOM_BYTES = 1 << 20
_REMEDY = f"set {VARIABLE} to a folder that you own, of mode 0700, with some free space"


def root_candidates(environ: Mapping[str, str], uid: int) -> Iterator[Path]:
    """Folders that may hold beacons, best first: the user's choice alone, else memory, else temporary."""
    chosen = environ.get(VARIABLE)
    if chosen:
        yield Path(chosen)
        return
    name = f"arobust-{uid}"
    shared = Path("/dev/shm")  # noqa: S108 - own_folder checks owner and mode, and follows no link
    yield shared / name
    import tempfile  # writes a file to find out: only where it is needed

    yield Path(tempfile.gettempdir()) / name


def open_root(environ: Mapping[str, str]) -> Path:
    """The first candidate that is ours and has room; made where it is missing.

    Raises:
        BeaconError: none will do; names each with the reason, and the remedy.
    """
    reasons = []
    for candidate in root_candidates(environ, os.getuid()):
        try:
            own_folder(candidate)
            room = os.statvfs(candidate)
            if room.f_bavail * room.f_frsize >= _ROOM_BYTES or environ.get(VARIABLE):
                return candidate
            reasons.append(f"{candidate} is full")
        except (OSError, BeaconError) as error:
            reasons.append(str(error))
    raise BeaconError(f"no folder for beacons ({'; '.join(reasons)}): {_REMEDY}")


def own_folder(path: Path) -> None:
    """Make `path` with mode 0700 unless it is there, and check that nobody else can write in it.

    Raises:
        BeaconError: a link, no folder, another owner, or writable by others.
        OSError: it cannot be made.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise BeaconError(f"{path} is no folder")
    if found.st_uid != os.getuid():
        raise BeaconError(f"{path} belongs to user {found.st_uid}")
    if found.st_mode & 0o022:
        raise BeaconError(f"{path} can be written by others")


def open_job(root: Path, job_id: str) -> Path:
    """The job's folder under `root`, made and checked.

    Raises:
        BeaconError: it cannot be had; the text names the remedy.
    """
    path = job_folder(root, job_id)
    try:
        own_folder(path)
    except (OSError, BeaconError) as error:
        raise BeaconError(f"{error}: {_REMEDY}") from error
    return path


def create_file(path: Path) -> int:
    """A new, empty file, open for reading and writing; a leftover of that name is replaced.

    Raises:
        OSError: it cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        path.unlink()  # of an earlier process with our process id
        return os.open(path, flags, 0o600)
