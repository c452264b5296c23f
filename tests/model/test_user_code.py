"""What counts as user code, wherever it is asked: in the rank, in the agent, in the judge."""

from __future__ import annotations

import pytest

from arobust_otel.model.samples import Frame
from arobust_otel.model.user_code import is_user_code, user_frame

LIBRARIES = ("/usr/lib/python3.11/", "/opt/venv/lib/python3.11/site-packages/")


@pytest.mark.parametrize(
    "file", ["/job/train.py", "train.py", "/home/ana/library/data.py", "/srv/lib/data.py"]
)
@pytest.mark.parametrize("libraries", [(), LIBRARIES])
def test_files_of_users(file: str, libraries: tuple[str, ...]) -> None:
    assert is_user_code(file, libraries)


@pytest.mark.parametrize(
    "file",
    [
        "",
        "<string>",
        "<frozen importlib._bootstrap>",
        "libtorch_cpu.so",
        "/usr/lib/python3.11/threading.py",
        "/usr/lib/python3/dist-packages/yaml/loader.py",
        "/opt/venv/lib64/python3.13t/site-packages/numpy/core.py",
    ],
)
@pytest.mark.parametrize("libraries", [(), LIBRARIES])
def test_files_of_nobody(file: str, libraries: tuple[str, ...]) -> None:
    assert not is_user_code(file, libraries)


def test_a_folder_named_like_a_framework_is_a_guess_only_where_nothing_better_is_known() -> None:
    assert not is_user_code("/opt/built/torch/nn/modules/linear.py")
    assert is_user_code("/home/ana/torch/train.py", LIBRARIES)


def test_what_was_typed_counts_where_there_is_no_file() -> None:
    library, typed = (
        Frame("string_at", "/usr/lib/python3.11/ctypes/__init__.py", 5),
        Frame("load", "<string>", 3),
    )
    assert user_frame([library, typed]) == typed
    assert user_frame([typed, Frame("main", "/job/train.py", 9)]) == Frame("main", "/job/train.py", 9)
