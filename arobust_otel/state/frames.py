"""Which frame of a stack a person wants to see: the innermost one of user code."""

from __future__ import annotations

import re
from collections.abc import Sequence

from arobust_otel.model.samples import Frame, StackCapture

_LIBRARY = re.compile(
    r"(/site-packages/|/dist-packages/|/lib/python\d|/lib64/python\d|^<frozen |^<string>|^<unknown>"
    r"|/(torch|numpy|torchvision|triton|jax|opentelemetry|wrapt|deepspeed|accelerate|lightning)/)"
)


def is_user_code(frame: Frame) -> bool:
    """Whether the frame lies outside the standard library and installed packages."""
    return not _LIBRARY.search(frame.file) and "/" in frame.file


def user_frame(frames: Sequence[Frame]) -> Frame | None:
    """Innermost frame of user code; the innermost of all where there is none; None for an empty stack."""
    return next((frame for frame in frames if is_user_code(frame)), frames[0] if frames else None)


def main_frames(capture: StackCapture) -> tuple[Frame, ...]:
    """Frames of the main thread; of the only thread where no thread is marked; else nothing."""
    main = capture.main_thread()
    if main is not None:
        return main.frames
    return capture.threads[0].frames if len(capture.threads) == 1 else ()


def same_place(first: StackCapture, second: StackCapture) -> bool:
    """Whether the main thread stood in the very same lines in both captures."""
    frames = main_frames(first)
    return bool(frames) and frames == main_frames(second)
