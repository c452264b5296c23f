"""What a rank writes into its beacon: steps, phases, states, capabilities and gaps.

The hot methods are called some dozen times a step: plain stores, no lock, no allocation that lasts.
"""

from __future__ import annotations

import threading
from time import monotonic_ns
from typing import NamedTuple

from arobust_otel.model import beacon_layout as at
from arobust_otel.model.beacon_gaps import CAPABILITIES, GAP_CODES
from arobust_otel.model.beacon_layout import PHASES, STATES
from arobust_otel.model.identity import RankIdentity
from arobust_otel.training.page import Page, start_ticks

NONE, DATA, FORWARD, BACKWARD, OPTIMIZER, CHECKPOINT, COLLECTIVE = range(len(PHASES))
IMPORTED, INIT_GROUP, FIRST_STEP, RUNNING, CHECKPOINT_STATE, EVALUATION, TEARDOWN, DONE = range(
    1, len(STATES)
)
# The hot path reads module globals: an attribute of a module costs as much as the store itself.
_EVENT_NS = at.EVENT_NS
_HOT_SEQUENCE = at.HOT_SEQUENCE
_PHASE = at.PHASE
_PHASE_SINCE_NS = at.PHASE_SINCE_NS
_STATE = at.STATE
_STEP = at.STEP
_STEP_DURATION_NS = at.STEP_DURATION_NS
_STEP_END_NS = at.STEP_END_NS
_BEFORE_STEPS = (0, IMPORTED, INIT_GROUP)


class Birth(NamedTuple):
    """Who the rank is, and where and when it was born."""

    identity: RankIdentity
    job_id: str
    host: str
    script: str
    pid: int
    born_ns: int


class RankWriter:
    """Writes one rank's beacon. Safe to call from any thread; phases belong to the training thread."""

    __slots__ = ("owner", "page")

    def __init__(self, page: Page, birth: Birth) -> None:
        """Fill in everything that does not change, then publish the page."""
        self.page = page
        self.owner = threading.main_thread().ident
        _write_birth(page, birth)

    def is_training_thread(self) -> bool:
        """True in the thread whose phases count: the main one, or the one that steps."""
        return threading.get_ident() == self.owner

    def enter_phase(self, phase: int) -> None:
        """The training thread begins `phase`."""
        slots = self.page.slots
        inside = (slots[_HOT_SEQUENCE] + 1) | 1
        slots[_HOT_SEQUENCE] = inside
        slots[_PHASE] = phase
        slots[_PHASE_SINCE_NS] = monotonic_ns()
        slots[_HOT_SEQUENCE] = inside + 1

    def enter_state(self, state: int) -> None:
        """The rank's life enters `state`; it never leaves teardown but for done."""
        slots = self.page.slots
        if slots[_STATE] >= TEARDOWN and state <= slots[_STATE]:
            return
        inside = (slots[_HOT_SEQUENCE] + 1) | 1
        slots[_HOT_SEQUENCE] = inside
        slots[_STATE] = state
        slots[_EVENT_NS] = monotonic_ns()
        slots[_HOT_SEQUENCE] = inside + 1

    def finish_step(self) -> None:
        """One more step is done."""
        slots = self.page.slots
        now = monotonic_ns()
        before = slots[_STEP_END_NS]
        inside = (slots[_HOT_SEQUENCE] + 1) | 1
        slots[_HOT_SEQUENCE] = inside
        slots[_STEP] = slots[_STEP] + 1
        if before:
            slots[_STEP_DURATION_NS] = now - before
        slots[_STEP_END_NS] = now
        slots[_PHASE] = NONE
        slots[_PHASE_SINCE_NS] = now
        if slots[_STATE] != RUNNING and slots[_STATE] < TEARDOWN:
            slots[_STATE] = RUNNING
        slots[_HOT_SEQUENCE] = inside + 1

    def begin_training(self) -> None:
        """Something of a step is seen: before the first step is over this is `first_step`, then `running`."""
        slots = self.page.slots
        state = slots[at.STATE]
        if state in _BEFORE_STEPS:
            self.enter_state(FIRST_STEP)
        elif state == EVALUATION:
            self.enter_state(RUNNING if slots[at.STEP] else FIRST_STEP)

    @property
    def state(self) -> int:
        """Code of the present state."""
        return self.page.slots[at.STATE]

    @property
    def phase(self) -> int:
        """Code of the present phase."""
        return self.page.slots[at.PHASE]

    @property
    def step(self) -> int:
        """Steps finished so far."""
        return self.page.slots[at.STEP]

    def can(self, capability: str) -> None:
        """A source has shown to work."""
        self.page.set_bit(at.CAPABILITIES, CAPABILITIES.index(capability))

    def miss(self, gap: str, missing: bool = True) -> None:
        """A source is missing, or (False) is there after all."""
        self.page.set_bit(at.GAPS, GAP_CODES.index(gap), missing)


def _write_birth(page: Page, birth: Birth) -> None:
    slots, who = page.slots, birth.identity
    ticks = start_ticks(birth.pid)
    numbers = {
        at.LAYOUT_VERSION: at.VERSION,
        at.PID: birth.pid,
        at.START_TICKS: ticks,
        at.BORN_NS: birth.born_ns,
        at.INCARNATION: who.incarnation,
        at.RANK: who.rank,
        at.LOCAL_RANK: who.local_rank,
        at.WORLD_SIZE: who.world_size,
        at.LOCAL_WORLD_SIZE: who.local_world_size,
        at.NODE_RANK: 0 if who.node_rank is None else who.node_rank + 1,
        at.MAIN_TID: threading.main_thread().native_id or 0,
        at.STATE: IMPORTED,
        at.EVENT_NS: monotonic_ns(),
    }
    for slot, number in numbers.items():
        slots[slot] = number
    page.put_text(at.HOST, birth.host)
    page.put_text(at.JOB_ID, birth.job_id)
    page.put_text(at.ROLE, who.role)
    page.put_text(at.SCRIPT, birth.script)
    if not ticks:
        page.set_bit(at.GAPS, GAP_CODES.index("start_ticks"))
    slots[at.MAGIC] = at.RANK_MAGIC
