"""Commands that wait for their agent's next heartbeat. In memory only: after a restart there are none.

The clock is an argument, in seconds that never go back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from arobust_otel.model.heartbeat import Command, Heartbeat

MAX_PER_AGENT = 64


@dataclass(frozen=True, slots=True)
class _Waiting:
    command: Command
    expires_at_seconds: float


class CommandTable:
    """Per agent, what it has not fetched yet. A command is given out once."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[_Waiting]] = {}
        self.expired = 0

    def add(self, command: Command, age_seconds: float, now_seconds: float) -> None:
        """Keep a command until it is fetched or expires; `age_seconds` of its time have passed already."""
        waiting = self._waiting.setdefault(command.agent, [])
        waiting.append(_Waiting(command, now_seconds + command.expires_in_seconds - age_seconds))
        self.expired += max(0, len(waiting) - MAX_PER_AGENT)
        del waiting[:-MAX_PER_AGENT]

    def fetch(self, heartbeat: Heartbeat, now_seconds: float) -> tuple[Command, ...]:
        """Commands for the agent and incarnation of a heartbeat, with the time they have left.

        An agent that says it ends gets nothing; what is meant for another incarnation is dropped.
        """
        waiting = self._waiting.pop(heartbeat.agent, [])
        attempt = (heartbeat.job_id, heartbeat.incarnation)
        good = [
            replace(item.command, expires_in_seconds=round(item.expires_at_seconds - now_seconds, 3))
            for item in waiting
            if item.expires_at_seconds > now_seconds
            and (item.command.job_id, item.command.incarnation) == attempt
            and not heartbeat.final
        ]
        self.expired += len(waiting) - len(good)
        return tuple(good)

    def prune(self, now_seconds: float) -> None:
        """Forget what has expired, so that agents that never come back hold nothing."""
        for agent, waiting in list(self._waiting.items()):
            kept = [item for item in waiting if item.expires_at_seconds > now_seconds]
            self.expired += len(waiting) - len(kept)
            if kept:
                self._waiting[agent] = kept
            else:
                del self._waiting[agent]
