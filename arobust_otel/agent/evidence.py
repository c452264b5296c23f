"""Evidence on command: stacks of the ranks that the master asks for, reported as telemetry."""

from __future__ import annotations

from collections.abc import Callable

from arobust_otel.agent.master_client import MasterClient
from arobust_otel.agent.view import View
from arobust_otel.collectors.stacks import StackTaker
from arobust_otel.config import AgentSettings
from arobust_otel.errors import CaptureError
from arobust_otel.model.heartbeat import Command
from arobust_otel.model.samples import Event
from arobust_otel.plugins import RankProcess


class StackEvidence:
    """Takes stacks in the commands' thread and hands them to the client.

    Args:
        settings: where py-spy is, and how long a capture may take.
        view: the current view of the node.
        client: takes the captures.
    """

    def __init__(self, settings: AgentSettings, view: Callable[[], View], client: MasterClient) -> None:
        self._taker = StackTaker(
            py_spy=None if settings.py_spy == "py-spy" else settings.py_spy,
            dump_seconds=min(5.0, settings.stack_timeout_seconds),
            watcher_seconds=min(3.0, settings.stack_timeout_seconds),
        )
        self._view = view
        self._client = client

    def capture(self, command: Command) -> str:
        """One capture of each rank that the command names and that lives here.

        Raises:
            CaptureError: no stack could be taken; says why for each rank.
        """
        view = self._view()
        wanted = [process for process in view.ranks() if process.rank in command.ranks]
        if not wanted:
            raise CaptureError(f"none of the ranks {list(command.ranks)} is on this node")
        taken, failed = [], []
        for process in wanted:
            try:
                taken.append(self._one(process, command, view))
            except CaptureError as error:
                failed.append(f"rank {process.rank}: {error}")
        if not taken:
            raise CaptureError("; ".join(failed))
        return "; ".join([*taken, *failed])

    def missing(self) -> list[Event]:
        """Capabilities that captures came upon as missing, each once."""
        return list(self._taker.gaps())

    def _one(self, process: RankProcess, command: Command, view: View) -> str:
        capture = self._taker.capture(process, command.id)
        self._client.report([capture], urgent=True, identity=view.identity_of(process.pid))
        return f"rank {process.rank}: {capture.method}"
