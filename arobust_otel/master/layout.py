"""Where a master keeps what: one folder, readable by its user only."""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arobust_otel.errors import ConfigurationError
from arobust_otel.journal.durable import make_private_folder, write_atomically

PREVIOUS_SECONDS = 15.0  # how long the roles of a master that was killed may take to end
SOCKET_PATH_BYTES = 107  # what Linux takes as the path of a unix socket


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths in a data folder."""

    data_dir: Path

    @property
    def journal(self) -> Path:
        """Segments of the journal."""
        return self.data_dir / "journal"

    @property
    def snapshots(self) -> Path:
        """Snapshots of the judge."""
        return self.data_dir / "snapshots"

    @property
    def cursors(self) -> Path:
        """How far each forwarder has come."""
        return self.data_dir / "cursors"

    @property
    def run(self) -> Path:
        """What only a running master needs."""
        return self.data_dir / "run"

    @property
    def outputs_socket(self) -> Path:
        """Where the judge hands its outputs to the receiver."""
        return self.run / "outputs.sock"

    @property
    def deliveries(self) -> Path:
        """Counters of the deliverer, for the query API."""
        return self.run / "deliver.json"

    @property
    def receptions(self) -> Path:
        """Counters of the receiver, for the judge and for the master's own metrics."""
        return self.run / "receive.json"

    @property
    def judging(self) -> Path:
        """How far the judge is, for the master's own metrics."""
        return self.run / "judge.json"

    @property
    def master(self) -> Path:
        """Addresses and process ids of the running master; there only while it is ready."""
        return self.data_dir / "master.json"

    @property
    def incidents(self) -> Path:
        """Final incidents of the last regular end, in the form of a replay."""
        return self.data_dir / "incidents.jsonl"

    def make(self) -> None:
        """Make the folders, mode 0700.

        Raises:
            ConfigurationError: they cannot be made, or the path is too long for a socket in it.
        """
        try:
            make_private_folder(self.data_dir)
            make_private_folder(self.run)
        except OSError as error:
            reason = f"a folder that can be written ({error.strerror})"
            raise ConfigurationError("data_dir", str(self.data_dir), reason) from None
        if len(os.fsencode(self.outputs_socket)) > SOCKET_PATH_BYTES:
            expected = (
                f"a path of at most {SOCKET_PATH_BYTES - len('/run/outputs.sock')} bytes (it holds a socket)"
            )
            raise ConfigurationError("data_dir", str(self.data_dir), expected)

    def lock(self) -> int:
        """Lock the folder against another master; roles inherit the handle, so it is free when all ended.

        Raises:
            ConfigurationError: another master runs here.
        """
        handle = os.open(self.data_dir / "master.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        deadline = time.monotonic() + PREVIOUS_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                pid = self.running_pid()
                if pid is not None or time.monotonic() > deadline:
                    os.close(handle)
                    raise self._taken(pid) from None
                time.sleep(0.05)  # the roles of a master that was killed are about to end
                continue
            self.master.unlink(missing_ok=True)
            return handle

    def running_pid(self) -> int | None:
        """Process id of the master that `master.json` names, None where it does not run."""
        pid = read_json(self.master).get("pid")
        if not isinstance(pid, int):
            return None
        try:
            stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        except OSError:
            return None
        dead = stat.rpartition(") ")[2].startswith(("Z", "X"))
        return None if dead else pid

    def _taken(self, pid: int | None) -> ConfigurationError:
        who = f"process {pid}" if pid else "another master"
        return ConfigurationError(
            "data_dir",
            str(self.data_dir),
            f"a folder of its own: {who} uses this one; end it, or name another",
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file that another process replaces atomically; empty where there is none."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Replace a JSON file atomically."""
    write_atomically(path, json.dumps(values, sort_keys=True).encode() + b"\n")
