"""What a person sees: an incident and the ranks of a job, as plain text and on a terminal.

Input is the JSON of the query API, so that every command and the demo show the same. Pure text; nothing is
decided here, and a field that is null is left out rather than guessed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from arobust_otel.model.ranks import format_ranks

WIDTH = 100
LABEL_WIDTH = 12
EVIDENCE_SHOWN = 12
RANKS_SHOWN = 40
GRADES = {
    "hard_fact": "hard fact",
    "two_witnesses": "two witnesses",
    "one_witness": "one witness",
    "cannot_see": "cannot see",
}
STYLES = {"open": "bold red", "pending": "yellow", "resolved": "green"}

# header, key of a row, how a value reads
RankColumn = tuple[str, str, str]
RANK_COLUMNS: tuple[RankColumn, ...] = (
    ("rank", "rank", "number"),
    ("node", "node", "text"),
    ("pid", "pid", "number"),
    ("state", "state", "text"),
    ("step", "step", "number"),
    ("phase", "phase", "text"),
    ("step time", "step_duration_seconds", "seconds"),
    ("no progress", "event_age_seconds", "age"),
    ("cpu", "cpu_utilization", "share"),
    ("memory", "memory_bytes", "bytes"),
    ("process", "process_state", "text"),
)


def render_incident(incident: dict[str, Any], width: int = WIDTH) -> str:
    """The verdict as plain text: headline, summary, then who, why, what to do and what would refute it."""
    lines = [headline(incident), *textwrap.wrap(str(incident.get("summary") or "(no summary)"), width)]
    for label, text in _once(details(incident)):
        lines += _labelled(label, text, width)
    return "\n".join(lines)


def print_rich(incident: dict[str, Any]) -> None:
    """The same text in a frame and colours on the terminal."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    console = Console()
    width = min(console.width, WIDTH + 4)
    style = STYLES.get(str(incident.get("status")), "")
    body = Text(str(incident.get("summary") or ""), style="bold")
    for label, text in _once(details(incident)):
        body.append("\n" + "\n".join(_labelled(label, text, width - 4)), style="not bold")
    console.print(Panel(body, title=headline(incident), title_align="left", border_style=style, width=width))


def headline(incident: dict[str, Any]) -> str:
    """``OPEN  hang_user_code  job 1f2e (two witnesses)  incident 9c0d``."""
    grade = GRADES.get(str(incident.get("grade")), str(incident.get("grade")))
    restart = f" restart {incident['incarnation']}" if incident.get("incarnation") else ""
    return (
        f"{str(incident.get('status', '?')).upper()}  {incident.get('cause')}  "
        f"job {incident.get('job_id')}{restart}  ({grade})  incident {incident.get('id')}"
    )


def details(incident: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and text of everything below the summary, in the order of reading."""
    found = [("To blame", _culprit(culprit)) for culprit in incident.get("culprits") or ()]
    if not found:
        found.append(("To blame", "nobody"))
    if incident.get("victims"):
        ranks = incident["victims"]
        found.append(("Victims", f"rank{'s' * (len(ranks) != 1)} {format_ranks(ranks)}: only waiting"))
    evidence = incident.get("evidence") or []
    found += [
        ("Because", _evidence(item)) for item in evidence[:EVIDENCE_SHOWN] if item.get("supports", True)
    ]
    if len(evidence) > EVIDENCE_SHOWN:
        found.append(("", f"... and {len(evidence) - EVIDENCE_SHOWN} more (--json)"))
    found += [("Against", _evidence(item)) for item in evidence if not item.get("supports", True)]
    found += [("Not seen", str(item)) for item in incident.get("unseen") or ()]
    found.append(("Do", _action(incident.get("action") or {})))
    if incident.get("refuted_by"):
        found.append(("Refuted by", str(incident["refuted_by"])))
    found += [("Revised", _revision(item)) for item in incident.get("revisions") or ()]
    found.append(("When", _when(incident)))
    return found


def _once(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same, with a label said only where it changes."""
    before = ["", *(label for label, _ in found)]
    return [
        ("" if label == last else label, text) for (label, text), last in zip(found, before, strict=False)
    ]


def render_ranks(ranks: Sequence[dict[str, Any]], limit: int = RANKS_SHOWN) -> str:
    """A table of the ranks, those without progress for longest first where there are more than `limit`."""
    rows = sorted(ranks, key=lambda row: (str(row.get("job_id")), _number(row.get("rank"))))
    hidden = max(0, len(rows) - limit)
    if hidden:
        rows = sorted(rows, key=lambda row: -_number(row.get("event_age_seconds")))[:limit]
    columns = [column for column in RANK_COLUMNS if any(row.get(column[1]) is not None for row in rows)]
    if not columns:
        return "No rank has been seen."
    cells = [[column[0] for column in columns]]
    cells += [[_cell(row, column) for column in columns] for row in rows]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    lines = [_line(line, widths, columns) for line in cells]
    if hidden:
        lines.append(f"... and {hidden:,} ranks that made progress more recently")
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int], columns: Sequence[RankColumn]) -> str:
    padded = (
        text.ljust(width) if column[2] == "text" else text.rjust(width)
        for text, width, column in zip(cells, widths, columns, strict=True)
    )
    return "  ".join(padded).rstrip()


def _cell(row: dict[str, Any], column: RankColumn) -> str:
    value, kind = row.get(column[1]), column[2]
    if column[1] == "process_state" and value == "gone":
        return _gone(row)
    if value is None:
        return "-"
    if kind == "seconds":
        return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
    if kind == "age":
        return f"{value:.0f} s"
    if kind == "share":
        return f"{value:.0%}"
    return f"{value / 1024**2:,.0f} MiB" if kind == "bytes" else str(value)


def _gone(row: dict[str, Any]) -> str:
    if row.get("exit_signal") is not None:
        return f"gone, signal {row['exit_signal']}"
    code = row.get("exit_code")
    return "gone, exit code unknown" if code is None else f"gone, exit code {code}"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else -1.0


def _labelled(label: str, text: str, width: int) -> list[str]:
    first, rest = f"  {label:{LABEL_WIDTH}}", " " * (LABEL_WIDTH + 2)
    lines: list[str] = []
    for line in text.splitlines() or [""]:
        lines += textwrap.wrap(
            line,
            width,
            initial_indent=rest if lines else first,
            subsequent_indent=rest,
            break_on_hyphens=False,
            break_long_words=False,
        )
    return lines


def _culprit(culprit: dict[str, Any]) -> str:
    words = {"local_rank": "local rank", "role": "role", "pid": "pid", "node": "on", "zone": "zone"}
    known = [f"{word} {culprit[key]}" for key, word in words.items() if culprit.get(key) is not None]
    name = f"rank {culprit['rank']}" if culprit.get("rank") is not None else "no rank known"
    return ", ".join([name, *known, *([culprit["accelerator"]] if culprit.get("accelerator") else [])])


def _evidence(item: dict[str, Any]) -> str:
    return f"{_clock(item.get('at'))} {item.get('says')} [{item.get('kind')}: {item.get('source')}]"


def _action(action: dict[str, Any]) -> str:
    kind = str(action.get("kind") or "none").replace("_", " ")
    target = f" {action['target']}" if action.get("target") else ""
    return f"{kind}{target}" + (f": {action['why']}" if action.get("why") else "")


def _revision(item: dict[str, Any]) -> str:
    culprits = item.get("culprits") or []
    before = f"{item.get('cause')}, rank {format_ranks(culprits)}" if culprits else str(item.get("cause"))
    return f"{_clock(item.get('at'))} before: {before}; because {item.get('because')}"


def _when(incident: dict[str, Any]) -> str:
    first, opened = incident.get("first_evidence_at"), incident.get("opened_at")
    parts = [f"first evidence {first}"]
    if opened:
        delay = _seconds_between(first, opened)
        parts.append(f"opened {delay:.1f} s later" if delay is not None else f"opened {opened}")
    if incident.get("resolved_at"):
        parts.append(f"resolved {incident['resolved_at']}")
    return ", ".join(parts)


def _clock(text: Any) -> str:
    """``12:30:29.123`` of an RFC 3339 time; the text itself where it is none."""
    moment = _moment(text)
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}" if moment else str(text or "")


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return None


def _seconds_between(start: Any, end: Any) -> float | None:
    begun, ended = _moment(start), _moment(end)
    return (ended - begun).total_seconds() if begun and ended else None
