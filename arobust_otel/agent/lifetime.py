"""When the agent's work is over. Pure: the node and the time are arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from arobust_otel.plugins import LauncherProcess, Node

# After the last rank of a launcher that is ending: its wait statuses are written within half a second.
AFTER_LAUNCHER_SECONDS = 1.0


@dataclass(slots=True)
class Lifetime:
    """Follows who lives on the node.

    Args:
        linger_seconds: how long to stay after the last rank, where no launcher says that it is ending.
        first_rank_seconds: how long to wait for any rank or launcher at all.
    """

    linger_seconds: float
    first_rank_seconds: float
    _started: float | None = field(default=None, init=False)
    _seen: bool = field(default=False, init=False)
    _alone_since: float | None = field(default=None, init=False)

    def is_over(self, node: Node, states: Mapping[tuple[int, int], str], mono: float) -> bool:
        """Whether to end now.

        Args:
            node: who was found at this sample.
            states: letters of /proc by process, where they are known.
            mono: seconds of the monotonic clock.
        """
        self._started = mono if self._started is None else self._started
        alive = any(rank.alive and states.get(rank.key, "?") not in "ZX" for rank in node.ranks)
        working = [launcher for launcher in node.launchers if _works(launcher)]
        self._seen = self._seen or bool(node.ranks)
        if alive:
            self._alone_since = None
            return False
        if not self._seen:
            return mono - self._started >= self.first_rank_seconds
        if self._alone_since is None:
            self._alone_since = mono
        if working:  # it will start its ranks again, or hangs at its own end: both are worth watching
            return False
        alone = mono - self._alone_since
        return alone >= (
            min(AFTER_LAUNCHER_SECONDS, self.linger_seconds) if node.launchers else self.linger_seconds
        )


def _works(launcher: LauncherProcess) -> bool:
    return launcher.alive and launcher.beacon.exit_begun_ns is None
