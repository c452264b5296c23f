"""Puts the parts of a rank together: beacon, facts, watcher, hooks, and what a fork must undo."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from arobust_otel.model.identity import RankIdentity
from arobust_otel.training import place, roles
from arobust_otel.training.facts import Facts
from arobust_otel.training.page import Page
from arobust_otel.training.rank import Birth, RankWriter
from arobust_otel.training.watcher import StackTask, Task, TracerTask, Watcher

if TYPE_CHECKING:
    from arobust_otel.training.torch_hooks import TorchHooks


class RankProcess:
    """Everything of ours that lives in one rank."""

    def __init__(self, page: Page, birth: Birth, folder: Path | None) -> None:
        stem = page.path.with_suffix("") if page.is_shared and page.path is not None else None
        self.page = page
        self.writer = RankWriter(page, birth)
        self._count: Task | None = None
        self._hooks: TorchHooks | None = None
        self.facts = Facts(self.writer, stem, last_look=self.count)
        tasks: dict[str, Task] = {"counters": self.count}
        if stem is not None:
            tasks["stacks"] = StackTask(self.writer, stem)
        if folder is not None and TracerTask.is_needed():
            tasks["tracer"] = TracerTask(self.writer, folder)
        self.watcher = Watcher(self.writer, tasks)

    @classmethod
    def start(
        cls, environ: MutableMapping[str, str], command: Sequence[str], identity: RankIdentity
    ) -> RankProcess:
        """Make the beacon, mark the environment for children, and begin to watch."""
        where = place.find_place(environ, command)
        environ[roles.RANK_PID] = str(os.getpid())
        page = place.open_page(place.rank_path(where, identity))
        script = " ".join(command[1:])
        birth = Birth(identity, where.job_id, socket.gethostname(), script, os.getpid(), time.time_ns())
        process = cls(page, birth, where.folder)
        os.register_at_fork(after_in_child=process.forget)
        process.facts.install()
        process.watcher.start()
        if identity.local_rank == 0 and not place.has_instrumented_launcher(environ):
            place.start_agent(where, environ)
        return process

    def count(self) -> None:
        """Copy the counters of process groups, once torch is there."""
        if self._count is not None:
            self._count()

    def hook_torch(self, module: ModuleType) -> None:
        """Hook a module of torch that was just imported; the hooks' own code is loaded with the first."""
        if self._hooks is None:
            from arobust_otel.training.counters import CounterTask
            from arobust_otel.training.groups import GroupBook
            from arobust_otel.training.torch_hooks import TorchHooks

            book = GroupBook()
            self._count = CounterTask(self.writer, book)
            self._hooks = TorchHooks(self.writer, book, self._count)
        self._hooks.install(module)

    def forget(self) -> None:
        """In a forked child: nothing that it does concerns the rank's beacon any more."""
        self.page.drop()
        self.facts.forget()
