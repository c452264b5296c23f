"""The builder of foreign programs, with a little script in the place of Go."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.stack import programs
from tools.stack.programs import PROMETHEUS, Builder, CannotBuild, folder_of

# Notes each build, and "compiles" a program that says its version.
GO = """#!/bin/sh
echo "$@" >> {notes}
while [ "$#" -gt 1 ]; do
  case "$1" in -o) shift; printf '#!/bin/sh\\necho version 1\\n' > "$1"; chmod 755 "$1";; esac
  shift
done
{then}
"""


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    folder = tmp_path / "modules" / "prometheus"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module x\n")
    (folder / "go.sum").write_text("")
    return folder.parent


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a Go on PATH that does the given thing at its end; its notes are one line per call."""

    def put(then: str) -> Path:
        folder, notes = tmp_path / "bin", tmp_path / "notes"
        folder.mkdir(exist_ok=True)
        (folder / "go").write_text(GO.format(notes=notes, then=then))
        (folder / "go").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return notes

    return put


def test_every_program_has_its_module_files() -> None:
    for program in programs.PROGRAMS:
        assert (programs.MODULES / program.module / "go.mod").is_file(), program.name


def test_what_is_built_is_found_and_not_built_again(
    tmp_path: Path, modules: Path, go: Callable[[str], Path]
) -> None:
    notes, said = go("exit 0"), list[str]()
    builder = Builder(tmp_path / "cache", said.append, modules)
    path = builder.ensure(PROMETHEUS)
    assert path.read_text().startswith("#!/bin/sh")
    assert builder.ensure(PROMETHEUS) == path == programs.find("prometheus", tmp_path / "cache", modules)
    assert len(notes.read_text().splitlines()) == 1
    assert said[0] == "prometheus 3.16.0: building ..."
    assert sorted(entry.name for entry in (tmp_path / "cache").iterdir()) == ["build.lock", path.parent.name]


def test_another_pin_is_another_folder(tmp_path: Path, modules: Path) -> None:
    before = folder_of(PROMETHEUS, tmp_path, modules)
    (modules / "prometheus" / "go.sum").write_text("example.org/a v1 h1:other\n")
    assert folder_of(PROMETHEUS, tmp_path, modules) != before


def test_without_go_it_says_what_would_help(
    tmp_path: Path, modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotBuild, match=r"no Go on PATH: install Go 1\.26 or later"):
        Builder(tmp_path / "cache", lambda _: None, modules).ensure(PROMETHEUS)


def test_a_failed_build_shows_the_last_words_and_is_never_found(
    tmp_path: Path, modules: Path, go: Callable[[str], Path]
) -> None:
    go("echo 'undefined: flux' >&2; exit 1")
    with pytest.raises(CannotBuild, match="undefined: flux"):
        Builder(tmp_path / "cache", lambda _: None, modules).ensure(PROMETHEUS)
    assert programs.find("prometheus", tmp_path / "cache", modules) is None
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == ["build.lock"]


def test_two_builders_build_once(tmp_path: Path, modules: Path, go: Callable[[str], Path]) -> None:
    notes = go("sleep 0.5")
    builder = Builder(tmp_path / "cache", lambda _: None, modules)
    threads = [threading.Thread(target=builder.ensure, args=(PROMETHEUS,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(notes.read_text().splitlines()) == 1
    assert programs.find("prometheus", tmp_path / "cache", modules) is not None
