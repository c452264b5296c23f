"""Three live cases that every test run pays for; the full matrix is `make test-live`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.cases import run_case

pytestmark = [pytest.mark.live, pytest.mark.torch, pytest.mark.timeout(500)]


@pytest.mark.parametrize(("fault", "rank"), [("hang", 2), ("kill", 1), ("none", 2)])
def test_the_verdict_is_right_and_replays(fault: str, rank: int, tmp_path: Path) -> None:
    result = run_case(fault, rank, tmp_path / "run")
    assert result.ok, "\n".join([*result.problems, result.output])
