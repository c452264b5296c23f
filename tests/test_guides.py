"""Settings that the guides show are accepted as they stand there, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from arobust_otel.config import load_file, master_settings
from tests.stack import guides

_TOML = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!http)([^)#]+)")
PAGES = [
    *(guides.GUIDES / name for name in guides.NAMES),
    guides.GUIDES.parent / "collector_config" / "README.md",
    guides.GUIDES.parent / "dashboards" / "README.md",
]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_its_settings_are_accepted(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(_TOML.findall(page.read_text(encoding="utf-8"))):
        file = tmp_path / f"{number}.toml"
        file.write_text(block, encoding="utf-8")
        assert master_settings(load_file(file)).forwarders


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_its_links_and_files_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in _LINK.findall(text):
        assert (page.parent / link).exists(), link
    for name in re.findall(r"collector_config/[\w./-]+\.ya?ml", text):
        assert (guides.GUIDES.parent / name).is_file(), name


def test_every_program_that_a_guide_starts_has_one_way_to_be_started() -> None:
    assert {name: bool(guides.starts(name)) for name in guides.DAEMONS} == dict.fromkeys(guides.DAEMONS, True)
