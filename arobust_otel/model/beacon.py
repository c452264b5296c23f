"""The beacon: what a rank and its launcher write about themselves, and how to read it.

Standard library only, no process, clock or socket: collectors, tests and the training side all load this.
Values stand in `beacon_values`, bytes in `beacon_codec`, the page's drawing in `beacon_layout`, what can be
missing in `beacon_gaps`.
"""

from __future__ import annotations

from io import RawIOBase
from pathlib import Path

from arobust_otel.errors import BeaconError
from arobust_otel.model import beacon_layout as at
from arobust_otel.model.beacon_codec import decode, encode
from arobust_otel.model.beacon_gaps import CAPABILITIES, GAPS
from arobust_otel.model.beacon_layout import PHASES, PROCESS_STATES, STATES
from arobust_otel.model.beacon_paths import job_folder, launcher_file, rank_file, safe_name
from arobust_otel.model.beacon_values import (
    Child,
    GroupCounters,
    LauncherBeacon,
    RankBeacon,
    SeenException,
)

__all__ = [
    "CAPABILITIES",
    "GAPS",
    "PHASES",
    "PROCESS_STATES",
    "STATES",
    "Child",
    "GroupCounters",
    "LauncherBeacon",
    "RankBeacon",
    "SeenException",
    "decode",
    "encode",
    "job_folder",
    "launcher_file",
    "rank_file",
    "read",
    "request_stacks",
    "safe_name",
]

_READS = 5
_SEQUENCES = (at.HOT_SEQUENCE, at.GROUPS_SEQUENCE, at.FACTS_SEQUENCE)


def request_stacks(path: str | Path, number: int) -> None:
    """Ask the rank behind a beacon for its own stacks: its watcher writes ``.stacks-<number>``.

    Raises:
        BeaconError: the beacon cannot be written.
    """
    try:
        with Path(path).open("r+b", buffering=0) as file:
            file.seek(at.STACK_REQUEST * 8)
            file.write(number.to_bytes(8, "little"))
    except OSError as error:
        raise BeaconError(f"cannot ask {path} for stacks: {error}") from error


def read(path: str | Path) -> RankBeacon | LauncherBeacon:
    """Read a beacon consistently.

    Raises:
        BeaconError: the file is missing, not written yet, or no beacon of this version.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            page, torn = _steady_page(file)
        return decode(page, torn=torn)
    except OSError as error:
        raise BeaconError(f"cannot read {path}: {error.strerror or error}") from error
    except BeaconError as error:
        raise BeaconError(f"{path}: {error}") from None


def _steady_page(file: RawIOBase) -> tuple[bytes, bool]:
    """A page that no writer changed while it was copied, or the last one read and True.

    The sequence numbers of a second copy tell whether a section changed during the first.
    """
    page = _page(file)
    for _ in range(_READS):
        later = _page(file)
        before, after = _sequences(page), _sequences(later)
        if before == after and not any(number & 1 for number in before):
            return page, False
        page = later
    return page, True


def _page(file: RawIOBase) -> bytes:
    file.seek(0)
    return file.read(at.SIZE_BYTES) or b""


def _sequences(page: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(page[slot * 8 : slot * 8 + 8], "little") for slot in _SEQUENCES)
