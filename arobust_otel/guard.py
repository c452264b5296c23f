"""The one place that contains unexpected exceptions.

Training must never see an exception of ours, and one failing plugin must never hide another; a bug must
never be hidden from a test either. So: contained and reported once per place in production, raised again
where `AROBUST_RAISE=1` is set (our test suite sets it). `except Exception` stands in this module only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_reported: dict[str, int] = {}
_sink: list[Callable[[str, BaseException], None]] = []


def set_sink(report: Callable[[str, BaseException], None]) -> None:
    """Send contained errors to `report(where, error)` instead of standard error."""
    _sink[:] = [report]


def counts() -> dict[str, int]:
    """How many errors were contained so far, by place."""
    return dict(_reported)


def report(where: str, error: BaseException) -> None:
    """Count a contained error and say it once per place; never raises in production."""
    first = where not in _reported
    _reported[where] = _reported.get(where, 0) + 1
    if os.environ.get("AROBUST_RAISE") == "1":
        raise error
    if not first:
        return
    try:
        if _sink:
            _sink[0](where, error)
        else:
            sys.stderr.write(f"arobust: {where} failed: {type(error).__name__}: {error} (said once)\n")
    except Exception:  # a closed standard error must not hurt anybody
        return


def contained(where: str) -> Callable[[Callable[P, R]], Callable[P, R | None]]:
    """Make a function that returns None instead of raising an unexpected exception.

    Args:
        where: names the place in the report, for example ``"collector processes"``.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R | None]:
        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R | None:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                report(where, error)
                return None

        return run

    return decorate


def attempt(where: str, function: Callable[[], R]) -> tuple[R | None, Exception | None]:
    """Run `function`; return its result and no error, or None and the contained error (not reported).

    For runners that judge a plugin themselves: the caller decides what the error means and says it.
    """
    try:
        return function(), None
    except Exception as error:
        if os.environ.get("AROBUST_RAISE") == "1" and isinstance(error, (AssertionError, NameError)):
            raise
        _reported[where] = _reported.get(where, 0) + 1
        return None, error


def around(
    where: str,
    function: Callable[P, R],
    before: Callable[[tuple[object, ...]], object],
    after: Callable[[object, bool], None],
) -> Callable[P, R]:
    """`function` with a look before and after each call; it behaves as if nobody looked.

    Args:
        where: names the place in the report of a contained error.
        function: what is called; its result and its exceptions pass through.
        before: gets the positional arguments; returns a token, None where `after` is not wanted.
        after: gets the token and whether `function` raised.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        token = None
        failed = True
        try:
            token = before(args)
        except Exception as error:
            report(where, error)
        try:
            result = function(*args, **kwargs)
            failed = False
            return result
        finally:
            if token is not None:
                try:
                    after(token, failed)
                except Exception as error:
                    report(where, error)

    return run
