"""Where everything stands in a beacon file: slot numbers, text fields, bit tables (docs/beacon.md).

A beacon is one page of 4096 bytes. Numbers are unsigned 64-bit slots in native byte order, text is UTF-8
padded with zero bytes. Shared by the writer (`training/`) and the reader (`model/beacon.py`); pure.
"""

from __future__ import annotations

# Codes are positions in these tables: rows are only ever added at the end.
STATES = (
    "unknown",
    "imported",
    "init_group",
    "first_step",
    "running",
    "checkpoint",
    "evaluation",
    "teardown",
    "done",
)
PHASES = ("none", "data", "forward", "backward", "optimizer", "checkpoint", "collective")
PROCESS_STATES = ("unknown", "running", "sleeping", "disk", "stopped", "traced", "zombie", "gone")

SIZE_BYTES = 4096
VERSION = 1
RANK_MAGIC = int.from_bytes(b"AROBRANK", "little")
LAUNCHER_MAGIC = int.from_bytes(b"AROBLNCH", "little")

# Slots that both kinds share. The magic is written last: a page without it is not ready yet.
MAGIC, LAYOUT_VERSION, PID, START_TICKS, BORN_NS, INCARNATION, EXIT_BEGUN_NS = range(7)
FACTS_SEQUENCE = 7

# Rank: place in the world (node rank plus one; 0 is unknown).
RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, NODE_RANK, MAIN_TID, WATCHER_TID = range(8, 15)
# Rank: the hot section. Its sequence number is odd while a writer is inside; half of it counts the events.
HOT_SEQUENCE, STATE, STEP, STEP_END_NS, STEP_DURATION_NS, PHASE, PHASE_SINCE_NS, EVENT_NS = range(16, 24)
# Rank: the watcher's.
TICK_COUNT, TICK_NS, GROUPS_SEQUENCE, GROUPS_COUNT, GROUPS_READ_NS, DEVICE_COUNTERS = range(24, 30)
STACK_REQUEST, STACK_DONE, CAPABILITIES, GAPS = range(30, 34)
# Rank: sticky facts.
EXCEPTION_NS, EXCEPTION_STEP, EXCEPTION_LINE, NONFINITE_NS, NONFINITE_STEP, LOSS_SEEN = range(34, 40)
LOSS = 40  # the newest finite loss, a 64-bit float; valid while LOSS_SEEN is 1
# Launcher.
SIGNAL_RECEIVED, CHILDREN_COUNT = 8, 9

# Text fields: (offset, size) in bytes.
HOST = (512, 64)
JOB_ID = (576, 128)
ROLE = (704, 32)
SCRIPT = (736, 256)  # the launcher keeps its command line here
EXCEPTION_TYPE = (1024, 96)
EXCEPTION_MESSAGE = (1120, 304)
EXCEPTION_FUNCTION = (1424, 96)
EXCEPTION_FILE = (1520, 208)
EXCEPTION_THREAD = (1728, 64)

# Process groups: name, ranks, backend, then two slots.
GROUPS_OFFSET = 1792
GROUP_BYTES = 128
GROUP_NAME_BYTES = 48
GROUP_RANKS_BYTES = 48
GROUP_BACKEND_BYTES = 16
MAX_GROUPS = (SIZE_BYTES - GROUPS_OFFSET) // GROUP_BYTES

# Children of a launcher: seven slots each.
CHILDREN_OFFSET = 1024
CHILD_SLOTS = 7
CHILD_BYTES = CHILD_SLOTS * 8
CHILD_PID, CHILD_START_TICKS, CHILD_RANK, CHILD_LOCAL_RANK, CHILD_BORN_NS, CHILD_ENDED_NS, CHILD_STATUS = (
    range(7)
)
STATUS_BIAS = 1 << 32  # a wait status may be negative; 0 means nobody saw it
MAX_CHILDREN = (SIZE_BYTES - CHILDREN_OFFSET) // CHILD_BYTES


def pack_text(text: str, size: int) -> bytes:
    """UTF-8 of `text` in exactly `size` bytes: cut at a character, padded with zero bytes."""
    data = text.encode("utf-8", "replace").replace(b"\0", b" ")[:size]
    return data.decode("utf-8", "ignore").encode().ljust(size, b"\0")


def unpack_text(data: bytes) -> str:
    """Text of a field; bytes that are no UTF-8 are replaced."""
    return bytes(data).partition(b"\0")[0].decode("utf-8", "replace")


def pack_group(name: str, ranks: str, backend: str, enqueued: int, completed: int) -> bytes:
    """One entry of the groups section."""
    return (
        pack_text(name, GROUP_NAME_BYTES)
        + pack_text(ranks, GROUP_RANKS_BYTES)
        + pack_text(backend, GROUP_BACKEND_BYTES)
        + enqueued.to_bytes(8, "little")
        + completed.to_bytes(8, "little")
    )
