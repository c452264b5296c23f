"""Where the main thread of a captured process stood."""

from __future__ import annotations

from arobust_otel.model.samples import Frame, StackCapture


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
