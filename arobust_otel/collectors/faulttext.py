"""What `faulthandler` writes, as values: a fatal signal's report, or stacks of all threads. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from arobust_otel.model.samples import Frame, ThreadStack

_FATAL = re.compile(r"^Fatal Python error: (.*)$")
_THREAD = re.compile(r"^(Current thread|Thread) (0x[0-9a-fA-F]+)(?: \[(.*)\])? \(most recent call first\):")
_FRAME = re.compile(r'^  File "(.*)", line (\d+|\?\?\?) in (.*)$')

# Words of faulthandler's handlers -> signal numbers, the same on all Linux architectures.
_SIGNALS = {
    "Segmentation fault": 11,
    "Floating point exception": 8,
    "Floating-point exception": 8,
    "Aborted": 6,
    "Bus error": 7,
    "Illegal instruction": 4,
}


@dataclass(frozen=True, slots=True)
class FaultReport:
    """One report: `reason` is empty where no fatal error was named, `signal` None where it was no signal."""

    reason: str
    signal: int | None
    threads: tuple[ThreadStack, ...]

    def guilty(self) -> ThreadStack | None:
        """The thread that failed; where the text does not say it, the one listed last: the main thread."""
        current = next((thread for thread in self.threads if thread.is_active), None)
        return current or (self.threads[-1] if self.threads else None)


def parse_faults(text: str) -> FaultReport:
    """Parse a faulthandler text; lines of another form are left out, an empty text gives an empty report."""
    reason = ""
    threads: list[tuple[str, str, bool]] = []
    frames: list[list[Frame]] = []
    for line in text.splitlines():
        if fatal := _FATAL.match(line):
            reason = reason or fatal[1].strip()
        elif header := _THREAD.match(line):
            threads.append((header[3] or "", header[2], header[1] == "Current thread"))
            frames.append([])
        elif frames and (frame := _FRAME.match(line)):
            number = int(frame[2]) if frame[2].isdecimal() else 0
            frames[-1].append(Frame(frame[3], frame[1], number))
    stacks = tuple(
        ThreadStack(name=name, thread_id=int(ident, 16), frames=tuple(found), is_active=current or None)
        for (name, ident, current), found in zip(threads, frames, strict=True)
    )
    return FaultReport(reason, _SIGNALS.get(reason.split(":")[0].strip()), stacks)
