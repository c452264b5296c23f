"""docs/master-client.md: its scripts run, and its tables say what the code says."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from arobust_otel import ClientSettings, MasterClient
from tests.agent.server import running
from tests.predecessor.test_api import NAMES, SIGNATURES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "master-client.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def table(heading: str) -> list[tuple[str, ...]]:
    """Rows of the table whose first heading begins so; without code marks."""
    after = TEXT[TEXT.index(f"| {heading}") :].split("\n\n")[0].splitlines()[2:]
    return [tuple(cell.strip().strip("`") for cell in line.strip("|").split(" | ")) for line in after]


def shown(parameter: inspect.Parameter) -> str:
    star = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(
        parameter.kind, ""
    )
    name = f"{star}{parameter.name}"
    if parameter.default is parameter.empty or callable(parameter.default):
        return name
    return f"{name}={parameter.default!r}"


def signature_of(target: Any, name: str) -> str:
    words, keyword_only = [], False
    for parameter in inspect.signature(target).parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            words.append("*")
        words.append(shown(parameter))
    return f"{name}({', '.join(words)})"


def test_there_are_scripts_and_tables() -> None:
    assert len(SNIPPETS) == 4
    assert len(table("under")) > 20


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_each_script_of_the_manual_runs(number: int, tmp_path: Path) -> None:
    with running() as master:
        done = subprocess.run(
            [sys.executable, "-c", SNIPPETS[number]],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "AROBUST_MASTER": master.url},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert bool(master.accepted) is (
            "MasterClient()" in SNIPPETS[number] or "spool_dir" in SNIPPETS[number]
        )


@pytest.mark.parametrize(("path", "signature", "_"), table("under `arobust_otel.`"))
def test_signatures_of_the_manual_are_those_of_the_code(path: str, signature: str, _: str) -> None:
    found: Any = importlib.import_module("arobust_otel")
    for part in path.split("."):
        nested = f"{found.__name__}.{part}" if inspect.ismodule(found) else ""
        found = getattr(found, part, None) or importlib.import_module(nested)
    assert signature_of(found, path.rpartition(".")[2]) == signature


def test_every_name_of_the_predecessor_is_in_the_part_about_coming_from_it() -> None:
    part = TEXT[TEXT.index("## Coming from") :]
    names = {name for module in NAMES.values() for name in module.split()}
    methods = {path.rpartition(".")[2] for path in SIGNATURES if "." in path.rpartition(":")[2]}
    assert sorted(name for name in names | methods if not re.search(rf"\b{name}\b", part)) == []


def test_every_argument_and_setting_is_described_with_its_default() -> None:
    parameters = list(inspect.signature(MasterClient).parameters.values())
    given = [(p.name, getattr(p.default, "__name__", repr(p.default))) for p in parameters]
    assert [row[:2] for row in table("argument")] == given
    defaults = ClientSettings()
    settings = [(item.name, repr(getattr(defaults, item.name))) for item in fields(ClientSettings)]
    assert [row[:2] for row in table("setting of")] == settings


def test_methods_are_described_as_they_are() -> None:
    for signature, _ in table("method"):
        name = signature.partition("(")[0]
        assert signature_of(getattr(MasterClient, name), name) == signature
