"""The master's query API, asked as any client would: JSON over HTTP."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Api:
    """Where the master listens, as its `master.json` says it."""

    otlp_http: str
    api: str

    def incidents(self) -> list[dict[str, Any]] | None:
        """All incidents; None where the master did not answer."""
        return self._get("/api/v1/incidents", "incidents")

    def ranks(self) -> list[dict[str, Any]] | None:
        """All ranks that the master knows; None where it did not answer."""
        return self._get("/api/v1/ranks", "ranks")

    def _get(self, path: str, key: str) -> list[dict[str, Any]] | None:
        try:
            with urllib.request.urlopen(self.api + path, timeout=TIMEOUT_SECONDS) as reply:
                found: list[dict[str, Any]] = json.load(reply)[key]
                return found
        except (OSError, urllib.error.URLError, http.client.HTTPException, ValueError, KeyError):
            return None


def read_master_file(data: Path) -> Api | None:
    """The addresses of a master that is ready; None until it is."""
    try:
        content = json.loads((data / "master.json").read_text(encoding="utf-8"))
        return Api(content["otlp_http"], content["api"])
    except (OSError, ValueError, KeyError):
        return None
