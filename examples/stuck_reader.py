"""An extension of train_gpt.py: one rank reads a shard from a file server that has stopped to answer.

torchrun --nproc-per-node 4 train_gpt.py --extension stuck_reader.py

STUCK_RANK (2) and STUCK_STEP (600) say who and when.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

RANK = int(os.environ.get("STUCK_RANK", "2"))
STEP = int(os.environ.get("STUCK_STEP", "600"))


def on_batch(step: int, rank: int, _batch: object) -> None:
    """Called by the training loop before each step."""
    if (rank, step) == (RANK, STEP):
        read_shard(mounted_share() / "shard-0042.bin")


def mounted_share() -> Path:
    """A share whose server is gone: its file is there, reading it never ends."""
    folder = Path(tempfile.mkdtemp(prefix="share-"))
    os.mkfifo(folder / "shard-0042.bin")
    return folder


def read_shard(path: Path) -> bytes:
    """The bytes of one shard."""
    with path.open("rb") as file:
        return file.read()
