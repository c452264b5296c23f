"""The frame a person wants to see."""

from __future__ import annotations

from arobust_otel.model.samples import Frame, StackCapture, ThreadStack
from arobust_otel.model.user_code import user_frame
from arobust_otel.state.frames import main_frames, same_place

LIBRARY = Frame("readinto", "/usr/lib/python3.11/socket.py", 706)
TORCH = Frame("_engine_run_backward", "/cache/torch-2.15/torch/autograd/graph.py", 823)
USER = Frame("read_shard", "/job/data.py", 88)


def capture(*frames: Frame) -> StackCapture:
    return StackCapture(0, 0, 2, 1, "py-spy", "", (ThreadStack("MainThread", 1, frames, is_main=True),), "")


def test_the_innermost_frame_of_user_code() -> None:
    assert user_frame([LIBRARY, TORCH, USER, Frame("main", "/job/train.py", 3)]) == USER


def test_the_innermost_of_all_where_there_is_no_user_code() -> None:
    assert user_frame([LIBRARY, TORCH]) == LIBRARY
    assert user_frame([]) is None


def test_two_captures_in_the_same_lines() -> None:
    assert same_place(capture(LIBRARY, USER), capture(LIBRARY, USER))
    assert not same_place(capture(LIBRARY, USER), capture(USER))
    assert not same_place(capture(), capture())


def test_main_frames_without_a_marked_thread() -> None:
    thread = ThreadStack("", None, (USER,))
    assert main_frames(StackCapture(0, 0, 2, 1, "py-spy", "", (thread,), "")) == (USER,)
    assert main_frames(StackCapture(0, 0, 2, 1, "py-spy", "", (thread, thread), "")) == ()
