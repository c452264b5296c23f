"""Words for people: a rank with its node and process, a place in code, a list of ranks, a duration."""

from __future__ import annotations

from collections.abc import Iterable

from arobust_otel.model.ranks import format_ranks
from arobust_otel.model.samples import Frame
from arobust_otel.model.user_code import user_frame
from arobust_otel.state.frames import main_frames
from arobust_otel.state.job import JobState


def name_rank(job: JobState, rank: int) -> str:
    """``Rank 7 (gpu-a-12, pid 4711)``; what is not known is left out."""
    life = job.lives.get(rank)
    known = [life.node, f"pid {life.pid}" if life.pid else None] if life else []
    inside = ", ".join(part for part in known if part)
    return f"Rank {rank} ({inside})" if inside else f"Rank {rank}"


def agent_of(job: JobState, rank: int) -> str:
    """Source of what is known of a rank: its agent, or that some sender reported it."""
    life = job.lives.get(rank)
    return (life.agent if life else "") or "sender without an agent"


def name_ranks(ranks: Iterable[int]) -> str:
    """``rank 2`` or ``ranks 0-1,3``."""
    ordered = sorted(set(ranks))
    return f"rank{'' if len(ordered) == 1 else 's'} {format_ranks(ordered)}"


def others(ranks: Iterable[int]) -> str:
    """``rank 2`` or ``the 3 others (ranks 0-1,3)``."""
    ordered = sorted(set(ranks))
    if len(ordered) == 1:
        return f"rank {ordered[0]}"
    return f"the {len(ordered):,} others (ranks {format_ranks(ordered)})"


def place(frame: Frame | None) -> str:
    """``read_shard() data.py:88``; empty text where no frame is known."""
    if frame is None:
        return ""
    return f"{frame.function}() {frame.file.rsplit('/', 1)[-1]}:{frame.line}"


def last_place(job: JobState, rank: int, since_ns: int = 0) -> Frame | None:
    """Where the main thread of a rank stood in its newest capture since `since_ns`."""
    life = job.lives.get(rank)
    for capture in reversed(life.stacks if life else []):
        if capture.time_ns >= since_ns:
            return user_frame(main_frames(capture))
    return None


def seconds(value: float) -> str:
    """``12 s`` or ``3 min 20 s``."""
    whole = int(value)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


def size_rate(bytes_per_second: float) -> str:
    """``200 MB/s``."""
    for unit, scale in (("GB/s", 1e9), ("MB/s", 1e6), ("kB/s", 1e3)):
        if bytes_per_second >= scale:
            return f"{bytes_per_second / scale:.0f} {unit}"
    return f"{bytes_per_second:.0f} B/s"
