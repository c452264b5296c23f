"""Documentation that cannot drift: what exists is described, and what is generated is fresh."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from arobust_otel import __version__
from arobust_otel.cli import COMMANDS
from arobust_otel.config import SECTIONS, AgentSettings, MasterSettings
from arobust_otel.docs import outdated
from arobust_otel.manual import HEADINGS, page
from arobust_otel.plugins import discover

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def text(*names: str) -> str:
    return "\n".join((ROOT / name).read_text(encoding="utf-8") for name in names)


def test_generated_pages_are_fresh() -> None:
    assert outdated(DOCS) == [], "run `make docs`"


@pytest.mark.parametrize("name", discover("rules"))
def test_every_rule_is_a_manual_page_with_all_sections(name: str) -> None:
    summary, sections = page(inspect.getdoc(discover("rules")[name].target) or "")
    assert summary.endswith(".")
    assert tuple(sections) == HEADINGS
    assert all(sections.values())


def test_a_manual_page_is_read_into_summary_and_sections() -> None:
    docstring = "One line.\n\nSees:\n    This and\n    that.\n\n    More: yes.\n\nSilent when:\n    Never."
    assert page(docstring) == ("One line.", {"Sees": "This and that.\n\nMore: yes.", "Silent when": "Never."})


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    assert f"arobust {name}" in text("README.md")


@pytest.mark.parametrize("settings", [MasterSettings, AgentSettings])
def test_every_setting_is_described(settings: type[MasterSettings | AgentSettings]) -> None:
    manual, names = text("docs/configuration.md"), [item.name for item in fields(settings)]
    missing = [name for name in names if f"`{name}`" not in manual and name not in SECTIONS]
    assert missing == []


def test_every_folder_of_the_package_is_on_the_map() -> None:
    folders = {path.parent.name for path in (ROOT / "arobust_otel").glob("*/__init__.py")}
    missing = [folder for folder in sorted(folders) if f"`{folder}/`" not in text("docs/architecture.md")]
    assert missing == []


def test_links_between_documents_lead_somewhere() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_make_targets_of_the_documents_exist() -> None:
    makefile = text("Makefile")
    for target in set(re.findall(r"`make ([a-z-]+)", text("README.md", "CONTRIBUTING.md"))):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"


def test_the_changelog_speaks_of_this_version_or_of_what_comes() -> None:
    assert re.search(rf"^## \[({re.escape(__version__)}|Unreleased)\]", text("CHANGELOG.md"), re.MULTILINE)


def test_decisions_say_context_choice_and_what_would_change_our_mind() -> None:
    for path in sorted((DOCS / "decisions").glob("*.md")):
        assert re.fullmatch(r"\d{3}-[a-z0-9-]+", path.stem), path.name
        for heading in ("Context", "Choice", "What would change our mind"):
            assert heading in path.read_text(encoding="utf-8"), f"{path.name}: {heading}"
