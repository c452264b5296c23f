"""Commands of the master: checked, run once, in a thread of their own, and answered.

A command is typed and names agent, attempt and expiry. It is honoured only where the reply came over loopback
or over TLS with a known authority: whoever can forge it could have a rank paused.
"""

from __future__ import annotations

import ipaddress
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from arobust_otel import guard
from arobust_otel.errors import ArobustError
from arobust_otel.model.heartbeat import Command, CommandResult
from arobust_otel.model.identity import JobIdentity

MAX_WAITING = 16
MAX_REMEMBERED = 1000

Execute = Callable[[Command], str]  # returns what was done, in words; raises ArobustError where it could not


@dataclass(frozen=True, slots=True)
class _Job:
    command: Command
    expires_mono: float


class CommandRunner:
    """Runs commands one after another.

    Args:
        master: URL that replies come from.
        identity: the current attempt.
        kinds: what runs a command of each kind; called from the worker's thread.
        done: takes results; called from any thread.
    """

    def __init__(
        self,
        master: str,
        identity: Callable[[], JobIdentity],
        kinds: Mapping[str, Execute],
        done: Callable[[CommandResult], None],
    ) -> None:
        self._is_trusted = is_trusted(master)
        self._identity = identity
        self._kinds = dict(kinds)
        self._done = done
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._queue: queue.Queue[_Job | None] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None

    def accept(self, command: Command) -> None:
        """Take a command; one that was seen before is passed over. Returns at once. One thread calls this."""
        if command.id in self._seen:
            return
        self._seen[command.id] = None
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)
        reason = refusal(command, self._identity(), self._is_trusted)
        if reason is None and command.kind not in self._kinds:
            reason = f"this agent cannot {command.kind}"
        if reason is not None:
            self._done(CommandResult(command.id, "refused", reason))
        elif command.expires_in_seconds <= 0:
            self._done(CommandResult(command.id, "expired", "it had expired when it arrived"))
        else:
            self._enqueue(_Job(command, time.monotonic() + command.expires_in_seconds))

    def close(self, deadline_seconds: float) -> None:
        """Let the running command end; those that wait are not run."""
        if self._thread is None:
            return
        while True:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                break
        self._queue.put(None)
        self._thread.join(deadline_seconds)

    def _enqueue(self, job: _Job) -> None:
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            detail = f"{MAX_WAITING} commands wait already"
            self._done(CommandResult(job.command.id, "refused", detail))
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="arobust-commands", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            self._done(self._run(job))

    def _run(self, job: _Job) -> CommandResult:
        command = job.command
        if time.monotonic() >= job.expires_mono:
            return CommandResult(command.id, "expired", "it expired before its turn came")
        if self._identity().incarnation != command.incarnation:
            return CommandResult(command.id, "refused", "the job was restarted meanwhile")
        detail, error = guard.attempt("command", lambda: self._kinds[command.kind](command))
        if error is None:
            return CommandResult(command.id, "done", detail or "")
        if not isinstance(error, ArobustError):
            detail = f"{type(error).__name__}: {error}"
        return CommandResult(command.id, "failed", detail or str(error))


def refusal(command: Command, identity: JobIdentity, trusted: bool) -> str | None:
    """Why a command is not honoured; None where it is."""
    if not trusted:
        return "commands are honoured only from a master on loopback or behind https"
    if command.agent != identity.instance_id or command.job_id != identity.job_id:
        return f"it is meant for {command.agent}, job {command.job_id}"
    if command.incarnation != identity.incarnation:
        return f"it is meant for attempt {command.incarnation}, this is attempt {identity.incarnation}"
    return None


def is_trusted(master: str) -> bool:
    """Whether replies from this URL may carry commands.

    >>> [is_trusted(url) for url in ("http://127.0.0.1:4318", "https://m:4318", "http://10.0.0.1:4318")]
    [True, True, False]
    """
    parts = urlsplit(master)
    if parts.scheme == "https":
        return True
    host = parts.hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
