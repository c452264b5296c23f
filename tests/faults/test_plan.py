"""What is drawn and rendered: no word that gives it away, real variety, repeatable."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from faults.bodies import BODIES
from faults.plan import FAULTS, draw, write

from arobust_otel.model.causes import BY_CODE

TELLTALE = re.compile(
    r"inject|(?<!de)fault|arobust|demo|chaos|sabot|courier|drill|broke|victim|hang|decoy|fake", re.I
)
FOLDER = Path("/tmp/gpt-abc")
NAMES = [fault for fault, _, _ in FAULTS]


@pytest.mark.parametrize("fault", NAMES)
@pytest.mark.parametrize("seed", range(20))
def test_the_rendered_file_is_valid_and_says_nothing(fault: str, seed: int) -> None:
    plan = draw(fault, seed, FOLDER)
    ast.parse(plan.source)
    found = TELLTALE.search(plan.source + plan.file + plan.function + "".join(plan.orders))
    assert found is None, found


@pytest.mark.parametrize("fault", NAMES)
def test_right_causes_stand_in_the_table_of_causes(fault: str) -> None:
    cause = draw(fault, 1, FOLDER).cause
    assert cause is None or cause in BY_CODE


def test_equal_seeds_draw_equal_plans_and_others_differ() -> None:
    plans = {draw("hang", seed, FOLDER).source for seed in range(30)}
    assert draw("hang", 3, FOLDER) == draw("hang", 3, FOLDER)
    assert len(plans) > 20


@pytest.mark.parametrize("fault", ["hang", "gil", "segfault", "exception"])
def test_every_variant_is_drawn_sooner_or_later(fault: str) -> None:
    drawn = {draw(fault, seed, FOLDER).variant for seed in range(60)}
    assert drawn == {body.variant for body in BODIES if body.fault == fault}


def test_the_file_lies_in_the_run_folder(tmp_path: Path) -> None:
    plan = draw("hang", 5, FOLDER)
    assert write(plan, tmp_path).read_text() == plan.source
    assert f"def {plan.function}(step)" in plan.source
