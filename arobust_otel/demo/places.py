"""Folders of one run, and where the example training lies.

The training runs on a copy in the run's folder, so that its frames and its command line read as a user's do.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from arobust_otel.demo.options import CannotRun

SCRIPT = "train_gpt.py"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a private folder is made in it


@dataclass(frozen=True, slots=True)
class Places:
    """Folders of one run, all private to the user.

    Attributes:
        run: working folder of the training, with its logs and the master's data.
        beacons: root of the beacon files.
        sockets: short path for the sockets by which the ranks get their order.
    """

    run: Path
    beacons: Path
    sockets: Path
    keep: bool

    @property
    def data(self) -> Path:
        """The master's data folder."""
        return self.run / "data"

    @property
    def journal(self) -> Path:
        """The journal inside it."""
        return self.data / "journal"

    @property
    def train_log(self) -> Path:
        """What the training writes about itself."""
        return self.run / "train.log"

    def remove(self) -> None:
        """Remove what nobody asked to keep; logs of the agent move beside the others otherwise."""
        if self.keep:
            for path in self.beacons.rglob("agent.*"):
                if path.is_file() and path.suffix in (".log", ".json"):
                    shutil.copy(path, self.run / path.name)
        for folder in (self.beacons, self.sockets, *(() if self.keep else (self.run,))):
            shutil.rmtree(folder, ignore_errors=True)


def make_places(keep: Path | None) -> Places:
    """Make the folders of a run.

    Raises:
        CannotRun: `keep` cannot be made, or has something in it.
    """
    try:
        if keep is not None:
            keep.mkdir(mode=0o700, parents=True, exist_ok=True)
            keep.chmod(0o700)
            if any(keep.iterdir()):
                raise CannotRun(f"--keep {keep}: the folder is not empty; name a new one")
        run = keep.resolve() if keep is not None else Path(tempfile.mkdtemp(prefix="train-gpt-"))
        return Places(run, _beacon_folder(run), Path(tempfile.mkdtemp(prefix="gpt-")), keep is not None)
    except OSError as error:
        raise CannotRun(f"no folder for the run: {error}") from error


def _beacon_folder(run: Path) -> Path:
    if os.access(SHARED_MEMORY, os.W_OK):
        return Path(tempfile.mkdtemp(prefix="gpt-", dir=SHARED_MEMORY))
    folder = run / "beacons"
    folder.mkdir(mode=0o700)
    return folder


def examples() -> Path:
    """The folder of examples: in the checkout, or in the installed package.

    Raises:
        CannotRun: neither is there.
    """
    here = Path(__file__).resolve().parent
    for folder in (here.parent.parent / "examples", here / "examples"):
        if (folder / SCRIPT).is_file():
            return folder
    raise CannotRun(f"the example training {SCRIPT} is not part of this installation")


def copy_script(places: Places) -> Path:
    """Put the training script into the run's folder."""
    return Path(shutil.copy(examples() / SCRIPT, places.run / SCRIPT))


def beside_interpreter(name: str) -> str | None:
    """A command of this environment: beside the interpreter, else on PATH."""
    path = Path(sys.executable).parent / name
    return str(path) if path.is_file() else shutil.which(name)
