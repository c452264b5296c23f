"""The page about collectors names every one of them with its options."""

from __future__ import annotations

from pathlib import Path

import pytest

from arobust_otel.collectors.kernel_lines import ROWS
from arobust_otel.plugins import CORE_COLLECTORS, discover

PAGE = (Path(__file__).parents[2] / "docs/collectors.md").read_text(encoding="utf-8")
PLACES = {"proc", "sys", "dev", "cgroup", "state_file"}  # folders of fixtures, and what the agent itself sets


@pytest.mark.parametrize("name", discover("collectors"))
def test_every_collector_and_its_options_are_described(name: str) -> None:
    part = discover("collectors")[name]
    if name not in CORE_COLLECTORS:
        assert f"## {name}\n" in PAGE
    assert name in PAGE
    missing = [option for option in part.settings() if option not in PLACES and f"`{option}" not in PAGE]
    assert missing == []


def test_every_kind_of_fault_is_described() -> None:
    assert [row.kind for row in ROWS if f"`{row.kind}`" not in PAGE] == []
