"""What a rank's `.crash` file says of a fatal signal, as attributes of an event."""

from __future__ import annotations

from pathlib import Path

from arobust_otel.collectors.faulttext import FaultReport, parse_faults
from arobust_otel.collectors.procfs import read_text
from arobust_otel.model import signals
from arobust_otel.model.samples import Attributes, Frame, format_frames
from arobust_otel.model.user_code import user_frame

_CRASH_BYTES = 64 * 1024


def read_crash(beacon_path: Path | None) -> FaultReport | None:
    """The fatal error that faulthandler reported beside this beacon; None where there is none so far."""
    if beacon_path is None:
        return None
    text = read_text(beacon_path.with_suffix(".crash"))
    report = parse_faults(text[:_CRASH_BYTES]) if text else None
    return report if report is not None and report.reason else None


def crash_attributes(report: FaultReport) -> Attributes:
    """Signal, stack of the thread that failed, its innermost frame of user code; unknown parts left out."""
    attributes: Attributes = {}
    if report.signal is not None:
        attributes[signals.EXIT_SIGNAL] = report.signal
    thread = report.guilty()
    if thread is None or not thread.frames:
        return attributes
    attributes[signals.EXCEPTION_STACK] = format_frames(thread.frames)
    frame = user_frame(thread.frames)
    if frame is not None:
        attributes |= code_attributes(frame)
    return attributes


def code_attributes(frame: Frame) -> Attributes:
    """Place in the code."""
    return {
        signals.CODE_FUNCTION: frame.function,
        signals.CODE_FILE: frame.file,
        signals.CODE_LINE: frame.line,
    }
