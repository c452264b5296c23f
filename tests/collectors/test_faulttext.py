"""faulthandler's texts, of Python 3.10 to 3.14."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arobust_otel.collectors.faulttext import parse_faults
from arobust_otel.model.samples import Frame
from arobust_otel.model.user_code import user_frame

SEGFAULT = """\
Fatal Python error: Segmentation fault

Thread 0x00007fadf2dcf6c0 [prefetch] (most recent call first):
  File "/job/train.py", line 4 in idle
  File "/usr/lib/python3.11/threading.py", line 982 in run

Current thread 0x00007fadf3869b80 [python] (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at
  File "/job/data.py", line 8 in load_shard
  File "/job/train.py", line 11 in <module>

Extension modules: numpy._core._multiarray_umath, torch._C (total: 2)
"""


def test_a_segfault_names_thread_signal_and_the_users_function() -> None:
    report = parse_faults(SEGFAULT)
    assert (report.reason, report.signal) == ("Segmentation fault", 11)
    assert [thread.name for thread in report.threads] == ["prefetch", "python"]
    guilty = report.guilty()
    assert guilty is not None
    assert guilty.thread_id == 0x00007FADF3869B80
    assert user_frame(guilty.frames) == Frame("load_shard", "/job/data.py", 8)


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("Aborted", 6),
        ("Bus error", 7),
        ("Floating-point exception", 8),
        ("Floating point exception", 8),
        ("Illegal instruction", 4),
        ("none_dealloc: deallocating None: bug likely caused by a refcount error in a C extension", None),
    ],
)
def test_each_fatal_signal_has_its_number(words: str, number: int | None) -> None:
    assert parse_faults(f"Fatal Python error: {words}\n\n").signal == number


def test_without_a_current_thread_the_last_one_is_the_main_thread() -> None:
    report = parse_faults(SEGFAULT.replace("Current thread", "Thread"))
    guilty = report.guilty()
    assert guilty is not None
    assert guilty.name == "python"


def test_frames_of_libraries_are_named_where_there_are_no_others() -> None:
    library = Frame("backward", "/venv/lib/python3.11/site-packages/torch/autograd/graph.py", 3)
    assert user_frame([library]) == library
    assert user_frame([]) is None


@given(st.text() | st.lists(st.sampled_from(SEGFAULT.splitlines())).map("\n".join))
def test_no_text_makes_it_raise(text: str) -> None:
    report = parse_faults(text)
    report.guilty()
