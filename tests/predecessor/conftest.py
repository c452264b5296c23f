"""A process without a launcher: no test sees the environment of whoever runs it, or another's singleton."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from arobust_otel.agent.monitor import ResourceMonitor
from arobust_otel.controller.diagnosis import DiagnosisAgent
from arobust_otel.model.beacon import job_folder
from tests.predecessor.support import JOB

PREFIXES = ("arobust_", "AROBUST_", "SLURM_", "OMPI_", "OTEL_", "TORCHELASTIC_")
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "NODE_ID", "GROUP_RANK", "NODE_TYPE", "NODE_IP")
KEPT = ("AROBUST_RAISE", "AROBUST_TEST_RUN")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if (name.startswith(PREFIXES) or name in (*NAMES, "XPU_TIMER_PORT")) and name not in KEPT:
            monkeypatch.delenv(name)
    yield
    DiagnosisAgent.reset_singleton()
    ResourceMonitor.reset_singleton()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The job's folder, and an environment that names job and folder."""
    monkeypatch.setenv("AROBUST_JOB_ID", JOB)
    monkeypatch.setenv("AROBUST_BEACON_DIR", str(tmp_path / "beacons"))
    return job_folder(tmp_path / "beacons", JOB)
