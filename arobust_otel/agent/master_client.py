"""MasterClient: takes what collectors produce, and sees that it reaches the master.

`report` only appends, so it never blocks and never raises; one thread does the rest (`sender`). Around the
SDK's exporters stand batches by size and age, retries with jitter, a circuit, a deadline per call, a spool on
the disk and acknowledgements. Collectors and log files are not its business.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from arobust_otel import guard
from arobust_otel.agent.client import process_hooks
from arobust_otel.agent.client.addresses import Address, make_transport, resolve_addresses
from arobust_otel.agent.client.metrics import ClientMetrics
from arobust_otel.agent.client.queue import ClientQueue
from arobust_otel.agent.client.safekeeping import Safekeeping
from arobust_otel.agent.client.sender import Sender, Surroundings
from arobust_otel.agent.client.settings import ClientSettings
from arobust_otel.agent.client.transport import Transport
from arobust_otel.agent.client.words import Words
from arobust_otel.agent.parcel import Receipt
from arobust_otel.agent.spool.folder import spool_folder
from arobust_otel.agent.spool.spool import OFF, OK, Spool
from arobust_otel.model.identity import JobIdentity, resolve_job
from arobust_otel.model.samples import Point

MakeTransport = Callable[[Sequence[Address], float], Transport]

# In a forked child: what belongs to the parent is neither used nor closed nor collected as garbage.
_left_alone: list[object] = []


class MasterClient:
    """Delivers points, events, log lines and stacks of one job on one node to the master.

    Args:
        master_addr: URL or ``host:port`` (OTLP/gRPC) of the master, or several of them; None: what
            `AROBUST_MASTER` or the OTLP variables say.
        resource: the attempt that items belong to unless `report` names another; None: what the
            environment says.
        settings: limits and times.
        spool_dir: base folder for what cannot be delivered or held in memory; None: nothing is stored.
        transports: makes the way to the addresses.
        say: where the few words of an outage go; standard error by default.

    Raises:
        ConfigurationError: `master_addr` is no address.
    """

    def __init__(
        self,
        master_addr: str | Sequence[str] | None = None,
        resource: JobIdentity | None = None,
        settings: ClientSettings | None = None,
        *,
        spool_dir: str | Path | None = None,
        transports: MakeTransport = make_transport,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.addresses = resolve_addresses(master_addr, os.environ)
        self.resource = resource or resolve_job(os.environ, socket.gethostname(), os.getpid())
        self._settings = settings or ClientSettings()
        self._say = guard.contained("words of a client")(say or _to_standard_error)
        self._transport = transports(self.addresses, self._settings.call_seconds)
        self._closed = False
        folder = (
            spool_folder(Path(spool_dir), self.resource.host, self.resource.job_id) if spool_dir else None
        )
        self._begin(Spool.open(folder, self._settings.spool) if folder is not None else None)
        self._contained_report = guard.contained("MasterClient.report")(self._report)
        process_hooks.watch(self)
        self._sender.start()

    def report(
        self,
        items: Iterable[Any],
        acknowledged: Callable[[], None] | None = None,
        urgent: bool = False,
        identity: JobIdentity | None = None,
        given_up: Callable[[], None] | None = None,
    ) -> None:
        """Hand items over. Returns at once and never raises.

        Args:
            items: Point, Event, LogLine, StackCapture; anything else is counted as invalid.
            acknowledged: called once when every item is in the master's journal or in the spool, or was
                refused for good; never where one had to be dropped. From the sender's thread, or in `close`.
            urgent: points and log lines are sent as soon as facts are. Facts are always urgent.
            identity: the attempt that the items belong to.
            given_up: called at most once, instead of `acknowledged`, when an item had to go for lack of room
                or because the client is closed. From any thread, also from within `report`.
        """
        self._contained_report(items, Receipt(acknowledged, given_up), identity or self.resource, urgent)

    def report_diagnosis_agent_metrics(self, metric: Any) -> None:
        """Hand over a measurement in the form of the predecessor's workers. Returns at once, never raises.

        Args:
            metric: a WorkerTrainingMetric or its JSON; what cannot be read is counted as invalid.
        """
        guard.contained("MasterClient.report_diagnosis_agent_metrics")(self._report_metric)(metric)

    def flush(self, deadline_seconds: float) -> bool:
        """Send everything now, and return by the deadline at the latest.

        Returns:
            True where all that was handed over before is delivered or given up, and nothing is left on the
            disk; what others hand over meanwhile is not waited for.
        """
        deadline = time.monotonic() + deadline_seconds
        marks = self._queue.marks()
        if not self._sender.started:
            if self._queue.has_passed(marks) and not self._disk.waiting:
                return True
            self._sender.start()
        return self._sender.wait(lambda: self._queue.has_passed(marks) and not self._disk.waiting, deadline)

    def close(self, deadline_seconds: float = 5.0) -> None:
        """Deliver what can be delivered before the deadline, store or count the rest, end the thread."""
        self._closed = True
        ended = self._sender.close(time.monotonic() + deadline_seconds)
        self._queue.close()
        if ended:
            self._transport.close()
            process_hooks.forget(self)

    def stats(self) -> dict[str, float]:
        """Figures for people and heartbeats: counts since the start, and what waits now.

        ``oldest_age_seconds`` includes what is on the disk; ``spool_*`` are absent where there is no spool,
        ``bytes_sent`` where the transport cannot tell, ``latency_seconds`` before the first try;
        ``spool_ok`` is 0 while it is full or broken (see `gaps`).
        """
        items, size, oldest = self._queue.figures()
        found = self._disk.stats()
        oldest_ones = [since for since in (oldest, found.oldest_mono) if since is not None]
        age = time.monotonic() - min(oldest_ones) if oldest_ones else 0.0
        now: dict[str, float] = {
            "queue_items": items,
            "queue_bytes": size,
            "oldest_age_seconds": round(age, 3),
            "connected": float(self._sender.is_connected),
            "circuit_open": float(self._sender.circuit.is_open),
            "bytes_raw": self._transport.bytes_raw,
        }
        if self._transport.bytes_sent is not None:
            now["bytes_sent"] = self._transport.bytes_sent
        if found.state != OFF:
            now |= {
                "spool_items": found.items,
                "spool_bytes": found.bytes,
                "spool_ok": float(found.state == OK),
            }
        return now | self._metrics.totals()

    def gaps(self) -> tuple[str, ...]:
        """What is missing, in sentences: a spool that cannot keep things, a signal that is sent elsewhere."""
        state = self._disk.stats().state
        spool = () if state in (OK, OFF) else (f"spool: {state}",)
        elsewhere = (
            f"{address.signal}: they go to {replace(address, signal='')}; the master sees only what comes on "
            f"from there; set AROBUST_MASTER, or unset OTEL_EXPORTER_OTLP_{address.signal.upper()}_ENDPOINT"
            for address in self.addresses
            if address.signal
        )
        return (*spool, *elsewhere)

    def self_points(self, now_ns: int) -> list[Point]:
        """The client about itself, as points to be reported like all others."""
        return self._metrics.points_with(self.stats(), now_ns)

    # --- for `process_hooks` ------------------------------------------------------------------------------

    @property
    def exit_seconds(self) -> float:
        """Longest time at the end of the interpreter."""
        return self._settings.exit_seconds

    def hold_still(self, seconds: float) -> bool:
        """Start no call until `go_on`; False where one goes on for longer than this."""
        return self._sender.speaking.acquire(timeout=seconds)

    def go_on(self) -> None:
        """Calls may start again."""
        self._sender.speaking.release()

    def start_anew(self) -> None:
        """In a forked child: own thread, own sockets, nothing in the queue, nothing on the disk.

        What waits is the parent's to deliver. The thread starts with the first report: most children
        never report anything.
        """
        _left_alone.extend((self._sender, self._queue, self._disk))
        self._transport.reset()
        self._begin(None)
        if self._closed:
            self._queue.close()

    # --- inside -------------------------------------------------------------------------------------------

    def _begin(self, spool: Spool | None) -> None:
        self._metrics = ClientMetrics(time.time_ns())
        self._queue = ClientQueue(self._settings, self._metrics, spool.ledger if spool is not None else None)
        self._disk = Safekeeping(spool, self._metrics, self._say)
        self._sender = Sender(
            Surroundings(
                self._queue,
                self._disk,
                self._transport,
                self._metrics,
                self._settings,
                Words(self._say, ", ".join(map(str, self.addresses)), self._settings.queue_items),
            )
        )

    def _report_metric(self, metric: Any) -> None:
        from arobust_otel.agent.worker_metrics import identity_of, items_of  # not loaded by other users

        self.report(items_of(metric), identity=identity_of(metric, self.resource))

    def _report(self, items: Iterable[Any], receipt: Receipt, identity: JobIdentity, urgent: bool) -> None:
        self._queue.hand(items, receipt, identity, urgent)
        if not self._sender.started and not self._closed:
            self._sender.start()


def _to_standard_error(text: str) -> None:
    sys.stderr.write(f"arobust: {text}\n")


__all__ = ["ClientSettings", "MasterClient"]
