"""What the demo says must never keep it from ending what it started."""

from __future__ import annotations

import os
import sys

import pytest

from arobust_otel.demo.progress import Progress


def test_a_reader_that_went_away_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    # Unbuffered, so that nothing is left to be flushed into the broken pipe when the file is closed.
    with os.fdopen(writing, "wb", buffering=0) as raw:

        class Text:
            """Text over a pipe, as standard error is."""

            def write(self, text: str) -> None:
                raw.write(text.encode())

            def flush(self) -> None:
                raw.flush()

            def isatty(self) -> bool:
                return False

        monkeypatch.setattr(sys, "stderr", Text())
        progress = Progress()
        progress.say("ending everything that was started")
        progress.block("the last words of the training")
