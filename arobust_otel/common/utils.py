"""Helpers of the package `arobust`: its environment, ports, and `Singleton`."""

from __future__ import annotations

import logging
import os
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from arobust_otel.common.constants import EnvConfigKey

T = TypeVar("T", bound="Singleton")
logger = logging.getLogger("arobust_otel.common")

_PREFIX = "arobust_"
_PROBE_SECONDS = 1.0


def get_env(key: str, default: str | None = None) -> str | None:
    """An environment variable; one of ours also with the prefix ``AROBUST_``, which counts second."""
    value = os.environ.get(key)
    if value is None and key.startswith(_PREFIX):
        value = os.environ.get(key.upper())
    return default if value is None else value


def get_node_id() -> int:
    """Number of this node: our variables, then ``NODE_ID``; -1 where none says it."""
    return _first_number((EnvConfigKey.NODE_ID, "NODE_ID"), -1)


def get_node_type() -> str:
    """What kind of node this is; ``worker`` where nothing says it."""
    return get_env(EnvConfigKey.NODE_TYPE) or os.environ.get("NODE_TYPE") or "worker"


def get_node_rank() -> int:
    """Rank of this node in the job; -1 where nothing says it.

    Our variables, then ``NODE_RANK``, torchrun's ``GROUP_RANK``, Slurm's ``SLURM_NODEID``. ``RANK`` counts
    only without ``LOCAL_RANK`` and torchrun: there several platforms mean the node by it, else the process.
    """
    names: tuple[str, ...] = (EnvConfigKey.NODE_RANK, "NODE_RANK", "GROUP_RANK", "SLURM_NODEID")
    if "LOCAL_RANK" not in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
        names = (*names, EnvConfigKey.RANK)
    return _first_number(names, -1)


def get_local_rank() -> int:
    """Rank of this process on its node; 0 where nothing says it."""
    return _first_number((EnvConfigKey.LOCAL_RANK,), 0)


def is_port_in_use(port: str | int) -> bool:
    """Whether somebody listens on a port of this machine.

    Raises:
        ValueError: no number of a port.
    """
    number = int(port)
    if not 0 < number < 65536:
        raise ValueError(f"{port!r} is no port: a number from 1 to 65535")
    try:
        with socket.create_connection(("127.0.0.1", number), timeout=_PROBE_SECONDS):
            return True
    except OSError:
        return False


def find_free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Singleton:
    """A class with one instance per process, got by `singleton_instance`.

    An instance that was made directly becomes the one, as long as it lives and no other does. Arguments of
    later calls are not ignored: `reconfigure` gets them; a class without one says that they change nothing.
    """

    _singleton_lock: ClassVar[threading.RLock] = threading.RLock()
    _singleton: ClassVar[Callable[[], Any] | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._singleton_lock = threading.RLock()  # with the class, so that no two threads can each make one
        cls._singleton = None

    def __new__(cls: type[T], *_args: Any, **_kwargs: Any) -> T:
        """Note the first living instance."""
        instance = super().__new__(cls)
        with cls._singleton_lock:
            if cls._singleton is None or cls._singleton() is None:
                cls._singleton = weakref.ref(instance)
            else:
                logger.warning("a second %s is made; singleton_instance() gives the first one", cls.__name__)
        return instance

    @classmethod
    def singleton_instance(cls: type[T], *args: Any, **kwargs: Any) -> T:
        """The one instance; made with these arguments where there is none, told of them where there is."""
        with cls._singleton_lock:
            found: T | None = cls._singleton() if cls._singleton is not None else None
            if found is None:
                made = cls(*args, **kwargs)
                cls._singleton = lambda: made
                return made
        if args or kwargs:
            found.reconfigure(*args, **kwargs)
        return found

    @classmethod
    def reset_singleton(cls) -> None:
        """Forget the instance, for tests and for processes that start over; what it runs is stopped."""
        with cls._singleton_lock:
            found = cls._singleton() if cls._singleton is not None else None
            cls._singleton = None
        stop = getattr(found, "stop", None)
        if callable(stop):
            stop()

    def reconfigure(self, *args: Any, **kwargs: Any) -> None:
        """Take the arguments of a later `singleton_instance`; classes that can use them replace this."""
        logger.warning(
            "%s exists already: %s change nothing",
            type(self).__name__,
            ", ".join([*map(repr, args), *kwargs]),
        )


def _first_number(names: tuple[str, ...], default: int) -> int:
    for name in names:
        try:
            return int(get_env(name) or "")
        except ValueError:  # not set, or no number: the next name may be better
            continue
    return default
