"""Which incidents stand, as one destination was told: kept in a file beside its cursor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arobust_otel.journal.durable import if_there_is_room
from arobust_otel.master.layout import read_json, write_json
from arobust_otel.model.incident import OPEN, PENDING, RESOLVED
from arobust_otel.model.notice import series_of

ENDED_SECONDS = 300.0  # how long an ended incident is still shown as such

Told = dict[str, Any]  # Incident.to_json()


class Standing:
    """Open incidents by id, and those that ended lately; one object owns the file.

    `take` only remembers: what stands is stored together with the cursor, when its destination was told.
    """

    def __init__(self, path: Path) -> None:
        """The file need not exist."""
        values = read_json(path)
        self._path = path
        self._changed = False
        self._open: dict[str, Told] = values.get("open", {})
        self._ended: list[dict[str, Any]] = values.get("ended", [])

    def open(self) -> list[Told]:
        """Open incidents, in the order they were told first."""
        return list(self._open.values())

    def before(self, incident_id: str) -> Told | None:
        """The open form of an incident as it was told last."""
        return self._open.get(incident_id)

    def take(self, incident: Told, now_ns: int) -> Told | None:
        """An incident was told; returns the earlier form whose series ends with that, None for most.

        A revision changes what a series or an alert is about: the earlier one must end, or it would stand
        for ever. It ends only where no other open incident shares it.
        """
        if incident["status"] == PENDING:
            return None
        before = self._open.pop(incident["id"], None)
        if incident["status"] == OPEN:
            self._open[incident["id"]] = incident
        ended = None
        if before is not None and series_of(before) != series_of(incident):
            at = incident["updated_at"]
            ended = {**before, "status": RESOLVED, "resolved_at": at, "updated_at": at}
        for gone in (ended, incident if incident["status"] == RESOLVED else None):
            if gone is not None:
                self._ended.append({"incident": gone, "at_ns": now_ns})
        self._forget(now_ns)
        self._changed = True
        return ended if ended is not None and not self.is_open(series_of(ended)) else None

    def store(self) -> None:
        """Replace the file, where anything was taken since the last time."""
        if not self._changed:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with if_there_is_room():
            write_json(self._path, {"open": self._open, "ended": self._ended})
            self._changed = False

    def is_open(self, series: str) -> bool:
        """Whether an open incident has this series."""
        return any(series_of(incident) == series for incident in self._open.values())

    def shown(self, now_ns: int) -> list[Told]:
        """One incident per series: open ones first, then those that ended in the last five minutes."""
        self._forget(now_ns)
        found: dict[str, Told] = {}
        for incident in self._open.values():
            found[series_of(incident)] = incident
        ended: dict[str, Told] = {}
        for row in self._ended:
            ended[series_of(row["incident"])] = row["incident"]
        return [*found.values(), *(row for series, row in ended.items() if series not in found)]

    def _forget(self, now_ns: int) -> None:
        limit_ns = now_ns - int(ENDED_SECONDS * 1e9)
        self._ended = [row for row in self._ended if row["at_ns"] > limit_ns]
