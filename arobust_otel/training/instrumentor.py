"""Entry point of `opentelemetry-instrument`: begins our work in this process and never raises."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from arobust_otel import guard


class ArobustInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Registered as ``arobust`` in the group ``opentelemetry_instrumentor``."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """None: frameworks are hooked if and when the user's code imports them."""
        return ()

    def _instrument(self, **_kwargs: Any) -> None:
        guard.contained("instrumentor")(_begin)()

    def _uninstrument(self, **_kwargs: Any) -> None:
        """Hooks stay until the process ends: a beacon that stops in the middle would read as a hang."""


def _begin() -> None:
    from arobust_otel.training.start import begin

    begin(os.environ, sys.orig_argv)
