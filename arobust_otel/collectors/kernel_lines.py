"""What a line of the kernel's log says about accelerators, memory, storage, network and processors. Pure.

One table; each row carries its example, which the tests take. Lines that no row knows are nobody's business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from arobust_otel.model import signals
from arobust_otel.model.samples import ERROR, WARN, Attributes
from arobust_otel.model.xids import xid


@dataclass(frozen=True, slots=True)
class KernelFact:
    """What a line means: name of the event, and what it names. `pid` is one of the host."""

    name: str
    severity: int
    attributes: Attributes
    kind: str = ""
    pci_address: str = ""
    pid: int | None = None

    def key(self) -> tuple[str, str, str]:
        """Lines with one key are repetitions of one another."""
        return self.name, self.kind, self.pci_address


class Row(NamedTuple):
    """Kind of a fault, how its line looks, and a line from a real machine."""

    kind: str
    severity: int
    pattern: re.Pattern[str]
    example: str


def _row(kind: str, severity: int, pattern: str, example: str) -> Row:
    return Row(kind, severity, re.compile(pattern), example)


ROWS = (
    _row("nvswitch", ERROR, r"\bSXid \(PCI:(?P<pci>[0-9a-fA-F:.]+)\)",
         "nvidia-nvswitch3: SXid (PCI:0000:c6:00.0): 20034, Fatal, Link 30 LTSSM Fault Up"),
    _row("io_error", ERROR, r"\bI/O error[, ]",
         "blk_update_request: I/O error, dev nvme1n1, sector 2048 op 0x0:(READ) flags 0x0"),
    _row("read_only", ERROR, r"[Rr]emounting filesystem read-only|[Ff]ilesystem has been shut down",
         "EXT4-fs (sda1): Remounting filesystem read-only"),
    _row("filesystem_error", ERROR, r"EXT4-fs error|XFS \([^)]+\): .*[Cc]orruption|BTRFS error",
         "EXT4-fs error (device sda1): ext4_find_entry:1455: inode #2: comm python: reading directory"),
    _row("storage_unreachable", WARN, r"\bserver \S+ not responding",
         "nfs: server storage-1 not responding, still trying"),
    _row("hardware_error", ERROR, r"\[Hardware Error\]|EDAC \S+: \d+ UE\b|mce: .*[Uu]ncorrected",
         "mce: [Hardware Error]: CPU 12: Machine Check: 0 Bank 7: be00000000800400"),
    _row("memory_corrected", WARN, r"EDAC \S+: \d+ CE\b",
         "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_Ha#0_Chan#1_DIMM#0 (channel:1 slot:0 page:0x1e5)"),
    _row("pcie_error", ERROR, r"AER: .*[Uu]ncorrect|pciehp: .*(?:Link Down|Card not present)",
         "pcieport 0000:3a:00.0: AER: Uncorrected (Fatal) error received: 0000:3b:00.0"),
    _row("pcie_corrected", WARN, r"AER: .*[Cc]orrected",
         "pcieport 0000:3a:00.0: AER: Multiple Corrected error received: 0000:3b:00.0"),
    _row("network_health", ERROR,
         r"mlx5_core .*(?:health compromised|miss count|insufficient power|internal error)",
         "mlx5_core 0000:5e:00.0: poll_health:955: device's health compromised - reached miss count"),
    _row("link_down", ERROR,
         r"^(?!.*SATA)(?:.*\b(?:NIC )?Link (?:is )?[Dd]own\b|.*link status definitely down)",
         "mlx5_core 0000:5e:00.0 ib0: Link down"),
    _row("hung_task", WARN, r"task (?P<task>.+):(?P<pid>\d+) blocked for more than \d+ seconds",
         "INFO: task python3:4711 blocked for more than 120 seconds."),
    _row("lockup", ERROR, r"(?:soft|hard) lockup.*?(?:\[(?P<task>.+):(?P<pid>\d+)\])?$",
         "watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [python3:4711]"),
    _row("segfault", WARN, r"^(?P<task>.+)\[(?P<pid>\d+)\]: segfault at ",
         "python3[4711]: segfault at 0 ip 00007f3a0c1b sp 00007ffd error 4 in libc.so.6"),
    _row("processor_throttle", WARN, r"temperature above threshold, cpu clock throttled",
         "mce: CPU3: Core temperature above threshold, cpu clock throttled (total events = 1)"),
)  # fmt: skip

_XID = re.compile(r"NVRM: Xid \((?:PCI:)?(?P<pci>[0-9a-fA-F:.]+)\): (?P<code>\d+)\b(?P<rest>.*)")
_XID_PID = re.compile(r"\bpid='?(\d+)")
_XID_NAME = re.compile(r"\bname=([^,<]+)")
_LOST = re.compile(
    r"NVRM: .*?(?:PCI:|GPU )?(?P<pci>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F.]+).*fallen off the bus"
)
_KILLED = re.compile(
    r"^(?P<scope>.*?)[Oo]ut of memory.*?: [Kk]ill(?:ed)? process (?P<pid>\d+) \((?P<task>.*?)\)"
)
_UUID = re.compile(r"NVRM: GPU at (?:PCI:)?(?P<pci>[0-9a-fA-F:.]+): (?P<uuid>GPU-[0-9a-f-]+)")


def fact_of(text: str) -> KernelFact | None:
    """What a line says; None where it is not of interest."""
    return _xid(text) or _lost(text) or _killed(text) or _fault(text)


def uuid_of(text: str) -> tuple[str, str] | None:
    """PCI address and UUID, from the line that the driver writes before a device's first error."""
    found = _UUID.search(text)
    return (pci_address(found["pci"]), found["uuid"]) if found else None


def pci_address(text: str) -> str:
    """The form that everybody else uses: four digits, lower case, with the function.

    >>> pci_address("0000:3B:00"), pci_address("00000000:3b:00.0")
    ('0000:3b:00.0', '0000:3b:00.0')
    """
    domain, _, rest = text.rstrip(":").lower().partition(":")
    return f"{domain[-4:]}:{rest}" + ("" if "." in rest else ".0")


def _xid(text: str) -> KernelFact | None:
    found = _XID.search(text)
    if found is None:
        return None
    known = xid(int(found["code"]))
    attributes: Attributes = {
        signals.XID_CODE: known.code,
        signals.XID_MEANING: known.meaning,
        signals.XID_ADVICE: known.advice,
    }
    name, pid = _XID_NAME.search(found["rest"]), _XID_PID.search(found["rest"])
    if name is not None:
        attributes[signals.KERNEL_TASK] = name[1].strip()
    return KernelFact(
        signals.KERNEL_XID,
        known.severity,
        attributes,
        kind=str(known.code),
        pci_address=pci_address(found["pci"]),
        pid=int(pid[1]) if pid else None,
    )


def _lost(text: str) -> KernelFact | None:
    found = _LOST.search(text)
    if found is None:
        return None
    attributes: Attributes = {signals.SOURCE: "kernel"}
    return KernelFact(
        signals.ACCELERATOR_LOST, ERROR, attributes, "lost", pci_address=pci_address(found["pci"])
    )


def _killed(text: str) -> KernelFact | None:
    found = _KILLED.search(text)
    if found is None:
        return None
    place = "cgroup" if "cgroup" in found["scope"] else "host"
    attributes: Attributes = {signals.EXIT_OOM: place, signals.KERNEL_TASK: found["task"]}
    pid = int(found["pid"])
    return KernelFact(signals.KERNEL_OOM_KILL, ERROR, attributes, kind=str(pid), pid=pid)


def _fault(text: str) -> KernelFact | None:
    for row in ROWS:
        found = row.pattern.search(text)
        if found is not None:
            named = found.groupdict()
            attributes: Attributes = {signals.KERNEL_FAULT_KIND: row.kind}
            if named.get("task"):
                attributes[signals.KERNEL_TASK] = named["task"]
            pid = int(named["pid"]) if named.get("pid") else None
            pci = pci_address(named["pci"]) if named.get("pci") else ""
            return KernelFact(signals.KERNEL_FAULT, row.severity, attributes, row.kind, pci, pid)
    return None
