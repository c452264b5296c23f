"""PyTorch for the demo's training: the one at hand, or one kept in the user's cache.

A torch that the interpreter can import is used as it is. Else `torch` and `numpy` are installed once into
``<cache>/torch-<version>-<python tag>`` with pip and made importable: by a ``.pth`` file where the
interpreter is a virtual environment, else through PYTHONPATH of the training processes only.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from arobust_otel.errors import ArobustError

VERSION = "2.15.0"
LATEST = "latest"
DOWNLOAD_GB = 2.8
DISK_GB = 5.3
MARKER = ".complete"
PTH_NAME = "arobust-torch.pth"
PROBE_SECONDS = 180


class TorchMissing(ArobustError):
    """PyTorch is neither here nor could it be installed; the message says what would help."""


@dataclass(frozen=True, slots=True)
class TorchPlace:
    """Where torch comes from.

    Attributes:
        says: one sentence for the screen.
        python_path: folder that the training needs on PYTHONPATH; None where torch is importable anyway.
    """

    says: str
    python_path: Path | None = None


def cache_root(environ: Mapping[str, str]) -> Path:
    """`AROBUST_CACHE`, else ``arobust`` in the user's cache folder."""
    if environ.get("AROBUST_CACHE"):
        return Path(environ["AROBUST_CACHE"])
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "arobust"


def folder_for(root: Path, version: str) -> Path:
    """The folder of one version for the interpreter in use."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return root / f"torch-{version}-{tag}"


def ensure(environ: Mapping[str, str] | None = None) -> TorchPlace:
    """Find torch, or install it into the cache.

    Raises:
        TorchMissing: with the reason and the remedy.
    """
    if importlib.util.find_spec("torch") is not None:
        return TorchPlace("PyTorch: the one this Python already has")
    base = _base_site_packages()
    if base is not None:
        return _offer(base, "PyTorch: the one of the Python that this environment was made from")
    root = cache_root(os.environ if environ is None else environ)
    root.mkdir(parents=True, exist_ok=True)
    with _lock(root / "torch.lock"):
        folder = _kept(root) or _install(root)
    return _offer(folder, f"PyTorch: kept in {folder}")


def is_complete(folder: Path) -> bool:
    """Whether torch was installed here to the end; a folder without the marker is tried once."""
    if (folder / MARKER).exists():
        return True
    if not (folder / "torch" / "__init__.py").exists() or not _imports(folder):
        return False
    (folder / MARKER).touch()
    return True


def _kept(root: Path) -> Path | None:
    candidates = (folder_for(root, VERSION), folder_for(root, LATEST))
    return next((folder for folder in candidates if is_complete(folder)), None)


def _imports(folder: Path) -> bool:
    command = [sys.executable, "-c", "import torch.distributed, numpy"]
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    try:
        done = subprocess.run(command, env=environ, capture_output=True, timeout=PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _base_site_packages() -> Path | None:
    """Folder of the torch that the base interpreter of this virtual environment has."""
    base = getattr(sys, "_base_executable", sys.executable)
    if not _in_virtual_environment() or base == sys.executable:
        return None
    code = (
        "import importlib.util as u; s = u.find_spec('torch'); "
        "print(s.submodule_search_locations[0] if s and s.submodule_search_locations else '')"
    )
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([base, "-c", code], env=environ, capture_output=True, text=True, check=False)
    found = done.stdout.strip()
    return Path(found).parent if done.returncode == 0 and found else None


def _install(root: Path) -> Path:
    _say(
        f"PyTorch is not here: installing it once into {root} "
        f"({DOWNLOAD_GB} GB to download, {DISK_GB} GB on disk; later runs take it from there)."
    )
    free_gb = shutil.disk_usage(root).free / 1e9
    if free_gb < DISK_GB * 1.1:
        raise TorchMissing(
            f"{root} has {free_gb:.1f} GB free and PyTorch needs {DISK_GB}; "
            "free some space, or name another folder in AROBUST_CACHE"
        )
    for stale in root.glob(".partial-*"):
        shutil.rmtree(stale, ignore_errors=True)
    for version, requirement in ((VERSION, f"torch=={VERSION}"), (LATEST, "torch")):
        folder = folder_for(root, version)
        if _pip(requirement, folder, root / f".partial-{folder.name}"):
            return folder
        _say(f"pip could not install {requirement} for this Python.")
    raise TorchMissing(
        "PyTorch could not be installed (see pip's words above); "
        "use a Python that has it, or check the network and run this again"
    )


def _pip(requirement: str, folder: Path, partial: Path) -> bool:
    """Install beside the target and rename: an interrupted install never looks complete."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "on"]
    command += ["--target", str(partial), requirement, "numpy"]
    done = subprocess.run(command, stdout=sys.stderr.fileno(), check=False)
    if done.returncode != 0 or not is_complete(partial):
        shutil.rmtree(partial, ignore_errors=True)
        return False
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return True


def _offer(folder: Path, says: str) -> TorchPlace:
    if _in_virtual_environment():
        pth = Path(sysconfig.get_path("purelib")) / PTH_NAME
        try:
            pth.write_text(f"{folder}\n", encoding="utf-8")
        except OSError:
            return TorchPlace(says, folder)
        return TorchPlace(says)
    return TorchPlace(says, folder)


def _in_virtual_environment() -> bool:
    return sys.prefix != sys.base_prefix


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("Another process is installing PyTorch: waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main() -> int:
    """Have torch ready and say where it comes from; 2 where that is not possible."""
    try:
        place = ensure()
    except TorchMissing as error:
        _say(str(error))
        return 2
    _say(place.says)
    if place.python_path is not None:
        _say(f"This Python is no virtual environment: PYTHONPATH={place.python_path} makes it importable.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
