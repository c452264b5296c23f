"""Holes of the bare exporters: said when one of them has been closed by a later version."""

from __future__ import annotations

import sys

from opentelemetry.sdk.version import __version__

MEASURED = "1.45."


def is_hole(shown: bool, what: str) -> None:
    """Assert what the versions that were measured do; later ones may do better."""
    if not __version__.startswith(MEASURED) and not shown:
        sys.stderr.write(f"opentelemetry {__version__} has closed this hole: {what}\n")
        return
    assert shown, f"not seen in opentelemetry {__version__}: {what}"
