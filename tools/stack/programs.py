"""The programs of other projects that tests run: found in the cache folder, or built there from Go modules.

    python -m tools.stack.programs            build what is missing (or only those that are named)
    python -m tools.stack.programs --list     say which are there, and where; exit code 1 where one is missing

One table pins them; the folder of a program carries a hash of its row and its module files, so that another
version is another folder. A half-built program is never found: it is built aside and renamed at the end.
Building all takes some 25 minutes on two cores and 10 GB of Go's own caches, once.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

MODULES = Path(__file__).parent
MODULE_FILES = ("go.mod", "go.sum", "builder.yaml")
PROGRESS_SECONDS = 15.0
LINES_OF_FAILURE = 30
REMEDY = "install Go 1.26 or later (https://go.dev/doc/install) and run `make stack-programs`"

Say = Callable[[str], None]


class CannotBuild(Exception):
    """A program is not there and could not be built; the message says why and what would help."""


@dataclass(frozen=True, slots=True)
class Program:
    """One row: what it is called, which version, and how it is built.

    Attributes:
        module: folder beside this file with go.mod and go.sum.
        package: import path of its main package; a dot where sources are generated first.
        asks: arguments that make it print its version and end.
        version_variable: where the linker writes the version, for programs that do not know it else.
        generator: package of a program that writes the sources from builder.yaml.
    """

    name: str
    version: str
    module: str
    package: str
    asks: tuple[str, ...]
    tags: str = ""
    version_variable: str = ""
    generator: str = ""

    @property
    def words(self) -> str:
        """For messages."""
        return f"{self.name} {self.version}"


COMMON_VERSION = "github.com/prometheus/common/version.Version"
SLIM = "remove_all_sd"  # without service discovery of clouds, the bulk of the build
PROMETHEUS = Program(
    "prometheus", "3.16.0", "prometheus", "github.com/prometheus/prometheus/cmd/prometheus",
    ("--version",), SLIM, COMMON_VERSION,
)  # fmt: skip
ALERTMANAGER = Program(
    "alertmanager", "0.31.1", "alertmanager", "github.com/prometheus/alertmanager/cmd/alertmanager",
    ("--version",), "", COMMON_VERSION,
)  # fmt: skip
PROGRAMS: tuple[Program, ...] = (
    replace(PROMETHEUS, name="promtool", package="github.com/prometheus/prometheus/cmd/promtool"),
    PROMETHEUS,
    replace(PROMETHEUS, name="prometheus2", version="2.55.1", module="prometheus2"),  # the last before 3
    ALERTMANAGER,
    replace(ALERTMANAGER, name="amtool", package="github.com/prometheus/alertmanager/cmd/amtool"),
    Program(
        "otelcol", "0.149.0", "otelcol", ".", ("--version",),
        generator="go.opentelemetry.io/collector/cmd/builder@v0.149.0",
    ),
    Program("jaeger", "1.62.0", "jaeger", "github.com/jaegertracing/jaeger/cmd/jaeger", ("version",)),
    Program(
        "loki", "3.7.8", "loki", "github.com/grafana/loki/v3/cmd/loki",
        ("-version",), "", "github.com/grafana/loki/v3/pkg/util/build.Version",
    ),
)  # fmt: skip
BY_NAME = {program.name: program for program in PROGRAMS}


def default_cache(environ: Mapping[str, str] = os.environ) -> Path:
    """`AROBUST_CACHE`, else ``arobust`` in the user's cache folder; below it ``stack``."""
    if environ.get("AROBUST_CACHE"):
        return Path(environ["AROBUST_CACHE"]) / "stack"
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "arobust" / "stack"


def folder_of(program: Program, cache: Path, modules: Path = MODULES) -> Path:
    """Where this version of the program lies, or will."""
    digest = hashlib.sha256(repr(program).encode())
    for name in MODULE_FILES:
        path = modules / program.module / name
        digest.update(path.read_bytes() if path.exists() else b"-")
    return cache / f"{program.name}-{program.version}-{digest.hexdigest()[:12]}"


def find(name: str, cache: Path | None = None, modules: Path = MODULES) -> Path | None:
    """The finished program, or None where it was not built yet."""
    program = BY_NAME[name]
    path = folder_of(program, cache or default_cache(), modules) / name
    return path if path.is_file() else None


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds into `cache` what it does not hold, one program at a time, one builder at a time."""

    cache: Path
    say: Say
    modules: Path = MODULES

    def ensure(self, program: Program) -> Path:
        """The program, built where it is not there yet.

        Raises:
            CannotBuild: no Go, or Go failed; its last words are in the message.
        """
        folder = folder_of(program, self.cache, self.modules)
        if not (folder / program.name).is_file():
            self.cache.mkdir(parents=True, exist_ok=True)
            with _lock(self.cache / "build.lock", self.say):
                if not (folder / program.name).is_file():
                    self._build(program, folder)
        return folder / program.name

    def _build(self, program: Program, folder: Path) -> None:
        go = shutil.which("go")
        if go is None:
            raise CannotBuild(f"{program.words} is not built and there is no Go on PATH: {REMEDY}")
        begun = time.monotonic()
        self.say(f"{program.words}: building ...")
        partial = Path(tempfile.mkdtemp(prefix=f".partial-{program.name}-", dir=self.cache))
        try:
            binary = partial / program.name
            source = self._sources(program, go, partial)
            self._run([go, *build_arguments(program, binary)], source, program)
            self._run([str(binary), *program.asks], source, program)
            shutil.rmtree(partial / "source")
            shutil.rmtree(folder, ignore_errors=True)
            partial.chmod(0o755)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self.say(f"{program.words}: built in {time.monotonic() - begun:.0f} s")

    def _sources(self, program: Program, go: str, partial: Path) -> Path:
        """A folder to build in, with the pinned module files; generated sources join them."""
        source = partial / "source"
        source.mkdir()
        module = self.modules / program.module
        if program.generator:
            listed = (module / "builder.yaml").read_text(encoding="utf-8")
            recipe = partial / "recipe.yaml"
            recipe.write_text(
                listed.replace("dist:\n", f"dist:\n  output_path: {source}\n"), encoding="utf-8"
            )
            command = [go, "run", program.generator, "--skip-get-modules", "--skip-compilation"]
            self._run([*command, "--config", str(recipe)], partial, program)
        for name in ("go.mod", "go.sum"):
            shutil.copy(module / name, source / name)
        return source

    def _run(self, command: Sequence[str], folder: Path, program: Program) -> None:
        """Run a step; its lines are counted for the screen and shown where it fails."""
        environ = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
        with (folder / "step.log").open("wb+") as log:
            process = subprocess.Popen(
                command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            try:
                code = _watch(process, Path(log.name), program.words, self.say)
            except BaseException:
                process.kill()
                process.wait()
                raise
        if code:
            lines = Path(log.name).read_text(encoding="utf-8", errors="replace").splitlines()
            said = "\n".join(lines[-LINES_OF_FAILURE:])
            raise CannotBuild(f"{program.words}: `{' '.join(command[:3])} ...` ended with {code}:\n{said}")


def build_arguments(program: Program, binary: Path) -> list[str]:
    """Arguments of `go` for one program."""
    linker = "-s -w"
    if program.version_variable:
        linker += f" -X {program.version_variable}={program.version}"
    tags = ["-tags", program.tags] if program.tags else []
    wanted = ["build", "-v", "-mod=readonly", "-trimpath", "-buildvcs=false", *tags, "-ldflags", linker]
    return [*wanted, "-o", str(binary), program.package]


def _watch(process: subprocess.Popen[bytes], log: Path, words: str, say: Say) -> int:
    """Wait, saying now and then how many lines (packages, downloads) there are; returns the exit code."""
    begun = time.monotonic()
    while True:
        try:
            return process.wait(PROGRESS_SECONDS)
        except subprocess.TimeoutExpired:
            lines = log.read_bytes().splitlines()
            last = lines[-1].decode("utf-8", "replace")[:80] if lines else "resolving modules"
            say(f"{words}: {time.monotonic() - begun:4.0f} s, {len(lines)} packages, {last}")


@contextmanager
def _lock(path: Path, say: Say) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is building: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _list(names: Sequence[str]) -> int:
    paths = {name: find(name) for name in names}
    for name, path in paths.items():
        print(f"{BY_NAME[name].words:24} {path or 'not built'}")
    return 0 if all(paths.values()) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Build or list; 0 where all is there, 1 where something is missing, 2 where it cannot be built."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(BY_NAME)}")
    parser.add_argument("--list", action="store_true", help="build nothing")
    options = parser.parse_args(arguments)
    names = options.names or list(BY_NAME)
    if unknown := [name for name in names if name not in BY_NAME]:
        parser.error(f"{unknown[0]} is not one of {', '.join(BY_NAME)}")
    if options.list:
        return _list(names)
    builder = Builder(default_cache(), _say)
    try:
        for name in names:
            builder.ensure(BY_NAME[name])
    except CannotBuild as error:
        _say(str(error))
        return 2
    _say(f"All {len(names)} programs are in {builder.cache}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
