"""Files that survive a power cut: private folders, atomic writes, synchronised folders."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NO_HANDLE = (errno.EMFILE, errno.ENFILE)  # as many files are open as may be

TEMPORARY = ".tmp"  # end of the name of a file that is not whole yet


@contextlib.contextmanager
def if_there_is_room() -> Iterator[None]:
    """Around a write that a process can do without for now: a full disk is no reason to end."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise


def make_private_folder(folder: Path) -> None:
    """Make `folder` with mode 0700, parents included; an existing one of ours is made private."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def sync_folder(folder: Path) -> None:
    """Make names in `folder` durable: creations, renames, deletions."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(handle: int, data: bytes) -> None:
    """Write every byte, whatever portions the kernel takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the file: a reader, or a start after a power cut, sees the old or the new content whole.

    What fails leaves nothing behind: on a full disk each try would cost some of the room that is awaited.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            write_all(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
