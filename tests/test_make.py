"""The Makefile: which Python it takes, and that it does nothing twice."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKE = shutil.which("make") or "make"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile beside a pyproject.toml, and an empty folder `bin` for stand-ins of Python."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "grep", "sed", "expand", "touch", "rm"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or tool)
    return tmp_path


def make(checkout: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environ = kept | {"PATH": path or os.environ["PATH"]}
    command = [MAKE, "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True, check=False)


def python(folder: Path, name: str, *, new_enough: bool) -> Path:
    stand_in = folder / name
    stand_in.write_text(f"#!/bin/sh\nexit {0 if new_enough else 1}\n")
    stand_in.chmod(0o755)
    return stand_in


def installed(checkout: Path) -> None:
    (checkout / ".venv" / "bin").mkdir(parents=True)
    python(checkout / ".venv" / "bin", "python", new_enough=True)
    for stamp in (".installed", ".installed-dev"):
        (checkout / ".venv" / stamp).touch()


def test_without_a_new_enough_python_it_says_so(checkout: Path) -> None:
    python(checkout / "bin", "python3", new_enough=False)
    done = make(checkout, "install", path=str(checkout / "bin"))
    assert done.returncode == 2
    assert "Python 3.10 or later is needed" in done.stdout


def test_the_first_new_enough_python_is_taken(checkout: Path) -> None:
    python(checkout / "bin", "python3", new_enough=False)
    python(checkout / "bin", "python3.12", new_enough=True)
    python(checkout / "bin", "python3.11", new_enough=True)
    done = make(checkout, "-n", "install", path=str(checkout / "bin"))
    assert f"{checkout}/bin/python3.12" in done.stdout
    assert "python3.11 " not in done.stdout


def test_what_is_installed_is_not_installed_again(checkout: Path) -> None:
    installed(checkout)
    assert "pip" not in make(checkout, "-n", "demo").stdout
    assert "pip" not in make(checkout, "-n", "check").stdout


def test_a_newer_pyproject_is_installed(checkout: Path) -> None:
    installed(checkout)
    stamp = (checkout / ".venv" / ".installed").stat().st_mtime
    os.utime(checkout / "pyproject.toml", (stamp + 10, stamp + 10))
    assert "install --progress-bar on -e ." in make(checkout, "-n", "demo").stdout


def test_help_is_the_default_and_names_the_targets(checkout: Path) -> None:
    text = make(checkout).stdout
    for target in ("demo", "test", "test-live", "check", "bench", "docs", "clean"):
        assert f"make {target} " in text


def test_clean_leaves_the_checkout(checkout: Path) -> None:
    installed(checkout)
    assert make(checkout, "clean").returncode == 0
    assert not (checkout / ".venv").exists()
    assert (checkout / "pyproject.toml").exists()
