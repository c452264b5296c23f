from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    """Short, because a unix socket's path may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="gpt-") as folder:
        yield Path(folder)
