"""What the user sees while the demo runs: lines on standard error, the verdict on standard output."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from arobust_otel import screen
from arobust_otel.demo.options import Outcome


class Progress:
    """Lines with the seconds since the start; on a terminal the last one may be written over."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._open_line = False
        self._terminal = sys.stderr.isatty()

    def say(self, text: str) -> None:
        """One line that stays."""
        self._write(("\r\x1b[K" if self._open_line else "") + self._stamped(text) + "\n")
        self._open_line = False

    def tick(self, text: str) -> None:
        """A line that the next one replaces; only on a terminal."""
        if self._terminal:
            self._write("\r\x1b[K" + self._stamped(text))
            self._open_line = True

    def block(self, text: str) -> None:
        """Several lines, indented, with room around them."""
        if self._open_line:
            self._write("\r\x1b[K")
            self._open_line = False
        self._write("\n" + "\n".join("    " + line for line in text.splitlines()) + "\n\n")

    def _stamped(self, text: str) -> str:
        return f"{time.monotonic() - self._begun:6.1f} s  {text}"

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:  # nobody reads any more: what was started must be ended all the same
            return


def show_incidents(incidents: list[dict[str, Any]]) -> None:
    """The verdict on standard output: framed on a terminal, plain elsewhere."""
    for incident in incidents:
        if sys.stdout.isatty():
            screen.print_rich(incident)
        else:
            sys.stdout.write(screen.render_incident(incident) + "\n")


def show_json(outcome: Outcome) -> None:
    """Exactly one object on standard output."""
    sys.stdout.write(json.dumps(outcome.to_json()) + "\n")
    sys.stdout.flush()
