"""The client of a monitor: a given one, else one of its own where the environment names a master."""

from __future__ import annotations

import os
import threading
from typing import Any

from arobust_otel import guard
from arobust_otel.agent.handing import logger
from arobust_otel.common.constants import EnvConfigKey
from arobust_otel.common.utils import get_env

_CLOSE_SECONDS = 1.0


def named_master() -> str | None:
    """The master that the environment names on purpose; None where nothing does."""
    return os.environ.get("AROBUST_MASTER") or get_env(EnvConfigKey.MASTER_ADDR) or None


class OwnClient:
    """Holds a client that was given, or makes one and ends it."""

    def __init__(self) -> None:
        self._given: Any = None
        self._made: Any = None
        self._lock = threading.Lock()

    def set(self, client: Any) -> None:
        """Use this one from now on."""
        self._given = client

    def is_to_be_had(self) -> bool:
        """Whether `get` will give one."""
        return self._given is not None or named_master() is not None

    def get(self) -> Any:
        """The client; None where there is none. Threads that ask at once get the same one."""
        with self._lock:
            if self._given is None and self._made is None:
                self._made = _make()
            return self._made if self._given is None else self._given

    def close(self) -> None:
        """End the one that was made; a given one belongs to the giver."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.close(_CLOSE_SECONDS)


def _make() -> Any:
    address = named_master()
    if address is None:
        return None
    from arobust_otel.agent.master_client import MasterClient  # the SDK is loaded only where it is used

    made, error = guard.attempt("MasterClient", lambda: MasterClient(address))
    if error is not None:
        logger.error("no client for the master at %s: %s", address, error)
    return made
