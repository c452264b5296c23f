"""Commands of the guides, as the tests run them: what stands there is what was run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

GUIDES = Path(__file__).parents[2] / "docs"
FILES = Path(__file__).parents[2] / "collector_config"
NAMES = ("prometheus.md", "loki.md", "traces.md", "collector.md")
DAEMONS = ("prometheus", "alertmanager", "loki", "jaeger", "otelcol")
_ASSIGNED = re.compile(r"\w+=")
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every command of the guides, in words."""
    found = []
    for name in NAMES:
        for block in _BLOCK.findall((GUIDES / name).read_text(encoding="utf-8")):
            lines = [line for line in block.splitlines() if line and not line.startswith(("#", "export "))]
            found += [_without_environment(shlex.split(line)) for line in lines]
    return found


def environment(name: str) -> dict[str, str]:
    """Variables that stand before a program where a guide starts it."""
    texts = [(GUIDES / page).read_text(encoding="utf-8") for page in NAMES]
    (before,) = [
        found for text in texts for found in re.findall(rf"^((?:\w+=\S+ )*){name} --?config", text, re.M)
    ]
    return dict(word.split("=", 1) for word in before.split())


def _without_environment(words: list[str]) -> list[str]:
    return words[next(place for place, word in enumerate(words) if not _ASSIGNED.match(word)) :]


def starts(name: str) -> list[str]:
    """Arguments with which a guide starts a program."""
    (arguments,) = [words[1:] for words in commands() if words[0] == name and "validate" not in words]
    return arguments


def headers() -> list[tuple[str, list[str]]]:
    """(file, words) of every command in the heads of the configuration files."""
    found = []
    for path in sorted(FILES.glob("*.y*ml")):
        text = path.read_text(encoding="utf-8").replace("\\\n#", "")
        lines = [line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#   ")]
        found += [(path.name, words) for line in lines if (words := _command(line))]
    return found


def _command(line: str) -> list[str]:
    """Words of a line that starts a program, else none; an apostrophe in prose is no mistake."""
    start = re.match(rf"(?:\w+=\S+ )*(?:{'|'.join(DAEMONS)}) ", line)
    return _without_environment(shlex.split(line)) if start else []


def checks() -> list[list[str]]:
    """Commands that look at a file and end."""
    return [words for words in commands() if words not in questions() and words[0] not in DAEMONS] + [
        words for words in commands() if "validate" in words
    ]


def questions() -> list[list[str]]:
    """Commands that ask a running program."""
    return [words for words in commands() if any("http://127.0.0.1:" in word for word in words)]


def placed(words: list[str], replaced: Mapping[str, str]) -> list[str]:
    """The same command with other addresses and folders."""
    for old, new in replaced.items():
        words = [word.replace(old, new) for word in words]
    return words
