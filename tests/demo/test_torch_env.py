"""Where torch is looked for, and that half an installation never passes for a whole one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from arobust_otel.demo import torch_env


def test_the_cache_follows_our_variable_then_the_desktop_standard_then_home(tmp_path: Path) -> None:
    assert torch_env.cache_root({"AROBUST_CACHE": "/c", "XDG_CACHE_HOME": "/x"}) == Path("/c")
    assert torch_env.cache_root({"XDG_CACHE_HOME": "/x"}) == Path("/x/arobust")
    assert torch_env.cache_root({}) == Path.home() / ".cache" / "arobust"


def test_a_folder_belongs_to_one_version_and_one_python(tmp_path: Path) -> None:
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert torch_env.folder_for(tmp_path, "2.15.0").name == f"torch-2.15.0-{tag}"


def fake_torch(folder: Path, distributed: str) -> None:
    for package in ("torch", "torch/distributed", "numpy"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").touch()
    (folder / "torch" / "distributed" / "__init__.py").write_text(distributed)


def test_a_folder_from_which_torch_imports_is_complete_and_gets_the_marker(tmp_path: Path) -> None:
    fake_torch(tmp_path / "torch", "ranks = 4\n")
    assert torch_env.is_complete(tmp_path / "torch")
    assert (tmp_path / "torch" / torch_env.MARKER).exists()


def test_a_folder_from_which_torch_does_not_import_is_not_complete(tmp_path: Path) -> None:
    fake_torch(tmp_path / "torch", "raise ImportError('libgloo is missing')\n")
    assert not torch_env.is_complete(tmp_path / "torch")
    assert not (tmp_path / "torch" / torch_env.MARKER).exists()


def test_an_absent_folder_is_not_complete(tmp_path: Path) -> None:
    assert not torch_env.is_complete(tmp_path / "nothing")


def test_an_installation_that_pip_refuses_leaves_no_folder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target, partial = tmp_path / "torch", tmp_path / ".partial-torch"
    assert not torch_env._pip("torch===not a version", target, partial)
    assert not target.exists()
    assert not partial.exists()
    assert capfd.readouterr().err
