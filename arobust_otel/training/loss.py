"""The loss, and the first that is not finite, seen where backward starts; never waits for a device.

On a device the value is copied without waiting and read one step later; the first step found is kept.
"""

from __future__ import annotations

import sys
import time
from math import isfinite
from typing import Any

from arobust_otel.model import beacon_layout as at
from arobust_otel.training.rank import RankWriter

# What a tensor subclass, a traced tensor or a capturing stream may answer.
_REFUSALS = (RuntimeError, TypeError, AttributeError, ValueError, NotImplementedError)


class LossWatch:
    """Looks at the root of each backward pass until a value is not finite or cannot be had."""

    __slots__ = ("_copy", "_event", "_is_off", "_seen", "_step", "_writer")

    def __init__(self, writer: RankWriter) -> None:
        self._writer = writer
        self._is_off = False
        self._seen = False
        self._copy: Any = None
        self._event: Any = None
        self._step = 0

    def see(self, root: Any) -> None:
        """Backward starts from `root`: a tensor, or a sequence of which the only one is taken."""
        if self._is_off:
            return
        try:
            if isinstance(root, (tuple, list)):
                root = root[0] if len(root) == 1 else None
            if root is not None and root.numel() == 1:
                self._see_scalar(root)
        except _REFUSALS:
            self._is_off = True
            self._writer.miss("loss_signal")

    def _see_scalar(self, root: Any) -> None:
        kind = root.device.type
        if kind == "cpu":
            self._judge(root.item(), self._writer.step)
        elif kind == "cuda":
            self._see_later(root)
        else:
            self._is_off = True
            self._writer.miss("loss_signal")

    def _see_later(self, root: Any) -> None:
        torch = sys.modules["torch"]
        if torch.cuda.is_current_stream_capturing():
            return
        if self._copy is None:
            self._writer.miss("device_time")
            self._copy = torch.empty(1, dtype=torch.float32, pin_memory=True)
            self._event = torch.cuda.Event()
        elif not self._event.query():
            return
        else:
            self._judge(self._copy.item(), self._step)
        self._step = self._writer.step
        self._copy.copy_(root.detach().reshape(1), non_blocking=True)
        self._event.record()

    def _judge(self, value: float, step: int) -> None:
        slots = self._writer.page.slots
        if isfinite(value):
            self._writer.page.floats[at.LOSS] = value
        if not self._seen:
            self._seen = True
            slots[at.LOSS_SEEN] = 1
            self._writer.can("loss")
        if isfinite(value):
            return
        self._is_off = True
        slots[at.LOSS_SEEN] = 0
        inside = self._writer.page.begin(at.FACTS_SEQUENCE)
        slots[at.NONFINITE_STEP] = step
        slots[at.NONFINITE_NS] = time.time_ns()
        self._writer.page.end(at.FACTS_SEQUENCE, inside)
