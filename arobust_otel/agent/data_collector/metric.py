"""Kernel timings of xpu_timer: the text of its Prometheus endpoint on this node."""

from __future__ import annotations

from arobust_otel.agent.data_collector.base import DataCollector
from arobust_otel.agent.handing import logger
from arobust_otel.collectors.scrape import scrape
from arobust_otel.common.constants import DiagnosisDataType, EnvConfigKey
from arobust_otel.common.utils import get_env, is_port_in_use

_LEFT_OUT = ("#", "exposer")
_CALL_SECONDS = 5.0


class MetricCollector(DataCollector):
    """What xpu_timer serves now; its port is looked up at each call, so that it may start later."""

    data_type = DiagnosisDataType.XPU_TIMER_METRIC

    def __init__(self) -> None:
        self.last_error = ""

    @property
    def endpoint(self) -> str | None:
        """Where xpu_timer serves on this node; None where no variable says it."""
        port = get_env(EnvConfigKey.XPU_TIMER_PORT) or get_env("XPU_TIMER_PORT")
        return f"http://127.0.0.1:{port.strip()}/metrics" if port and port.strip() else None

    def is_enabled(self) -> bool:
        """Whether a port is known and somebody listens there."""
        endpoint = self.endpoint
        if endpoint is None:
            return False
        try:
            return is_port_in_use(_port_of(endpoint))
        except ValueError as error:
            self._note(f"{EnvConfigKey.XPU_TIMER_PORT}: {error}")
            return False

    def collect_data(self) -> str:
        """The text without comments and without the server's own figures.

        An empty text: no figure where `last_error` is empty, else the figures could not be had.
        """
        endpoint = self.endpoint
        if endpoint is None:
            self._note(f"{EnvConfigKey.XPU_TIMER_PORT} is not set")
            return ""
        try:
            text = scrape(_port_of(endpoint), _CALL_SECONDS)
        except (OSError, OverflowError, ValueError) as error:
            self._note(f"{endpoint}: {error}")
            return ""
        self._note("")
        return "\n".join(line for line in text.splitlines() if line and not line.startswith(_LEFT_OUT))

    def store_data(self, data: object) -> None:
        """Report a text of xpu_timer; its figures become metrics on the way."""
        if self._refuses(data, str) or not data:
            return
        self._hand(self._metric(DiagnosisDataType.XPU_TIMER_METRIC, str(data)))

    def _note(self, error: str) -> None:
        """Say an error once, until it changes."""
        if error and error != self.last_error:
            logger.warning("figures of xpu_timer cannot be had: %s", error)
        self.last_error = error


def _port_of(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2].partition("/")[0])
