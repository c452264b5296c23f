"""What the agent inherits, and what not."""

from __future__ import annotations

from pathlib import Path

import pytest

from arobust_otel.training.spawn import AgentOrder, command, is_wanted, scrubbed

INSTRUMENTATION = "/venv/lib/site-packages/opentelemetry/instrumentation/auto_instrumentation"


def test_the_agent_is_no_rank_and_is_not_instrumented() -> None:
    environ = {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "h",
        "TORCHELASTIC_RUN_ID": "r",
        "WORLD_SIZE": "4",
    }
    environ |= {
        "AROBUST_RANK_PID": "7",
        "AROBUST_LAUNCHER": "6",
        "PYTHONPATH": f"{INSTRUMENTATION}:/libraries",
    }
    kept = scrubbed(
        environ | {"AROBUST_LOG_FILES": "train.log", "OTEL_EXPORTER_OTLP_HEADERS": "a=b", "PATH": "/bin"}
    )
    assert kept.pop("PYTHONPATH").split(":")[0] == "/libraries"
    assert kept == {
        "AROBUST_LOG_FILES": "train.log",
        "OTEL_EXPORTER_OTLP_HEADERS": "a=b",
        "PATH": "/bin",
        "PYTHONSAFEPATH": "1",
    }


@pytest.mark.parametrize(("value", "wanted"), [("off", False), ("0", False), ("", True), ("on", True)])
def test_the_agent_can_be_switched_off(value: str, wanted: bool) -> None:
    assert is_wanted({"AROBUST_AGENT": value}) is wanted
    assert is_wanted({})


def test_the_agent_is_told_job_folder_and_master() -> None:
    words = command(AgentOrder("job", Path("/beacons"), Path("/beacons/job"), "http://m:4318"))
    assert words[1:] == [
        *("-m", "arobust_otel.agent", "--beacon-dir", "/beacons"),
        *("--job-id", "job", "--master", "http://m:4318"),
    ]
