"""Group commit where the system lacks something: whoever waits hears of it, and the next group is tried."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from arobust_otel.errors import JournalError
from arobust_otel.journal import Appender, Kind, Source
from arobust_otel.otlp.status import Encoding
from arobust_otel.receiver.answers import Refusal
from arobust_otel.receiver.commit import GroupCommit
from arobust_otel.receiver.intake import Intake, Upload
from arobust_otel.receiver.limits import ReceiverLimits
from tests.handles import no_handles, too_many_files
from tests.receiver.test_http import metrics

ID = "0123456789abcdef" * 2


class Disk(Appender):
    """Its `sync` fails with `error` while there is one."""

    error: BaseException | None = None

    def sync(self) -> int:
        if self.error is not None:
            raise self.error
        return super().sync()


class World:
    """A journal, its commit and its intake, used inside an event loop."""

    def __init__(self, folder: Path) -> None:
        disk = Disk.open(folder)
        assert isinstance(disk, Disk)
        self.disk = disk
        self.commit = GroupCommit(disk)
        self.intake = Intake(disk, self.commit, ReceiverLimits())

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.intake.close()
        self.commit.close()
        self.disk.close()


async def soon(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Its result; what waits for ever fails here."""
    return await asyncio.wait_for(coroutine, 5)


def test_without_any_file_left_requests_are_taken_all_the_same(tmp_path: Path) -> None:
    async def story() -> None:
        async with World(tmp_path) as world:
            upload = Upload("metrics", metrics(), Encoding.PROTOBUF, "", "here", ID)
            with no_handles():
                assert not (await soon(world.intake.telemetry(upload))).repeated
            assert not world.commit.failed.is_set()

    asyncio.run(story())


def test_what_the_system_lacked_for_a_moment_is_said_and_tried_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with World(tmp_path) as world:
            world.disk.append(Kind.TICK, b"", received_ns=0)
            world.disk.error = too_many_files()
            for _ in range(2):
                with pytest.raises(JournalError, match="Too many open files"):
                    await soon(world.commit.wait())
            assert not world.commit.failed.is_set()
            world.disk.error = None
            await soon(world.commit.wait())

    asyncio.run(story())


@pytest.mark.parametrize("batch", ["", ID])
def test_its_senders_are_told_to_come_again(tmp_path: Path, batch: str) -> None:
    async def story() -> None:
        async with World(tmp_path) as world:
            upload = Upload("metrics", metrics(), Encoding.PROTOBUF, "", "here", batch)
            world.disk.error = too_many_files()
            with pytest.raises(Refusal) as refused:
                await soon(world.intake.telemetry(upload))
            assert (refused.value.status, refused.value.retry_after_seconds) == (503, 2)
            world.disk.error = None
            assert not (await soon(world.intake.telemetry(upload))).repeated

    asyncio.run(story())


def test_a_disk_that_fails_is_final(tmp_path: Path) -> None:
    async def story() -> None:
        async with World(tmp_path) as world:
            world.disk.error = JournalError("fdatasync failed: Input/output error")
            with pytest.raises(JournalError, match="fdatasync"):
                await soon(world.commit.wait())
            assert world.commit.failed.is_set()

    asyncio.run(story())


def test_whatever_ends_a_commit_nobody_is_left_waiting(tmp_path: Path) -> None:
    async def story() -> None:
        async with World(tmp_path) as world:
            asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
            world.disk.error = ValueError("a mistake of ours")
            waits = [asyncio.ensure_future(world.commit.wait()) for _ in range(2)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # the first group is under way
            waits.append(asyncio.ensure_future(world.commit.wait()))
            for answer in await soon(asyncio.gather(*waits, return_exceptions=True)):
                assert isinstance(answer, JournalError)
            world.disk.error = None
            await soon(world.commit.wait())

    asyncio.run(story())


def test_a_commit_that_is_cancelled_settles_its_group(tmp_path: Path) -> None:
    async def story() -> None:
        async with World(tmp_path) as world:
            wait = asyncio.ensure_future(world.commit.wait())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task = world.commit._task
            assert task is not None
            task.cancel()
            with pytest.raises(JournalError, match="broken off"):
                await soon(wait)
            await soon(world.commit.wait())

    asyncio.run(story())


@pytest.mark.parametrize("durable", [True, False])
def test_a_journal_that_takes_nothing_any_more_is_a_failure_also_where_nobody_waits(
    tmp_path: Path, durable: bool
) -> None:
    async def story() -> None:
        async with World(tmp_path / "journal") as world:
            world.commit.durable = durable
            world.disk.segment_bytes = 1
            world.intake.tick()
            (tmp_path / "journal").rename(tmp_path / "away")
            world.intake.tick()  # no next segment
            assert world.disk.broken
            assert world.commit.failed.is_set()
            assert world.intake.dropped_ticks == 1

    asyncio.run(story())


def test_a_record_that_is_refused_alone_is_none(tmp_path: Path) -> None:
    async def story() -> None:
        async with World(tmp_path) as world:
            source = Source(sender="s" * 70_000)  # too long
            with pytest.raises(Refusal):
                world.intake._append(Kind.REQUEST, b"", source)
            assert not world.commit.failed.is_set()

    asyncio.run(story())
