"""Counters of process groups, from torch's flight recorder, under names that all ranks share.

The recorder's keys are local: the n-th backend object of its kind that this process made. So creation is
watched, and the n-th is looked up; names and members come from torch's own table of groups.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from arobust_otel.model.ranks import format_ranks

# Name, ranks as text, backend, enqueued, completed.
GroupRow = tuple[str, str, str, int, int]

# Backend -> the recorder's function in torch._C._distributed_c10d. NCCL has a ring of its own.
RECORDERS = {"gloo": "_dump_fr_trace", "nccl": "_dump_nccl_trace"}


class UnknownGroup(LookupError):
    """The recorder counts a group whose creation was not seen: no name can be trusted."""


class GroupBook:
    """Which group the n-th backend object of each kind belongs to, in the order of creation."""

    def __init__(self) -> None:
        self._created: dict[str, list[str]] = {}
        self._members: dict[tuple[int, str], str] = {}

    def created(self, name: str, backend_config: str) -> None:
        """A group was made; `backend_config` as torch prints it: ``cpu:gloo,cuda:nccl`` or ``gloo``."""
        for backend in backends(backend_config):
            self._created.setdefault(backend, []).append(name)

    def name(self, backend: str, key: str) -> str:
        """Name of the group that the recorder calls `key`.

        Raises:
            UnknownGroup: its creation was not seen.
        """
        names = self._created.get(backend, [])
        if not key.isdigit() or int(key) >= len(names):
            raise UnknownGroup(f"{backend} group {key} was not seen when it was made")
        return names[int(key)]

    def members(self, world: Any) -> dict[str, str]:
        """Living groups: name to ranks as text, from torch's table."""
        living = {}
        for group, name in list(world.pg_names.items()):
            ranks = world.pg_group_ranks.get(group)
            if ranks is None:
                continue  # being made
            key = (id(group), name)
            if key not in self._members:
                self._members[key] = format_ranks(ranks)
            living[name] = self._members[key]
        return living


def backends(backend_config: str) -> list[str]:
    """Backend objects that a configuration makes: one for all devices, or one for each where they differ.

    >>> backends("cpu:gloo,cuda:nccl"), backends("cpu:gloo,cuda:gloo"), backends("gloo")
    (['gloo', 'nccl'], ['gloo'], ['gloo'])
    """
    names = [part.rpartition(":")[2] for part in backend_config.split(",") if part]
    return names[:1] if len(set(names)) == 1 else names


def parse_status(dump: bytes) -> dict[str, dict[str, int]]:
    """`pg_status` of a recorder's dump: key to its counters; empty where nothing was recorded."""
    status = pickle.loads(dump).get("pg_status") or {}
    return {str(key): dict(values) for key, values in status.items()}


def name_counters(
    book: GroupBook, backend: str, status: Mapping[str, Mapping[str, int]], members: Mapping[str, str]
) -> Iterable[GroupRow]:
    """Counters of the groups that live, under their shared names.

    Raises:
        UnknownGroup: see `GroupBook.name`.
    """
    for key, values in status.items():
        name = book.name(backend, key)
        if name in members:
            enqueued = max(0, values.get("last_enqueued_collective", 0))
            completed = max(0, values.get("last_completed_collective", 0))
            yield name, members[name], backend, enqueued, completed


def loaded_distributed() -> Any:
    """Torch's module of process groups if the process has loaded it and made a group, else None."""
    module = sys.modules.get("torch.distributed.distributed_c10d")
    world = getattr(module, "_world", None)
    return module if world is not None and getattr(world, "pg_map", None) else None


def dump_status(native: Any, backend: str) -> dict[str, dict[str, int]] | None:
    """What the recorder of `backend` counts; None where this torch has no such recorder.

    Without collectives and stacks: 3 to 10 microseconds. Anything more holds the interpreter lock for long.
    """
    dump = getattr(native, RECORDERS.get(backend, ""), None)
    if dump is None:
        return None
    try:
        return parse_status(dump(False, False, False))
    except TypeError:  # an older torch takes no such arguments, and would dump everything
        return None
