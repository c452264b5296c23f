"""NVIDIA accelerators through their driver's own library (NVML).

A machine without such a device is no gap: nothing is said. Where one seems to be and cannot be asked, that is
said with the remedy. A device that is lost is told at once; each of the others goes on. Process ids that the
driver names are the host's: in a container with ids of its own no rank is mapped rather than a wrong one.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from arobust_otel.collectors import nvml as queries
from arobust_otel.collectors.hostpids import sees_host_pids
from arobust_otel.collectors.nvml import Device, Sweep
from arobust_otel.collectors.procfs import PROC, read_text
from arobust_otel.errors import CapabilityError
from arobust_otel.model import signals
from arobust_otel.model.samples import ERROR, INFO, Attributes, Event, Point
from arobust_otel.plugins import Clock, Item, Node

LIBRARY = "libnvidia-ml.so.1"
NO_DEVICE = "no NVIDIA device here"
LOOK_AGAIN_NS = 30_000_000_000  # where there is no device, or the driver refuses
_NVIDIA, _DISPLAY_CLASS = "0x10de", "0x03"
_REMEDIES = {
    queries.LIBRARY_NOT_FOUND: "install the driver's library libnvidia-ml.so.1; in a container set "
    "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    queries.DRIVER_NOT_LOADED: "load the driver (modprobe nvidia); the kernel's log says why it is not",
    queries.VERSION_MISMATCH: "driver and library differ since an update: restart the machine",
    queries.NO_PERMISSION: "let the agent open /dev/nvidiactl and /dev/nvidia0",
}


@dataclass(slots=True)
class NvidiaCollector:
    """Load, memory, temperature, power, clocks, errors, links and processes of NVIDIA accelerators."""

    name: ClassVar[str] = "nvidia"
    period_seconds: float = field(default=1.0, metadata={"minimum": 0.05})  # of the look whether all answer
    interval_seconds: float = field(default=5.0, metadata={"minimum": 0})  # of reading everything
    proc: Path = PROC
    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    host_pids: bool | None = None  # whether pids of the driver are ours; None: find out
    note: str = field(default="", init=False)
    _nvml: Any = field(default=None, init=False)
    _devices: dict[str, Device] = field(default_factory=dict, init=False)  # by UUID; lost ones stay
    _lost: set[str] = field(default_factory=set, init=False)
    _nameless: dict[int, Any] = field(default_factory=dict, init=False)  # index -> the error it answers with
    _driver: str = field(default="", init=False)
    _mapped: set[tuple[object, ...]] = field(default_factory=set, init=False)
    _look_again_ns: int = field(default=0, init=False)
    _problems: list[str] = field(default_factory=list, init=False)  # of the last reading of everything
    _refused: CapabilityError | None = field(default=None, init=False)
    _read_ns: int | None = field(default=None, init=False)

    def collect(self, now: Clock, node: Node) -> Iterator[Item]:
        """Points of every device, and the facts: lost, back, which rank is where.

        Raises:
            CapabilityError: devices seem to be here, but the driver cannot be asked.
            RuntimeError: some query of some device failed; everything else was yielded before.
        """
        if self._nvml is None and not self._is_open(now):
            return
        try:
            yield from self._look(now, node)
        except self._nvml.NVMLError as error:
            self._reopen(error)

    def close(self) -> None:
        """Give the driver's library back."""
        if self._nvml is not None:
            with contextlib.suppress(self._nvml.NVMLError):  # the driver may be gone, and its session with it
                self._nvml.nvmlShutdown()
            self._nvml = None

    # --- the session with the driver ----------------------------------------------------------------------

    def _is_open(self, now: Clock) -> bool:
        if now.mono_ns < self._look_again_ns:
            if self._refused is not None:
                raise self._refused
            return False
        self._look_again_ns = now.mono_ns + LOOK_AGAIN_NS
        seems_present = seems_to_have_devices(self.proc, self.sys, self.dev)
        self._refused, self.note = None, NO_DEVICE
        if not library_exists() and not seems_present:
            return False
        import pynvml  # 40 ms and 3 MiB that a machine without accelerators does not pay

        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            if not seems_present and error.value in (queries.LIBRARY_NOT_FOUND, queries.DRIVER_NOT_LOADED):
                return False
            remedy = _REMEDIES.get(error.value, "run nvidia-smi, which shows the same error")
            self._refused = CapabilityError(self.name, f"NVIDIA devices cannot be asked ({error})", remedy)
            raise self._refused from None
        self._nvml, self.note, self._read_ns, self._look_again_ns = pynvml, "", None, 0
        if self.host_pids is None:
            self.host_pids = sees_host_pids(self.proc)
        return True

    def _name_devices(self) -> None:
        """Devices that the driver lists; one that was known and is missing now is lost."""
        found: dict[str, Device] = {}
        known = {device.index for device in self._devices.values()}
        self._nameless = {}
        self._driver = queries.text(self._nvml.nvmlSystemGetDriverVersion())
        for index in range(self._nvml.nvmlDeviceGetCount()):
            try:
                device = queries.name_device(self._nvml, index)
                found[device.uuid] = device
            except self._nvml.NVMLError as error:
                if error.value in queries.RELOADED:
                    raise
                if index not in known:
                    self._nameless[index] = error
        gone = {uuid: replace(device, handle=None) for uuid, device in self._devices.items()}
        self._devices = {**gone, **found}
        self.note = "" if self._devices or self._nameless else "the NVIDIA driver lists no device"

    def _reopen(self, error: Any) -> None:
        """The driver was reloaded: the next call begins anew."""
        self.close()
        raise RuntimeError(f"the NVIDIA driver went away ({error}); it is asked anew") from None

    # --- one look ------------------------------------------------------------------------------------------

    def _look(self, now: Clock, node: Node) -> Iterator[Item]:
        due = self._read_ns is None or now.mono_ns - self._read_ns >= self.interval_seconds * 1e9
        if self._read_ns is None or (due and (self._nameless or self._lost)):
            self._name_devices()
        yield from self._nameless_lost(now)
        failed = [f"device {index}: {error}" for index, error in self._nameless.items()]
        for device in self._devices.values():
            found = queries.sweep(self._nvml, device, now.wall_ns) if due and device.handle else None
            is_there = not found.is_lost if found else self._answers(device)
            yield from self._changes(device, is_there, now)
            if due:
                yield from self._status(device, is_there, now)
            if found is not None and is_there:
                yield from found.points
                yield from self._holders(device, found, now, node)
                failed += [f"{device.uuid}: {problem}" for problem in found.problems]
        if due:
            self._read_ns, self._problems = now.mono_ns, failed
        if self._problems:  # said until everything is read again, not only by the call that met them
            raise RuntimeError("; ".join(self._problems[:10]))

    def _nameless_lost(self, now: Clock) -> Iterator[Event]:
        """Devices that were lost before anybody asked for their names."""
        for index, error in self._nameless.items():
            if error.value == queries.GPU_IS_LOST and str(index) not in self._lost:
                self._lost.add(str(index))
                attributes: Attributes = {signals.ACCELERATOR_INDEX: index, signals.SOURCE: "nvml"}
                body = f"accelerator {index} is lost; it was before anybody knew its name"
                yield Event(signals.ACCELERATOR_LOST, now.wall_ns, body, attributes, ERROR)

    def _answers(self, device: Device) -> bool:
        return device.handle is not None and queries.answers(self._nvml, device)

    def _changes(self, device: Device, is_there: bool, now: Clock) -> Iterator[Event]:
        was_lost = {device.uuid, str(device.index)} & self._lost  # the latter: before it had a name
        if not is_there and not was_lost:
            self._lost.add(device.uuid)
            body = f"accelerator {device.index} is lost: {device}"
            yield Event(signals.ACCELERATOR_LOST, now.wall_ns, body, device.event_attributes(), ERROR)
        elif is_there and was_lost:
            self._lost -= was_lost
            body = f"accelerator {device.index} answers again: {device}"
            yield Event(signals.ACCELERATOR_BACK, now.wall_ns, body, device.event_attributes(), INFO)

    def _status(self, device: Device, is_there: bool, now: Clock) -> Iterator[Point]:
        own = device.attributes()
        for state, holds in (("ok", is_there), ("failed", not is_there)):
            yield Point(signals.HW_STATUS, int(holds), now.wall_ns, {**own, signals.HW_STATE: state})
        yield Point(
            signals.ACCELERATOR_INFO,
            1,
            now.wall_ns,
            {
                **own,
                signals.HW_NAME: device.name,
                signals.HW_VENDOR: "NVIDIA",
                signals.HW_DRIVER_VERSION: self._driver,
                signals.ACCELERATOR_INDEX: device.index,
                signals.ACCELERATOR_PCI: device.pci_address,
            },
        )

    def _holders(self, device: Device, found: Sweep, now: Clock, node: Node) -> Iterator[Item]:
        """Who computes on a device: ranks by name, the others counted."""
        if found.holders is None:
            return
        own = device.attributes()
        if not self.host_pids:
            yield Point(signals.ACCELERATOR_PROCESSES, len(found.holders), now.wall_ns, dict(own))
            return
        ranks = {rank.pid: rank for rank in node.ranks if rank.alive}
        for holder in found.holders:
            rank = ranks.get(holder.pid)
            if rank is None:
                continue
            if (*rank.key, device.uuid) not in self._mapped:
                self._mapped.add((*rank.key, device.uuid))
                body = f"rank {rank.rank} (process {rank.pid}) computes on {device}"
                attributes = {**device.event_attributes(), **rank.event_attributes()}
                yield Event(signals.RANK_ACCELERATOR, now.wall_ns, body, attributes, INFO)
            if holder.memory_bytes is not None:
                attributes = {**own, **rank.attributes()}
                yield Point(signals.ACCELERATOR_RANK_MEMORY, holder.memory_bytes, now.wall_ns, attributes)
        counted = sum(holder.pid in ranks for holder in found.holders)
        for owner, count in (("rank", counted), ("other", len(found.holders) - counted)):
            attributes = {**own, signals.PROCESS_OWNER: owner}
            yield Point(signals.ACCELERATOR_PROCESSES, count, now.wall_ns, attributes)


def library_exists() -> bool:
    """Whether the driver's library can be loaded; costs some microseconds where it cannot."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def seems_to_have_devices(proc: Path, sys: Path, dev: Path) -> bool:
    """Whether the machine has an NVIDIA device or its driver, whoever may use it."""
    if (proc / "driver/nvidia/version").exists() or any(dev.glob("nvidia[0-9]*")):
        return True
    return any(
        (read_text(device / "vendor") or "").strip() == _NVIDIA
        and (read_text(device / "class") or "").startswith(_DISPLAY_CLASS)
        for device in sys.glob("bus/pci/devices/*")
    )
