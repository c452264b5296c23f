"""The one place that contains unexpected exceptions."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from arobust_otel import guard

Contained = list[tuple[str, str]]


@pytest.fixture
def production(monkeypatch: pytest.MonkeyPatch) -> Contained:
    """As on a user's machine: nothing is raised again; what is said is kept here."""
    monkeypatch.delenv("AROBUST_RAISE")
    monkeypatch.setattr(guard, "_reported", {})
    said: Contained = []
    monkeypatch.setattr(guard, "_sink", [lambda where, error: said.append((where, str(error)))])
    return said


@guard.contained("the hook")
def hook(numerator: int, *, denominator: int) -> float:
    """A division."""
    return numerator / denominator


def fails() -> int:
    raise KeyError("gone")


def test_under_test_an_error_is_raised_again() -> None:
    with pytest.raises(ZeroDivisionError):
        hook(1, denominator=0)


def test_in_production_an_error_gives_none_and_is_said_once_per_place(production: Contained) -> None:
    assert [hook(1, denominator=0) for _ in range(3)] == [None, None, None]
    assert production == [("the hook", "division by zero")]
    assert guard.counts() == {"the hook": 3}


def test_what_works_is_passed_through_with_name_and_documentation(production: Contained) -> None:
    assert hook(1, denominator=2) == 0.5
    assert (hook.__name__, hook.__doc__) == ("hook", "A division.")
    assert production == []


def test_an_interrupt_is_never_contained(production: Contained) -> None:
    @guard.contained("the hook")
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_an_attempt_gives_result_or_error_and_says_nothing(production: Contained) -> None:
    assert guard.attempt("the part", lambda: 3) == (3, None)
    result, error = guard.attempt("the part", fails)
    assert result is None
    assert isinstance(error, KeyError)
    assert (production, guard.counts()) == ([], {"the part": 1})


@pytest.mark.parametrize("bug", [AssertionError, NameError])
def test_under_test_an_attempt_does_not_hide_a_bug(bug: type[Exception]) -> None:
    def buggy() -> None:
        raise bug

    with pytest.raises(bug):
        guard.attempt("the part", buggy)


def test_without_a_sink_one_line_goes_to_standard_error(
    production: Contained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guard, "_sink", [])
    hook(1, denominator=0)
    assert (
        capsys.readouterr().err
        == "arobust: the hook failed: ZeroDivisionError: division by zero (said once)\n"
    )


def broken(where: str, error: BaseException) -> None:
    raise OSError("closed")


def test_a_broken_sink_hurts_nobody(production: Contained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_sink", [broken])
    assert hook(1, denominator=0) is None


def test_a_sink_can_be_set(production: Contained) -> None:
    report: Callable[[str, BaseException], None] = broken
    guard.set_sink(report)
    assert guard._sink == [broken]
    assert sys.stderr is not None
