"""What tests of delivery share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forwarders.sink import sinking
from tests.master.delivering import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with sinking() as sink:
        made = World(tmp_path, sink)
        yield made
        made.appender.close()
