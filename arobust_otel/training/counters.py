"""The watcher's task of copying collective counters into the beacon, and of saying which cannot be had."""

from __future__ import annotations

import struct
import sys
from time import monotonic_ns
from typing import Any

from arobust_otel.model import beacon_layout as at
from arobust_otel.training import groups
from arobust_otel.training.rank import RankWriter

# Without a count after so many steps the recorder is off, not late.
_STEPS_UNTIL_OFF = 2
_PAIR = struct.Struct("<2Q")
_COUNTERS_OFFSET = at.GROUP_BYTES - _PAIR.size


class CounterTask:
    """Called by the watcher: reads the flight recorder and stores the groups with the time of reading."""

    def __init__(self, writer: RankWriter, book: groups.GroupBook) -> None:
        self._writer = writer
        self._book = book
        self._shape: tuple[tuple[str, str, str], ...] = ()

    def __call__(self) -> None:
        """One reading; nothing where no group lives."""
        module = groups.loaded_distributed()
        if module is None:
            return
        native = getattr(sys.modules.get("torch._C"), "_distributed_c10d", None)
        members = self._book.members(module._world)
        counters: list[groups.GroupRow] = []
        try:
            for backend in self._backends(module._world):
                status = groups.dump_status(native, backend)
                self._tell_gaps(backend, status)
                counters += groups.name_counters(self._book, backend, status or {}, members)
        except groups.UnknownGroup:
            self._writer.miss("group_names")
            counters = []
        self._store(sorted(counters, key=lambda row: (row[2], row[0])))

    def _backends(self, world: Any) -> list[str]:
        configs = getattr(world, "pg_backend_config", {})
        found = {name for config in list(configs.values()) for name in groups.backends(str(config))}
        return sorted(found)

    def _tell_gaps(self, backend: str, status: dict[str, dict[str, int]] | None) -> None:
        writer = self._writer
        known = "collective_counters" if backend == "gloo" else "device_counters"
        if status:
            writer.can(known)
            writer.miss(known, missing=False)
            writer.miss("collective_recorder_off", missing=False)
            if known == "device_counters":
                writer.page.slots[at.DEVICE_COUNTERS] = 1
        elif status is None:
            writer.miss(known)
        elif writer.step >= _STEPS_UNTIL_OFF:
            writer.miss("device_counters" if known == "device_counters" else "collective_recorder_off")

    def _store(self, counters: list[groups.GroupRow]) -> None:
        fitting = [row for row in counters if len(row[1]) <= at.GROUP_RANKS_BYTES][: at.MAX_GROUPS]
        if len(fitting) < len(counters):
            self._writer.miss("groups_cut")
        shape = tuple(row[:3] for row in fitting)
        page = self._writer.page
        inside = page.begin(at.GROUPS_SEQUENCE)
        for index, row in enumerate(fitting):
            base = at.GROUPS_OFFSET + index * at.GROUP_BYTES
            if shape == self._shape:
                _PAIR.pack_into(page.data, base + _COUNTERS_OFFSET, *row[3:])
            else:
                page.data[base : base + at.GROUP_BYTES] = at.pack_group(*row)
        self._shape = shape
        page.slots[at.GROUPS_COUNT] = len(fitting)
        page.slots[at.GROUPS_READ_NS] = monotonic_ns()
        page.end(at.GROUPS_SEQUENCE, inside)
