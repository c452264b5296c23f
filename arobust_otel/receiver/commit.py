"""Group commit: one fdatasync serves every request that waits for it.

Appending is a write to the operating system and stays in the event loop; the fdatasync runs in a thread.
While it runs, the next group gathers: the slower the disk, the larger the groups.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from arobust_otel.errors import JournalError
from arobust_otel.journal import Appender


class GroupCommit:
    """Lets requests of one event loop wait until what they appended is durable.

    `failed` is set once the disk refused: nothing is durable after it, and the process should end.
    """

    def __init__(self, appender: Appender, *, durable: bool = True) -> None:
        """With `durable` false, `wait` returns at once: the system has the bytes, the disk may not."""
        self.appender = appender
        self.durable = durable
        self.failed = asyncio.Event()
        self.commits = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="arobust-commit")

    async def wait(self) -> None:
        """Return when everything appended before this call is durable.

        Raises:
            JournalError: the disk failed; what was appended may be lost.
        """
        if not self.durable:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        await future

    def refused(self) -> None:
        """An append was refused; where no later one will be taken either, that is a failure too."""
        if self.appender.broken:
            self.failed.set()

    def close(self) -> None:
        """End the thread; the appender stays open."""
        self._thread.shutdown()

    async def _run(self) -> None:
        """Group after group. However it ends, nobody is left waiting, and a later `wait` begins anew."""
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                await self._commit(group)
        finally:
            left, self._waiting, self._task = self._waiting, [], None
            _settle(left, JournalError("the commit was broken off"))

    async def _commit(self, group: list[asyncio.Future[None]]) -> None:
        error: JournalError | None = JournalError("the commit was broken off")
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self.appender.sync)
            error = None
        except JournalError as failure:
            error = failure
            self.failed.set()
        except OSError as failure:  # the system lacked something for a moment; the disk has refused nothing
            error = JournalError(f"nothing is durable yet: {failure}")
        finally:
            self.commits += 1
            _settle(group, error)


def _settle(group: list[asyncio.Future[None]], error: JournalError | None) -> None:
    for future in group:
        if future.done():  # its client went away
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
