"""The example of a collector of somebody else: installed, listed, configured, seen by a server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from arobust_otel.config import tomllib
from tests.agent.server import MasterDouble
from tests.agent.world import JOB_ID, World

EXAMPLE = Path(__file__).parents[2] / "examples/own_collector"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """What `pip install --target` would leave there: the module and its metadata."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
    folder = tmp_path / "site"
    name, version = project["project"]["name"], project["project"]["version"]
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, points in project["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{key} = {target}" for key, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module in project["tool"]["setuptools"]["py-modules"]:
        shutil.copy(EXAMPLE / f"{module}.py", folder)
    return folder


def environ(site: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(site), **more}


def arobust(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "arobust_otel.cli", *arguments]
    return subprocess.run(command, env=environ(site), capture_output=True, text=True, check=False)


def test_it_is_listed_with_its_origin_and_its_options(site: Path) -> None:
    done = arobust(site, "list")
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    at = next(index for index, line in enumerate(lines) if line.startswith("cache_folder"))
    assert lines[at].split()[1] == "ok"
    assert "data loader's cache" in lines[at]
    assert lines[at + 1 : at + 3] == ["from cache-folder-collector", "options: folder, warn_bytes"]


def test_a_wrong_option_is_refused_with_the_right_ones(site: Path, tmp_path: Path) -> None:
    config = tmp_path / "arobust.toml"
    config.write_text('[collectors.cache_folder]\nfolders = "x"\n')
    done = arobust(site, "check-config", str(config))
    assert done.returncode == 2
    assert "collectors.cache_folder.folders" in done.stderr
    assert "did you mean folder?" in done.stderr


def test_a_real_agent_runs_it_and_a_server_gets_what_it_says(site: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "shard-0").write_bytes(b"x" * 4096)
    config = tmp_path / "arobust.toml"
    config.write_text(
        f'[collectors.cache_folder]\nfolder = "{cache}"\nwarn_bytes = 100\nperiod_seconds = 0.2\n'
        "[collectors.host]\nenabled = false\n[agent]\ngauge_seconds = 0.2\nheartbeat_seconds = 0.2\n"
    )
    master, world = MasterDouble(), World(tmp_path / "beacons")
    world.rank(0)
    command = [sys.executable, "-m", "arobust_otel.agent", "--job-id", JOB_ID, "--master", master.url]
    more = {"AROBUST_CONFIG": str(config), "AROBUST_SPOOL_DIR": str(tmp_path / "spool")}
    agent = subprocess.Popen(
        [*command, "--beacon-dir", str(world.root)], env=environ(site, **more), stderr=subprocess.DEVNULL
    )

    def value(name: str) -> float | None:
        return next((found for metric, found, _ in master.points() if metric == name), None)

    def report() -> object:
        reports = (report for beat in master.heartbeats for report in beat.collectors)
        return next((report for report in reports if report.name == "cache_folder"), None)

    try:
        assert master.wait_for(lambda: value("cache_folder.size") == 4096, 30)
        assert value("cache_folder.files") == 1
        assert master.wait_for(lambda: any("more than 100" in body for body in master.bodies()), 30)
        assert master.wait_for(lambda: report() is not None, 30)
        assert report().ok
        names = {report.name for report in master.heartbeats[-1].collectors}
        assert "host" not in names
        assert {"kernel_log", "nvidia", "xpu_timer", "beacons"} <= names
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.wait(20)
        world.close()
        master.stop()
