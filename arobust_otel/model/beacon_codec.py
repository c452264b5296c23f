"""Pages of 4096 bytes to beacon values and back; pure.

The live writer (`training/`) stores single slots into its map; `encode` makes a whole page, for tests, for
other senders of beacons, and as the executable description of the format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from arobust_otel.errors import BeaconError
from arobust_otel.model import beacon_layout as at
from arobust_otel.model.beacon_gaps import CAPABILITIES, GAP_CODES, from_mask, to_mask
from arobust_otel.model.beacon_layout import PHASES, STATES
from arobust_otel.model.beacon_values import (
    Child,
    GroupCounters,
    LauncherBeacon,
    RankBeacon,
    SeenException,
)

_SLOTS = struct.Struct("<512Q")
_PAIR = struct.Struct("<2Q")
_DOUBLE = struct.Struct("<d")


def decode(page: bytes, torn: bool = False) -> RankBeacon | LauncherBeacon:
    """The beacon of a page.

    Raises:
        BeaconError: not a beacon, not written yet, or of a layout that this version does not know.
    """
    if len(page) < at.SIZE_BYTES:
        raise BeaconError(f"{len(page)} bytes are no beacon of {at.SIZE_BYTES}")
    slots = _SLOTS.unpack_from(page)
    if slots[at.MAGIC] not in (at.RANK_MAGIC, at.LAUNCHER_MAGIC):
        raise BeaconError("not a beacon, or not written yet")
    if slots[at.LAYOUT_VERSION] != at.VERSION:
        raise BeaconError(f"layout version {slots[at.LAYOUT_VERSION]} is not {at.VERSION}")
    if slots[at.MAGIC] == at.LAUNCHER_MAGIC:
        return _launcher(page, slots, torn)
    return _rank(page, slots, torn)


def _text(page: bytes, field: tuple[int, int]) -> str:
    offset, size = field
    return at.unpack_text(page[offset : offset + size])


def _named(table: tuple[str, ...], code: int) -> str:
    return table[code] if code < len(table) else table[0]


def _rank(page: bytes, slots: tuple[int, ...], torn: bool) -> RankBeacon:
    return RankBeacon(
        pid=slots[at.PID],
        start_ticks=slots[at.START_TICKS],
        rank=slots[at.RANK],
        local_rank=slots[at.LOCAL_RANK],
        world_size=slots[at.WORLD_SIZE],
        local_world_size=slots[at.LOCAL_WORLD_SIZE],
        node_rank=slots[at.NODE_RANK] - 1 if slots[at.NODE_RANK] else None,
        incarnation=slots[at.INCARNATION],
        job_id=_text(page, at.JOB_ID),
        host=_text(page, at.HOST),
        role=_text(page, at.ROLE),
        script=_text(page, at.SCRIPT),
        born_ns=slots[at.BORN_NS],
        main_tid=slots[at.MAIN_TID],
        watcher_tid=slots[at.WATCHER_TID],
        state=_named(STATES, slots[at.STATE]),
        step=slots[at.STEP],
        step_end_mono_ns=slots[at.STEP_END_NS],
        step_duration_ns=slots[at.STEP_DURATION_NS],
        phase=_named(PHASES, slots[at.PHASE]),
        phase_since_mono_ns=slots[at.PHASE_SINCE_NS],
        event_mono_ns=max(slots[at.EVENT_NS], slots[at.PHASE_SINCE_NS]),
        event_count=slots[at.HOT_SEQUENCE] // 2,
        tick_count=slots[at.TICK_COUNT],
        tick_mono_ns=slots[at.TICK_NS],
        groups=tuple(_groups(page, slots[at.GROUPS_COUNT])),
        groups_read_mono_ns=slots[at.GROUPS_READ_NS],
        device_counters=bool(slots[at.DEVICE_COUNTERS]),
        exception=_exception(page, slots),
        exit_begun_ns=slots[at.EXIT_BEGUN_NS] or None,
        nonfinite_step=slots[at.NONFINITE_STEP] if slots[at.NONFINITE_NS] else None,
        nonfinite_ns=slots[at.NONFINITE_NS] or None,
        loss=_DOUBLE.unpack_from(page, 8 * at.LOSS)[0] if slots[at.LOSS_SEEN] else None,
        stack_request=slots[at.STACK_REQUEST],
        stack_done=slots[at.STACK_DONE],
        capabilities=from_mask(CAPABILITIES, slots[at.CAPABILITIES]),
        gaps=from_mask(GAP_CODES, slots[at.GAPS]),
        torn=torn,
    )


def _groups(page: bytes, count: int) -> Iterator[GroupCounters]:
    for index in range(min(count, at.MAX_GROUPS)):
        base = at.GROUPS_OFFSET + index * at.GROUP_BYTES
        ranks_at = base + at.GROUP_NAME_BYTES
        backend_at = ranks_at + at.GROUP_RANKS_BYTES
        enqueued, completed = _PAIR.unpack_from(page, backend_at + at.GROUP_BACKEND_BYTES)
        yield GroupCounters(
            name=at.unpack_text(page[base:ranks_at]),
            ranks=at.unpack_text(page[ranks_at:backend_at]),
            backend=at.unpack_text(page[backend_at : backend_at + at.GROUP_BACKEND_BYTES]),
            enqueued=enqueued,
            completed=completed,
        )


def _exception(page: bytes, slots: tuple[int, ...]) -> SeenException | None:
    if not slots[at.EXCEPTION_NS]:
        return None
    return SeenException(
        time_ns=slots[at.EXCEPTION_NS],
        step=slots[at.EXCEPTION_STEP],
        type=_text(page, at.EXCEPTION_TYPE),
        message=_text(page, at.EXCEPTION_MESSAGE),
        function=_text(page, at.EXCEPTION_FUNCTION),
        file=_text(page, at.EXCEPTION_FILE),
        line=slots[at.EXCEPTION_LINE],
        thread=_text(page, at.EXCEPTION_THREAD),
    )


def _launcher(page: bytes, slots: tuple[int, ...], torn: bool) -> LauncherBeacon:
    return LauncherBeacon(
        pid=slots[at.PID],
        start_ticks=slots[at.START_TICKS],
        job_id=_text(page, at.JOB_ID),
        incarnation=slots[at.INCARNATION],
        host=_text(page, at.HOST),
        born_ns=slots[at.BORN_NS],
        argv=_text(page, at.SCRIPT),
        exit_begun_ns=slots[at.EXIT_BEGUN_NS] or None,
        signal_received=slots[at.SIGNAL_RECEIVED] or None,
        children=tuple(_children(slots)),
        torn=torn,
    )


def _children(slots: tuple[int, ...]) -> Iterator[Child]:
    for index in range(min(slots[at.CHILDREN_COUNT], at.MAX_CHILDREN)):
        base = at.CHILDREN_OFFSET // 8 + index * at.CHILD_SLOTS
        child = slots[base : base + at.CHILD_SLOTS]
        yield Child(
            pid=child[at.CHILD_PID],
            start_ticks=child[at.CHILD_START_TICKS],
            rank=child[at.CHILD_RANK] - 1 if child[at.CHILD_RANK] else None,
            local_rank=child[at.CHILD_LOCAL_RANK] - 1 if child[at.CHILD_LOCAL_RANK] else None,
            born_ns=child[at.CHILD_BORN_NS],
            ended_ns=child[at.CHILD_ENDED_NS] or None,
            wait_status=child[at.CHILD_STATUS] - at.STATUS_BIAS if child[at.CHILD_STATUS] else None,
        )


def encode(beacon: RankBeacon | LauncherBeacon) -> bytes:
    """The page of a beacon; what does not fit is cut or left out."""
    page = bytearray(at.SIZE_BYTES)
    slots = _rank_slots(beacon) if isinstance(beacon, RankBeacon) else _launcher_slots(beacon)
    slots |= {at.LAYOUT_VERSION: at.VERSION, at.PID: beacon.pid, at.START_TICKS: beacon.start_ticks}
    slots |= {at.BORN_NS: beacon.born_ns, at.INCARNATION: beacon.incarnation}
    slots |= {at.EXIT_BEGUN_NS: beacon.exit_begun_ns or 0}
    for slot, number in slots.items():
        page[slot * 8 : slot * 8 + 8] = number.to_bytes(8, "little")
    texts = _rank_texts(beacon) if isinstance(beacon, RankBeacon) else {at.SCRIPT: beacon.argv}
    texts |= {at.HOST: beacon.host, at.JOB_ID: beacon.job_id}
    for (offset, size), text in texts.items():
        page[offset : offset + size] = at.pack_text(text, size)
    if isinstance(beacon, RankBeacon):
        for index, group in enumerate(beacon.groups[: at.MAX_GROUPS]):
            base = at.GROUPS_OFFSET + index * at.GROUP_BYTES
            page[base : base + at.GROUP_BYTES] = at.pack_group(
                group.name, group.ranks, group.backend, group.enqueued, group.completed
            )
    return bytes(page)


def encode_child(child: Child) -> tuple[int, ...]:
    """The slots of one entry of a launcher's children."""
    return (
        child.pid,
        child.start_ticks,
        0 if child.rank is None else child.rank + 1,
        0 if child.local_rank is None else child.local_rank + 1,
        child.born_ns,
        child.ended_ns or 0,
        0 if child.wait_status is None else child.wait_status + at.STATUS_BIAS,
    )


def _rank_slots(beacon: RankBeacon) -> dict[int, int]:
    seen = beacon.exception
    return {
        at.MAGIC: at.RANK_MAGIC,
        at.RANK: beacon.rank,
        at.LOCAL_RANK: beacon.local_rank,
        at.WORLD_SIZE: beacon.world_size,
        at.LOCAL_WORLD_SIZE: beacon.local_world_size,
        at.NODE_RANK: 0 if beacon.node_rank is None else beacon.node_rank + 1,
        at.MAIN_TID: beacon.main_tid,
        at.WATCHER_TID: beacon.watcher_tid,
        at.HOT_SEQUENCE: beacon.event_count * 2,
        at.STATE: STATES.index(beacon.state),
        at.STEP: beacon.step,
        at.STEP_END_NS: beacon.step_end_mono_ns,
        at.STEP_DURATION_NS: beacon.step_duration_ns,
        at.PHASE: PHASES.index(beacon.phase),
        at.PHASE_SINCE_NS: beacon.phase_since_mono_ns,
        at.EVENT_NS: beacon.event_mono_ns,
        at.TICK_COUNT: beacon.tick_count,
        at.TICK_NS: beacon.tick_mono_ns,
        at.GROUPS_COUNT: min(len(beacon.groups), at.MAX_GROUPS),
        at.GROUPS_READ_NS: beacon.groups_read_mono_ns,
        at.DEVICE_COUNTERS: int(beacon.device_counters),
        at.STACK_REQUEST: beacon.stack_request,
        at.STACK_DONE: beacon.stack_done,
        at.CAPABILITIES: to_mask(CAPABILITIES, beacon.capabilities),
        at.GAPS: to_mask(GAP_CODES, beacon.gaps),
        at.EXCEPTION_NS: seen.time_ns if seen else 0,
        at.EXCEPTION_STEP: seen.step if seen else 0,
        at.EXCEPTION_LINE: seen.line if seen else 0,
        at.NONFINITE_NS: beacon.nonfinite_ns or 0,
        at.NONFINITE_STEP: beacon.nonfinite_step or 0,
        at.LOSS_SEEN: int(beacon.loss is not None),
        at.LOSS: int.from_bytes(_DOUBLE.pack(beacon.loss or 0.0), "little"),
    }


def _rank_texts(beacon: RankBeacon) -> dict[tuple[int, int], str]:
    seen = beacon.exception
    return {
        at.ROLE: beacon.role,
        at.SCRIPT: beacon.script,
        at.EXCEPTION_TYPE: seen.type if seen else "",
        at.EXCEPTION_MESSAGE: seen.message if seen else "",
        at.EXCEPTION_FUNCTION: seen.function if seen else "",
        at.EXCEPTION_FILE: seen.file if seen else "",
        at.EXCEPTION_THREAD: seen.thread if seen else "",
    }


def _launcher_slots(beacon: LauncherBeacon) -> dict[int, int]:
    kept = beacon.children[: at.MAX_CHILDREN]
    slots = {
        at.MAGIC: at.LAUNCHER_MAGIC,
        at.SIGNAL_RECEIVED: beacon.signal_received or 0,
        at.CHILDREN_COUNT: len(kept),
    }
    for index, child in enumerate(kept):
        base = at.CHILDREN_OFFSET // 8 + index * at.CHILD_SLOTS
        slots |= {base + number: value for number, value in enumerate(encode_child(child))}
    return slots
