"""Which code the user wrote: what a person wants to see of a stack or a traceback."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arobust_otel.model.samples import Frame

_INSTALLED = re.compile(r"/(?:site-packages|dist-packages|lib(?:64)?/python\d[^/]*)/")
# Where only the path is known: frameworks built from source, or installed into a folder of their own.
_FRAMEWORK = re.compile(
    r"/(?:torch|numpy|torchvision|triton|jax|opentelemetry|wrapt|deepspeed|accelerate|lightning)/"
)

_TYPED = ("<string>", "<stdin>")


def is_user_code(file: str, libraries: tuple[str, ...] = ()) -> bool:
    """Whether a file lies outside the standard library and installed packages.

    Args:
        file: as a frame names it; ``<string>`` and the like are nobody's file.
        libraries: folders, each with a slash at the end, that are known to hold libraries. Who knows them
            needs no guess from the names of folders: a user's own ``/home/ana/torch/train.py`` is user code.

    >>> is_user_code("/home/ana/train.py"), is_user_code("train.py"), is_user_code("<frozen runpy>")
    (True, True, False)
    >>> is_user_code("/opt/torch/nn/linear.py"), is_user_code("/opt/torch/mine.py", ("/usr/lib/python3/",))
    (False, True)
    """
    if file.startswith(("<", *libraries)) or not ("/" in file or file.endswith(".py")):
        return False
    return not (_INSTALLED.search(file) or (not libraries and _FRAMEWORK.search(file)))


def user_frame(frames: Sequence[Frame]) -> Frame | None:
    """Innermost frame of user code; None for an empty stack.

    Without one it is the innermost of ``python -c``, which generated code looks like, too; then of all.

    Args:
        frames: innermost first.
    """
    typed = next((frame for frame in frames if frame.file in _TYPED), frames[0] if frames else None)
    return next((frame for frame in frames if is_user_code(frame.file)), typed)
