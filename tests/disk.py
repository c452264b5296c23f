"""A real file system that is so small that tests can fill it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_FILLER = "filler"


@contextlib.contextmanager
def tiny_disk(place: Path, size_kib: int) -> Iterator[Path]:
    """A tmpfs at `place`; the test is skipped, visibly, where it cannot be mounted."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k,mode=0700", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> None:
    """Another program takes all that is free."""
    with (disk / _FILLER).open("ab", buffering=0) as handle:
        while os.statvfs(disk).f_bavail:  # what others free meanwhile, too
            with contextlib.suppress(OSError):
                while handle.write(b"x" * 4096):
                    pass


def make_room(disk: Path) -> None:
    """It gives everything back."""
    (disk / _FILLER).unlink()
