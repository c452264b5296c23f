"""Facts from the kernel's log, each delivered once: accelerator errors, kills for memory, broken hardware.

The sequence number of a record moves by acknowledgement, so that an agent that comes back goes on where the
last one was delivered. Another machine start is another log: the boot id stands beside the number.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from arobust_otel.collectors.hostpids import sees_host_pids
from arobust_otel.collectors.kernel_lines import KernelFact, fact_of, uuid_of
from arobust_otel.collectors.kmsg import KERNEL_LOG, KernelLog, KernelRecord
from arobust_otel.collectors.procfs import PROC, read_text
from arobust_otel.errors import CapabilityError
from arobust_otel.model import signals
from arobust_otel.model.samples import WARN, Attributes, Event, Point
from arobust_otel.plugins import Clock, Item, Node

MAX_RECORDS = 2_000  # of one call: a storm of lines must not cost a core
WHOLE_LOG = 10_000_000
MAX_BODY = 2_000
REPETITIONS = 20  # of one fault in `REPEAT_NS`; what is beyond is counted, not told one by one
MAX_STORMS = 1_000
REPEAT_NS = 60_000_000_000
COUNT_NS = 5_000_000_000  # between two points of the counter, unless it moved


@dataclass(slots=True)
class _Storm:
    """Repetitions of one fault within a minute."""

    since_ns: int
    told: int = 0
    untold: int = 0


@dataclass(slots=True)
class KernelLogCollector:
    """The kernel's log: accelerator errors (Xid), kills for memory, faults of hardware, storage, network."""

    name: ClassVar[str] = "kernel_log"
    path: Path = KERNEL_LOG
    state_file: Path | None = None  # None: an agent that comes back starts again
    period_seconds: float = field(default=0.5, metadata={"minimum": 0.05})
    lookback_seconds: float = field(default=60.0, metadata={"minimum": 0})  # of the first agent of a job
    accept_user_records: bool = False  # those that a process of root wrote: for drills; any of them can forge
    proc: Path = PROC
    host_pids: bool | None = None  # whether pids of the kernel are ours; None: find out
    _log: KernelLog | None = field(default=None, init=False)
    _boot_id: str = field(default="", init=False)
    _done: int | None = field(default=None, init=False)  # records up to this one are settled
    _read: int = field(default=-1, init=False)
    _has_begun: bool = field(default=False, init=False)  # the log that was there at the start is read
    _waiting: set[int] = field(default_factory=set, init=False)
    _told_lost: int = field(default=0, init=False)
    _counted_ns: int | None = field(default=None, init=False)
    _storms: dict[tuple[str, str, str], _Storm] = field(default_factory=dict, init=False)
    _uuids: dict[str, str] = field(default_factory=dict, init=False)

    def collect(self, now: Clock, node: Node) -> Iterator[Item]:
        """New facts, and how many records were overwritten before they were read.

        Raises:
            CapabilityError: the log is not there or may not be read.
        """
        log = self._log or self._open()
        is_first = self._done is None
        done = -1 if self._done is None else self._done
        oldest_us = now.mono_ns / 1000 - self.lookback_seconds * 1e6 if is_first else 0
        for record in log.read(MAX_RECORDS if self._has_begun else WHOLE_LOG):
            self._read = max(self._read, record.sequence)
            is_new = record.time_us >= oldest_us and record.sequence > done
            if is_new and (record.facility == "kern" or self.accept_user_records):
                yield from self._events(record, now, node)
        self._has_begun = True
        if is_first:
            self._settle()
        yield from self._lost(log, now)

    def acknowledge(self, path: str, end_offset: int) -> None:
        """A record's event was delivered, or given up for good."""
        if path == self._place and end_offset in self._waiting:
            self._waiting.discard(end_offset)
            self._settle()

    def close(self) -> None:
        """Keep the position and give the log back."""
        if self._log is not None:
            self._settle()
            self._log.close()
            self._log = None

    @property
    def _place(self) -> str:
        return f"kmsg:{self._boot_id}"

    def _open(self) -> KernelLog:
        try:
            self._log = KernelLog(self.path)
        except OSError as error:
            raise _refusal(self.path, error) from None
        self._boot_id = (read_text(self.proc / "sys/kernel/random/boot_id") or "").strip()
        self._done = load_position(self.state_file, self._boot_id) if self.state_file else None
        self._read = -1 if self._done is None else self._done
        if self.host_pids is None:
            self.host_pids = sees_host_pids(self.proc)
        return self._log

    def _events(self, record: KernelRecord, now: Clock, node: Node) -> Iterator[Event]:
        named = uuid_of(record.text)
        if named is not None:
            self._uuids[named[0]] = named[1]
        fact = fact_of(record.text)
        if fact is None:
            return
        untold = self._repetitions(fact, now)
        if untold is None:
            return
        body = record.text[:MAX_BODY]
        if untold:
            body += f" (and {untold} more like the last one of these)"
        # The kernel's clock and the monotonic one differ by a little; the future is not possible.
        at_ns = min(now.wall_ns, now.wall_ns - now.mono_ns + record.time_us * 1000)
        attributes = self._attributes(fact, record, node)
        self._waiting.add(record.sequence)
        yield Event(fact.name, at_ns, body, attributes, fact.severity, self._place, record.sequence)

    def _repetitions(self, fact: KernelFact, now: Clock) -> int | None:
        """How many were not told before this one; None where it is not told itself."""
        storm = self._storms.get(fact.key())
        untold = 0
        if storm is None or now.mono_ns - storm.since_ns >= REPEAT_NS:
            untold = storm.untold if storm is not None else 0
            self._forget(now)
            storm = self._storms[fact.key()] = _Storm(now.mono_ns)
        if storm.told >= REPETITIONS:
            storm.untold += 1
            return None
        storm.told += 1
        return untold

    def _forget(self, now: Clock) -> None:
        """Faults that were long ago; with thousands of kinds of them, all."""
        past = now.mono_ns - REPEAT_NS
        self._storms = {
            key: storm for key, storm in self._storms.items() if storm.untold or storm.since_ns > past
        }
        if len(self._storms) > MAX_STORMS:
            self._storms.clear()

    def _attributes(self, fact: KernelFact, record: KernelRecord, node: Node) -> Attributes:
        found: Attributes = {
            **fact.attributes,
            signals.KERNEL_FACILITY: record.facility,
            signals.KERNEL_SEQUENCE: record.sequence,
        }
        if fact.pci_address:
            found[signals.ACCELERATOR_PCI] = fact.pci_address
            uuid = self._uuids.get(fact.pci_address) or driver_uuid(self.proc, fact.pci_address)
            if uuid:
                self._uuids[fact.pci_address] = uuid
                found[signals.HW_ID] = uuid
        if fact.pid is not None and self.host_pids:
            found[signals.PID] = fact.pid
            rank = next((rank for rank in node.ranks if rank.pid == fact.pid), None)
            if rank is not None:
                found |= rank.event_attributes()
        return found

    def _lost(self, log: KernelLog, now: Clock) -> Iterator[Item]:
        is_more = log.lost > self._told_lost
        if is_more or self._counted_ns is None or now.mono_ns - self._counted_ns >= COUNT_NS:
            self._counted_ns = now.mono_ns
            yield Point(signals.KERNEL_LOG_LOST, log.lost, now.wall_ns)
        if is_more:
            count, self._told_lost = log.lost - self._told_lost, log.lost
            body = f"{count} records of the kernel's log were overwritten before they were read"
            yield Event(signals.KERNEL_LOG_GAP, now.wall_ns, body, {signals.LOST_COUNT: count}, WARN)

    def _settle(self) -> None:
        """Everything before the oldest event that still waits is done."""
        done = min(self._waiting) - 1 if self._waiting else self._read
        if done != self._done:
            self._done = done
            if self.state_file is not None:
                store_position(self.state_file, self._boot_id, done)


def _refusal(path: Path, error: OSError) -> CapabilityError:
    reason = f"the kernel's log {path} may not be read ({error.strerror})"
    if error.errno in (errno.ENOENT, errno.ENXIO):
        return CapabilityError("kernel_log", reason, f"in a container, start it with --device {path}")
    remedy = "give the agent CAP_SYSLOG, or set kernel.dmesg_restrict=0 and let it read the device"
    return CapabilityError("kernel_log", reason, remedy)


def driver_uuid(proc: Path, address: str) -> str | None:
    """UUID of the device at a PCI address, as the NVIDIA driver shows it; None without that driver."""
    text = read_text(proc / "driver/nvidia/gpus" / address / "information") or ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "GPU UUID":
            return value.strip() or None
    return None


def load_position(path: Path, boot_id: str) -> int | None:
    """The last settled record; -1 where the machine was started since, None where nobody was here."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(values, dict) or not isinstance(values.get("sequence"), int):
        return None
    return int(values["sequence"]) if values.get("boot_id") == boot_id else -1


def store_position(path: Path, boot_id: str, sequence: int) -> None:
    """Replace the state file as a whole."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps({"boot_id": boot_id, "sequence": sequence}), encoding="utf-8")
    draft.replace(path)
