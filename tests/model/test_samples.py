"""Stacks as text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from arobust_otel.model.samples import Frame, StackCapture, ThreadStack, format_frames, parse_frames

PLAIN = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)
FRAMES = st.builds(Frame, PLAIN, PLAIN.map(lambda name: f"/job/{name}.py"), st.integers(0, 10_000))


@given(st.lists(FRAMES, max_size=6).map(tuple))
def test_frames_read_back(frames: tuple[Frame, ...]) -> None:
    assert parse_frames(format_frames(frames)) == frames


def test_names_and_paths_with_spaces_and_native_names_with_brackets_read_back() -> None:
    frames = (
        Frame("<listcomp>", "/job dir/my data (2).py", 3),
        Frame("std::f (int)", "/lib/a.so", 0),
        Frame("run", "<frozen runpy>", 88),
    )
    assert parse_frames(format_frames(frames)) == frames


def test_lines_of_another_form_are_left_out() -> None:
    assert parse_frames("Thread 1 (idle)\nread_shard (/job/data.py:88)\n...") == (
        Frame("read_shard", "/job/data.py", 88),
    )


def test_a_frame_reads_as_people_say_it() -> None:
    assert str(Frame("read_shard", "/job/data.py", 88)) == "read_shard (data.py:88)"


def test_the_main_thread_is_found_only_where_the_source_said_which_it_is() -> None:
    other, main = ThreadStack("loader", 2, ()), ThreadStack("MainThread", 1, (), is_main=True)

    def capture(*threads: ThreadStack) -> StackCapture:
        return StackCapture(1, 1, 0, 10, "py-spy", "", threads, "")

    assert capture(other, main).main_thread() == main
    assert capture(other).main_thread() is None
