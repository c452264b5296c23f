"""Builds the library of nvml.c and writes its control file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")
NAME = "libnvidia-ml.so.1"
# One healthy device in an eight-GPU server.
HEALTHY = {
    "uuid": "GPU-{index}", "name": "NVIDIA H100 80GB HBM3", "pci.bus": "{bus}", "utilization": "97",
    "memory.total": "85899345920", "memory.used": "64424509440", "temperature": "55",
    "temperature.memory": "61", "temperature.slowdown": "87", "temperature.shutdown": "92",
    "power": "645123", "power.limit": "700000", "energy": "5000", "throttle": "0", "clock.graphics": "1980",
    "clock.sm": "1980", "clock.memory": "2619", "clock.graphics.max": "1980", "clock.sm.max": "1980",
    "clock.memory.max": "2619", "ecc.now.corrected": "3", "ecc.now.uncorrected": "0",
    "ecc.life.corrected": "30", "ecc.life.uncorrected": "1", "rows.corrected": "2", "rows.uncorrected": "0",
    "rows.pending": "0", "rows.failed": "0", "pcie.generation": "5", "pcie.generation.max": "5",
    "pcie.width": "16", "pcie.width.max": "16", "pcie.replays": "4", "nvlink.links": "18",
    "nvlink.inactive": "0", "processes": "1:1",
}  # fmt: skip


def build(folder: Path, *without: str) -> Path:
    """Compile it into `folder`; functions in `without` are left out, as in an old driver."""
    library = folder / NAME
    hidden = [f"-D{name}=static __attribute__((unused)) hidden_{name}" for name in without]
    command = ["gcc", "-shared", "-fPIC", "-O1", "-w", f"-Wl,-soname,{NAME}", *hidden, "-o", library, SOURCE]
    subprocess.run(command, check=True)
    return library


class Control:
    """What the library answers; every change is on the disk at once."""

    def __init__(self, path: Path, devices: int = 2) -> None:
        self.path = path
        self.values: dict[str, str] = {"driver": "550.54.15", "devices": str(devices)}
        for index in range(devices):
            for key, value in HEALTHY.items():
                self.values[f"{index}.{key}"] = value.format(index=index, bus=0x3B + index)
        self._write()

    def set(self, key: str, value: object) -> None:
        self.values[key] = str(value)
        self._write()

    def unset(self, key: str) -> None:
        del self.values[key]
        self._write()

    def _write(self) -> None:
        draft = self.path.with_name(self.path.name + ".new")
        draft.write_text("".join(f"{key} {value}\n" for key, value in self.values.items()))
        os.replace(draft, self.path)
