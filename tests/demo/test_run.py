"""The demo's ends: what cannot run says why, and an interrupted run leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from arobust_otel.demo.api import Api, read_master_file
from arobust_otel.demo.options import CannotRun, Outcome
from arobust_otel.demo.places import examples, make_places

DEMO = (sys.executable, "-m", "arobust_otel.cli", "demo", "--json")
SHORT = """
import sys
from pathlib import Path
from arobust_otel.demo.run import run
keep = Path(sys.argv[1])
sys.exit(run(fault="hang", rank=1, ranks=2, as_json=True, keep=keep, timeout_seconds=1.0))
"""


def test_a_folder_with_something_in_it_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(CannotRun, match="not empty"):
        make_places(tmp_path)


def test_folders_of_a_run_are_private_and_go_away(tmp_path: Path) -> None:
    places = make_places(None)
    folders = (places.run, places.beacons, places.sockets)
    assert [folder.stat().st_mode & 0o777 for folder in folders] == [0o700] * 3
    assert len(str(places.sockets)) < 60
    places.remove()
    assert not any(folder.exists() for folder in folders)


def test_a_kept_run_stays_and_is_private(tmp_path: Path) -> None:
    places = make_places(tmp_path / "kept")
    places.remove()
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
    assert not places.beacons.exists()


def test_the_example_has_no_line_of_ours() -> None:
    text = (examples() / "train_gpt.py").read_text().lower()
    assert "arobust" not in text
    assert "opentelemetry" not in text


def test_the_master_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    assert read_master_file(tmp_path) is None
    (tmp_path / "master.json").write_text(json.dumps({"otlp_http": "http://a", "api": "http://b"}))
    assert read_master_file(tmp_path) == Api("http://a", "http://b")


def test_the_printed_object_has_exactly_the_promised_keys() -> None:
    outcome = Outcome("kill", 2, "2026-01-02T03:04:05.000000Z", (), 1.5, (), "/j")
    assert list(outcome.to_json()) == [
        "fault",
        "injected_rank",
        "injected_at",
        "incidents",
        "verdict_after_seconds",
        "ok",
        "journal",
    ]
    assert outcome.to_json()["ok"] is True


@pytest.mark.torch
@pytest.mark.timeout(300)
def test_an_interrupted_demo_ends_what_it_started(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "AROBUST_RAISE"}
    command = [*DEMO, "--keep", str(tmp_path / "run")]
    demo = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert demo.stderr is not None
    while "training starts" not in (line := demo.stderr.readline()):
        assert line, "the demo ended too early"
    demo.send_signal(signal.SIGINT)
    out, err = demo.communicate(timeout=200)
    assert demo.returncode == 130, err
    assert out == ""
    assert "had to be killed" not in err


@pytest.mark.torch
@pytest.mark.timeout(180)
def test_a_time_limit_that_is_too_short_is_said(tmp_path: Path) -> None:
    """A second is less than the command line takes, and less than a rank needs to load torch."""
    environ = {name: value for name, value in os.environ.items() if name != "AROBUST_RAISE"}
    command = [sys.executable, "-c", SHORT, str(tmp_path / "run")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 2, done.stderr
    assert "time limit" in done.stderr
    assert done.stdout == ""
