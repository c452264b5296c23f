"""What is asked of one NVIDIA device: a table of queries, each of which may fail without hiding another.

A query that the device or its driver does not know is no point (N/A); one that fails is a sentence; a device
that is lost ends its sweep. The library comes as an argument: nothing here loads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from arobust_otel.model import signals
from arobust_otel.model.samples import Attributes, Point

# Return codes of nvml.h.
UNINITIALIZED, _INVALID_ARGUMENT, NO_PERMISSION, DRIVER_NOT_LOADED = 1, 2, 4, 9
LIBRARY_NOT_FOUND, GPU_IS_LOST = 12, 15
VERSION_MISMATCH = 18
# Not supported, not found, function not found, no data, no ECC in a virtual device, other version of an
# argument, deprecated: this device or driver has no such value.
NOT_AVAILABLE = frozenset({3, 6, 13, 21, 22, 25, 29})
RELOADED = frozenset({UNINITIALIZED, DRIVER_NOT_LOADED, VERSION_MISMATCH})

MEBIHERTZ = 1e6
MAX_NVLINKS = 36
_MEMORY_TEMPERATURE_FIELD = 82
_CORRECTED, _UNCORRECTED = {signals.ERROR_TYPE: "corrected"}, {signals.ERROR_TYPE: "uncorrected"}
# Reasons that lower clocks; idle clocks and those that an administrator chose are none.
THROTTLE_REASONS = {
    0x04: "power_cap", 0x08: "hw_slowdown", 0x10: "sync_boost", 0x20: "sw_thermal", 0x40: "hw_thermal",
    0x80: "hw_power_brake",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Device:
    """A device as its driver named it once; the handle is the library's."""

    index: int
    uuid: str
    name: str
    pci_address: str
    handle: Any = None

    def __str__(self) -> str:
        """As people look for it."""
        return f"{self.name} {self.uuid} ({self.pci_address})"

    def attributes(self) -> Attributes:
        """Attributes of its points."""
        return {signals.HW_ID: self.uuid, signals.HW_TYPE: "gpu"}

    def event_attributes(self) -> Attributes:
        """Attributes of its events."""
        return {
            signals.HW_ID: self.uuid,
            signals.HW_NAME: self.name,
            signals.ACCELERATOR_INDEX: self.index,
            signals.ACCELERATOR_PCI: self.pci_address,
            signals.SOURCE: "nvml",
        }


class Holder(NamedTuple):
    """A process that has memory on a device; None where the driver does not say how much."""

    pid: int
    memory_bytes: int | None


@dataclass(slots=True)
class Sweep:
    """What one device said."""

    points: list[Point] = field(default_factory=list)
    holders: tuple[Holder, ...] | None = None  # None where it does not say
    problems: list[str] = field(default_factory=list)
    is_lost: bool = False


class Number(NamedTuple):
    """A query whose answer is one number."""

    label: str
    function: str
    arguments: tuple[int, ...]
    signal: str
    factor: float = 1.0
    attributes: Attributes | None = None


NUMBERS = (
    Number("temperature", "nvmlDeviceGetTemperature", (0,), signals.HW_TEMPERATURE, 1,
           {signals.HW_SENSOR: "gpu"}),
    Number("slowdown temperature", "nvmlDeviceGetTemperatureThreshold", (1,), signals.HW_TEMPERATURE_LIMIT, 1,
           {signals.HW_LIMIT_TYPE: "throttled"}),
    Number("shutdown temperature", "nvmlDeviceGetTemperatureThreshold", (0,), signals.HW_TEMPERATURE_LIMIT, 1,
           {signals.HW_LIMIT_TYPE: "critical"}),
    Number("power", "nvmlDeviceGetPowerUsage", (), signals.HW_POWER, 1e-3),
    Number("power limit", "nvmlDeviceGetEnforcedPowerLimit", (), signals.ACCELERATOR_POWER_LIMIT, 1e-3),
    Number("energy", "nvmlDeviceGetTotalEnergyConsumption", (), signals.HW_ENERGY, 1e-3),
    *(
        Number(f"{name} clock{suffix}", function, (code,), signal, MEBIHERTZ, {signals.CLOCK_NAME: name})
        for code, name in ((0, "graphics"), (1, "sm"), (2, "memory"))
        for suffix, function, signal in (
            ("", "nvmlDeviceGetClockInfo", signals.ACCELERATOR_CLOCK),
            (" limit", "nvmlDeviceGetMaxClockInfo", signals.ACCELERATOR_CLOCK_LIMIT),
        )
    ),
    *(
        Number(f"{kind} memory errors{span}", "nvmlDeviceGetTotalEccErrors", (code, counter), signal, 1,
               {signals.ERROR_TYPE: kind})
        for code, kind in ((0, "corrected"), (1, "uncorrected"))
        for counter, span, signal in (
            (0, "", signals.HW_ERRORS), (1, " of its life", signals.ACCELERATOR_ERRORS_LIFETIME)
        )
    ),
    Number("retirement pending", "nvmlDeviceGetRetiredPagesPendingStatus", (),
           signals.ACCELERATOR_REPAIR_PENDING),
    Number("PCIe generation", "nvmlDeviceGetCurrPcieLinkGeneration", (), signals.PCIE_GENERATION),
    Number("highest PCIe generation", "nvmlDeviceGetMaxPcieLinkGeneration", (),
           signals.PCIE_GENERATION_LIMIT),
    Number("PCIe width", "nvmlDeviceGetCurrPcieLinkWidth", (), signals.PCIE_WIDTH),
    Number("highest PCIe width", "nvmlDeviceGetMaxPcieLinkWidth", (), signals.PCIE_WIDTH_LIMIT),
    Number("PCIe replays", "nvmlDeviceGetPcieReplayCounter", (), signals.PCIE_REPLAYS),
)  # fmt: skip


def sweep(nvml: Any, device: Device, at_ns: int) -> Sweep:
    """Everything that a device says of itself.

    Args:
        nvml: the module `pynvml`, initialised.
        device: with its handle.
        at_ns: time of the points.

    Raises:
        NVMLError: the driver was reloaded, so that the handle is worth nothing.
    """
    found = Sweep()

    def add(signal: str, value: float, extra: Attributes | None = None) -> None:
        found.points.append(Point(signal, value, at_ns, {**device.attributes(), **(extra or {})}))

    def add_holders() -> None:
        found.holders = _holders(nvml, device.handle)

    for label, ask in (*_questions(nvml, device.handle, add), ("processes", add_holders)):
        try:
            ask()
        except nvml.NVMLError as error:
            if error.value in RELOADED:
                raise
            if error.value == GPU_IS_LOST:
                found.is_lost = True
                return found
            if error.value not in NOT_AVAILABLE:
                found.problems.append(f"{label}: {error}")
        except (AttributeError, ValueError) as error:  # another pynvml; text that is none
            found.problems.append(f"{label}: {error}")
    return found


Add = Callable[..., None]


def _questions(nvml: Any, handle: Any, add: Add) -> Iterator[tuple[str, Callable[[], None]]]:
    for row in NUMBERS:
        yield row.label, lambda row=row: _number(nvml, handle, row, add)  # type: ignore[misc]
    for label, read in _READERS:
        yield label, lambda read=read: read(nvml, handle, add)  # type: ignore[misc]


def _number(nvml: Any, handle: Any, row: Number, add: Add) -> None:
    value = getattr(nvml, row.function)(handle, *row.arguments)
    add(row.signal, value if row.factor == 1 else value * row.factor, row.attributes)


def _utilization(nvml: Any, handle: Any, add: Add) -> None:
    add(signals.HW_UTILIZATION, nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)


def _memory(nvml: Any, handle: Any, add: Add) -> None:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    add(signals.HW_MEMORY_USAGE, memory.used)
    add(signals.HW_MEMORY_LIMIT, memory.total)


def _memory_temperature(nvml: Any, handle: Any, add: Add) -> None:
    (value,) = nvml.nvmlDeviceGetFieldValues(handle, [_MEMORY_TEMPERATURE_FIELD])
    if value.nvmlReturn:
        raise nvml.NVMLError(value.nvmlReturn)
    add(signals.HW_TEMPERATURE, value.value.uiVal, {signals.HW_SENSOR: "memory"})


def _throttle(nvml: Any, handle: Any, add: Add) -> None:
    reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    for bit, reason in THROTTLE_REASONS.items():
        add(signals.ACCELERATOR_THROTTLE, int(bool(reasons & bit)), {signals.THROTTLE_REASON: reason})


def _remapped_rows(nvml: Any, handle: Any, add: Add) -> None:
    corrected, uncorrected, pending, failed = nvml.nvmlDeviceGetRemappedRows(handle)
    add(signals.ACCELERATOR_REMAPPED_ROWS, corrected, _CORRECTED)
    add(signals.ACCELERATOR_REMAPPED_ROWS, uncorrected, _UNCORRECTED)
    add(signals.ACCELERATOR_REPAIR_PENDING, pending)
    add(signals.ACCELERATOR_REPAIR_FAILED, failed)


def _retired_pages(nvml: Any, handle: Any, add: Add) -> None:
    for cause, kind in ((0, _CORRECTED), (1, _UNCORRECTED)):
        add(signals.ACCELERATOR_RETIRED_PAGES, len(nvml.nvmlDeviceGetRetiredPages(handle, cause)), kind)


def _nvlinks(nvml: Any, handle: Any, add: Add) -> None:
    states = []
    for link in range(MAX_NVLINKS):
        try:
            states.append(bool(nvml.nvmlDeviceGetNvLinkState(handle, link)))
        except nvml.NVMLError as error:
            if error.value in NOT_AVAILABLE or error.value == _INVALID_ARGUMENT:
                break  # no further links
            raise
    if states:
        add(signals.NVLINK_LINKS, sum(states), {signals.HW_STATE: "active"})
        add(signals.NVLINK_LINKS, len(states) - sum(states), {signals.HW_STATE: "inactive"})


_READERS: tuple[tuple[str, Callable[[Any, Any, Add], None]], ...] = (
    ("utilization", _utilization),
    ("memory", _memory),
    ("memory temperature", _memory_temperature),
    ("throttle reasons", _throttle),
    ("remapped rows", _remapped_rows),
    ("retired pages", _retired_pages),
    ("NVLink", _nvlinks),
)


def _holders(nvml: Any, handle: Any) -> tuple[Holder, ...]:
    found: Iterable[Any] = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    return tuple(Holder(item.pid, item.usedGpuMemory) for item in found)


def name_device(nvml: Any, index: int) -> Device:
    """The device with a number.

    Raises:
        NVMLError: it does not answer.
    """
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    bus = nvml.nvmlDeviceGetPciInfo(handle)
    address = f"{bus.domain:04x}:{bus.bus:02x}:{bus.device:02x}.0"
    uuid, name = text(nvml.nvmlDeviceGetUUID(handle)), text(nvml.nvmlDeviceGetName(handle))
    return Device(index, uuid, name, address, handle)


def text(value: str | bytes) -> str:
    """A text of the library; `pynvml` before 11.5, which the predecessor's users may have, gives bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def answers(nvml: Any, device: Device) -> bool:
    """Whether a device is still there; one cheap question that reaches it.

    Raises:
        NVMLError: the driver was reloaded.
    """
    try:
        nvml.nvmlDeviceGetTemperature(device.handle, 0)
    except nvml.NVMLError as error:
        if error.value in RELOADED:
            raise
        return bool(error.value != GPU_IS_LOST)
    return True
