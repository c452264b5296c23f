"""Write the boards; with ``--check`` say which are out of date and end with 1."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.source import health, job

FOLDER = Path(__file__).parent.parent
BOARDS = {"job.json": job.board, "master-and-agents.json": health.board}


def rendered(board: Any) -> str:
    """The board's Classic JSON: panels numbered in order, so that links to a panel stay valid."""
    values = json.loads(JSONEncoder(sort_keys=True).encode(board))
    for shown in (*values["links"], *values["annotations"].get("list", ())):
        shown.pop("placement", None)  # the builder hides them in a menu
    for number, panel in enumerate(values["panels"], start=1):
        panel["id"] = number
        for letter, target in zip("ABCDEFGH", panel.get("targets", ()), strict=False):
            target["refId"] = letter
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    stale = []
    for name, board in BOARDS.items():
        path, text = FOLDER / name, rendered(board())
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
            print(f"dashboards/{name} written")
    if stale and "--check" in arguments:
        print(f"out of date: {', '.join(stale)}; run `make dashboards`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
