"""Sets of ranks as short text: ``0-3``, ``0-1022:2``, ``0,5,7``.

Process groups of large jobs are regular, so a list of thousands of members stays a few characters.
"""

from __future__ import annotations

from collections.abc import Iterable


def format_ranks(ranks: Iterable[int]) -> str:
    """Shortest of our notations for a set of ranks, ascending; empty text for no rank.

    >>> format_ranks([0, 1, 2, 3]), format_ranks([0, 2, 4, 6]), format_ranks([0, 5, 7])
    ('0-3', '0-6:2', '0,5,7')
    """
    ordered = sorted(set(ranks))
    parts: list[str] = []
    start = 0
    while start < len(ordered):
        end = start + 1
        step = ordered[end] - ordered[start] if end < len(ordered) else 1
        while end + 1 < len(ordered) and ordered[end + 1] - ordered[end] == step:
            end += 1
        run = min(end, len(ordered) - 1) - start + 1
        if run >= 3 or (run == 2 and step == 1):
            last = ordered[start + run - 1]
            parts.append(f"{ordered[start]}-{last}" + (f":{step}" if step > 1 else ""))
            start += run
        else:
            parts.append(str(ordered[start]))
            start += 1
    return ",".join(parts)


def parse_ranks(text: str) -> tuple[int, ...]:
    """Ranks of a text made by `format_ranks`, ascending.

    Raises:
        ValueError: where the text is not of that form.
    """
    ranks: set[int] = set()
    for part in text.split(","):
        if not part:
            continue
        span, _, step = part.partition(":")
        low, dash, high = span.partition("-")
        if not dash and step:
            raise ValueError(f"{part!r} has a step and no range")
        if not dash:
            ranks.add(int(low))
        else:
            ranks.update(range(int(low), int(high) + 1, int(step or 1)))
    return tuple(sorted(ranks))
