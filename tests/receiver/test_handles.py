"""Connections and open files: the limit is raised, and no more is promised than there is."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

import pytest

from arobust_otel.config import MasterSettings
from arobust_otel.master.receive import _limits
from arobust_otel.receiver.handles import MOST_HANDLES, OWN_HANDLES, Shortage, handles_for, within_handles
from arobust_otel.receiver.limits import ReceiverLimits
from tests.handles import too_many_files

LIMITS = ReceiverLimits()
FOR_EVER = resource.RLIM_INFINITY


class System:
    """What a system answers about open files."""

    def __init__(self, soft: int, hard: int, refuses: bool = False) -> None:
        self.limits = (soft, hard)
        self.refuses = refuses

    def getrlimit(self, _what: int) -> tuple[int, int]:
        return self.limits

    def setrlimit(self, _what: int, limits: tuple[int, int]) -> None:
        if self.refuses:
            raise ValueError("not allowed to raise maximum limit")
        self.limits = limits


@pytest.mark.parametrize(
    ("soft", "hard", "after"),
    [
        (1024, 4096, 4096),
        (1024, 1_048_576, MOST_HANDLES),
        (1024, FOR_EVER, MOST_HANDLES),
        (100_000, 1_048_576, 100_000),
        (FOR_EVER, FOR_EVER, FOR_EVER),
    ],
)
def test_the_limit_is_raised_and_never_lowered(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, after: int
) -> None:
    system = System(soft, hard)
    monkeypatch.setattr(resource, "getrlimit", system.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", system.setrlimit)
    assert within_handles(LIMITS) == LIMITS
    assert system.limits == (after, hard)


@pytest.mark.parametrize(
    ("system", "connections"),
    [
        (System(1024, 2048), (2048 - OWN_HANDLES) * 2 // 3),
        (System(1024, 4096, refuses=True), (1024 - OWN_HANDLES) * 2 // 3),
        (System(64, 64), 1),
    ],
)
def test_with_few_files_there_are_fewer_connections(
    monkeypatch: pytest.MonkeyPatch, system: System, connections: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", system.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", system.setrlimit)
    limits = within_handles(LIMITS)
    assert limits.connections == connections
    assert connections == 1 or handles_for(limits) - LIMITS.grpc_calls < system.limits[0]


def test_the_real_limit_of_this_process() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        limits = within_handles(LIMITS)
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert raised == (MOST_HANDLES if hard == FOR_EVER else min(hard, MOST_HANDLES))
        assert limits == LIMITS or raised < handles_for(LIMITS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_log_names_what_is_lacking(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resource, "getrlimit", System(1024, 1024).getrlimit)
    with caplog.at_level("WARNING", logger="arobust.master"):
        assert _limits(MasterSettings()).connections == 512
    assert "512 HTTP connections at one time instead of 2048" in caplog.text
    assert "a limit of 3328" in caplog.text


def test_a_shortage_is_said_once_and_other_errors_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[OSError] = []
    others: list[dict[str, Any]] = []

    async def story() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "default_exception_handler", others.append)
        loop.set_exception_handler(Shortage(said.append))
        for _ in range(1000):
            loop.call_exception_handler({"message": "no accept", "exception": too_many_files()})
        loop.call_exception_handler({"message": "another", "exception": ValueError("x")})
        loop.call_exception_handler({"message": "without"})

    asyncio.run(story())
    assert [str(error) for error in said] == [str(too_many_files())]
    assert [context["message"] for context in others] == ["another", "without"]
