"""docs/forwarders.md: its configurations are valid, and it knows every option and reason."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from arobust_otel import plugins
from arobust_otel.config import load_file, master_settings
from arobust_otel.master import attempts
from arobust_otel.master.destinations import build_forwarder
from arobust_otel.master.pace import Counts
from arobust_otel.model.notice import CHANGES
from arobust_otel.otlp import ages

PAGE = (Path(__file__).parents[2] / "docs" / "forwarders.md").read_text(encoding="utf-8")
PARTS = plugins.discover("forwarders")


@pytest.mark.parametrize("block", re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
def test_its_configurations_are_valid(block: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    file = tmp_path / "arobust.toml"
    file.write_text(block.replace("/etc/arobust/webhook.secret", str(secret)))
    settings = master_settings(load_file(file))
    assert settings.forwarders
    for forwarder in settings.forwarders:
        plugins.close(build_forwarder(forwarder))


@pytest.mark.parametrize("name", PARTS)
def test_it_names_every_option(name: str) -> None:
    missing = [option for option in PARTS[name].options() if f"`{option}`" not in PAGE and option != "listen"]
    assert not missing
    assert f"## `{name}`" in PAGE


def test_it_names_every_reason_counter_and_change() -> None:
    reasons = (
        attempts.REFUSED,
        attempts.FAILED,
        attempts.REJECTED,
        attempts.EXPIRED,
        attempts.DAMAGED,
        attempts.UNREADABLE,
        ages.TOO_OLD,
        ages.TOO_NEW,
    )
    counters = [item.name for item in fields(Counts) if item.name != "waiting_ns"]
    missing = [name for name in (*reasons, *counters) if f"`{name}`" not in PAGE]
    assert not missing
    assert all(change.removeprefix("incident") in PAGE for change in CHANGES)
