"""Computes the incidents of a kept journal again. Never reads stored outputs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

from arobust_otel.journal import Reader, snapshots
from arobust_otel.master.judge import engine_builder
from arobust_otel.master.judgement import SNAPSHOT_VERSION, Judgement, incident_lines
from arobust_otel.master.receive import versions
from arobust_otel.master.wire import DEFAULT_ENGINE
from arobust_otel.model.incident import Incident, rfc3339


def replay(journal: Path, out: TextIO, *, as_json: bool = False, engine: str = DEFAULT_ENGINE) -> int:
    """Print the final incidents of a journal.

    Same journal, same configuration, same versions: the same lines as the judge wrote into
    ``incidents.jsonl`` when it ended, byte for byte. Other versions are said on standard error.

    Args:
        journal: folder of the journal.
        out: where the incidents go.
        as_json: canonical JSON, one incident a line, instead of a table.
        engine: ``module:function``, see `wire.Orders`.

    Returns:
        0, or 1 where the journal holds nothing that could be judged.

    Raises:
        JournalError: the journal is damaged; names segment and byte.
    """
    judgement = recompute(journal, engine)
    _say_versions(judgement)
    if judgement.skipped:
        _say(f"{len(judgement.skipped)} records made the engine fail and were skipped, as in the live run")
    if judgement.engine is None:
        _say(f"{journal} holds no configuration: nothing to judge")
        return 1
    incidents = judgement.engine.incidents()
    out.write(incident_lines(incidents) if as_json else table(incidents))
    return 0


def recompute(journal: Path, engine: str = DEFAULT_ENGINE) -> Judgement:
    """Feed every record of a journal; one whose begin was deleted goes on from the snapshot beside it."""
    judgement = Judgement(engine_builder(engine))
    with Reader(journal) as reader:
        records = reader.read()
        if records and records[0].offset > 0:
            found = snapshots.latest(journal.parent / "snapshots", SNAPSHOT_VERSION)
            if found is not None and found[0] >= records[0].offset:
                _say(f"the journal begins at {records[0].offset}: going on from the snapshot at {found[0]}")
                judgement.restore(found[1])
                records = [record for record in records if record.offset >= found[0]]
                reader.offset = max(reader.offset, found[0])
        while records:
            for record in records:
                judgement.feed(record)
            records = reader.read()
    return judgement


def table(incidents: list[Incident]) -> str:
    """For people: one paragraph an incident, oldest first."""
    if not incidents:
        return "no incidents\n"
    ordered = sorted(incidents, key=lambda item: (item.first_evidence_ns, item.id))
    return "".join(_paragraph(incident) for incident in ordered)


def _paragraph(incident: Incident) -> str:
    ranks = ", ".join(f"rank {item.rank}" for item in incident.culprits) or "nobody"
    return (
        f"{incident.status:<9} {incident.cause:<22} {ranks:<16} {incident.id}\n"
        f"          first evidence {rfc3339(incident.first_evidence_ns)}, "
        f"opened {rfc3339(incident.opened_ns)}\n"
        f"          {incident.summary}\n"
    )


def _say_versions(judgement: Judgement) -> None:
    here = versions()
    for recorded in judgement.versions:
        if recorded != here:
            text = ", ".join(f"{name} {value}" for name, value in sorted(recorded.items()))
            now = ", ".join(f"{name} {value}" for name, value in sorted(here.items()))
            _say(f"recorded by {text}; replayed by {now}: equal incidents are not promised")


def _say(text: str) -> None:
    sys.stderr.write(f"arobust replay: {text}\n")
