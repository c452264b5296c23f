"""What the error numbers of the NVIDIA driver (Xid) mean, and what they ask for.

From NVIDIA's Xid catalogue and the mapping of NVIDIA/NVSentinel (xiderrorsmapping.csv). A number that is not
in the table is an error of unknown meaning, never harmless. Vendor tables like this one are data: a rule
reads `advice`, not numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from arobust_otel.model.samples import ERROR, INFO, WARN

# What the catalogue asks for, from the mildest.
IGNORE = "ignore"  # says nothing about the device by itself
CONSEQUENCE = "consequence"  # of an earlier error or of a process's end: look for that
RESTART_APP = "restart_app"  # the program first; the same device again within a day: test it
WATCH = "watch"  # the device degrades
RESET = "reset"  # drain, reset the device, replace it when it comes again
EVICT = "evict"  # the job must leave this device now
REBOOT = "reboot"  # evict, and restart the machine


@dataclass(frozen=True, slots=True)
class Xid:
    """One error number."""

    code: int
    meaning: str
    advice: str

    @property
    def severity(self) -> int:
        """Severity number of the OTel log data model."""
        return _SEVERITY[self.advice]


_SEVERITY = {
    IGNORE: INFO, CONSEQUENCE: WARN, WATCH: WARN, RESTART_APP: ERROR, RESET: ERROR, EVICT: ERROR,
    REBOOT: ERROR,
}  # fmt: skip

_ROWS = (
    (13, "graphics engine exception", RESTART_APP),
    (31, "memory page fault: an illegal access, mostly by the program", RESTART_APP),
    (32, "invalid or corrupted push buffer stream", RESTART_APP),
    (39, "copy engine exception", RESTART_APP),
    (40, "copy engine exception", RESTART_APP),
    (41, "copy engine exception", RESTART_APP),
    (43, "channel reset: the program's work was stopped", CONSEQUENCE),
    (45, "work was removed, after another error or with its process", CONSEQUENCE),
    (46, "the device stopped processing", RESET),
    (48, "double-bit memory error", EVICT),
    (54, "auxiliary power is not connected, or clocks are reduced", EVICT),
    (62, "internal micro-controller halt", RESET),
    (63, "a memory row was remapped or a page retired", IGNORE),
    (64, "a memory row could not be remapped", EVICT),
    (69, "graphics engine class error", RESTART_APP),
    (70, "copy engine exception", RESTART_APP),
    (71, "copy engine exception", RESTART_APP),
    (72, "copy engine exception", RESTART_APP),
    (74, "NVLink error", EVICT),
    (75, "copy engine exception", RESTART_APP),
    (76, "copy engine exception", RESTART_APP),
    (77, "copy engine exception", RESTART_APP),
    (79, "the device has fallen off the bus", REBOOT),
    (92, "high rate of corrected memory errors", WATCH),
    (94, "contained memory error: the programs that saw it end", RESTART_APP),
    (95, "uncontained memory error", EVICT),
    (109, "context switch timeout", RESET),
    (110, "security fault", RESET),
    (119, "the device's system processor did not answer in time", RESET),
    (120, "error of the device's system processor", RESET),
    (121, "corrected error of the chip-to-chip link", IGNORE),
    (136, "link training failed", RESET),
    (137, "NVLink access that is not allowed", IGNORE),
    (140, "memory error that could not be contained", RESET),
    (143, "initialisation error", RESET),
    (154, "the recovery action of the device changed", CONSEQUENCE),
    (155, "NVLink software error", RESET),
    (156, "resource retirement event", RESET),
    (157, "resource retirement failure", IGNORE),
    (158, "fatal timeout of the device", RESET),
    (160, "channel retirement event", REBOOT),
    (161, "channel retirement failure", IGNORE),
    *((code, "NVLink 5 error", EVICT) for code in range(144, 151)),
)
XIDS: dict[int, Xid] = {code: Xid(code, meaning, advice) for code, meaning, advice in _ROWS}


def xid(code: int) -> Xid:
    """The row of a number.

    >>> xid(79).advice, xid(4711).meaning
    ('reboot', 'unknown')
    """
    return XIDS.get(code, Xid(code, "unknown", WATCH))
