"""Rules of this code base that no linter knows. Import directions are in pyproject.toml (import-linter)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from arobust_otel.model.signals import DICTIONARY
from arobust_otel.plugins import GROUPS, discover

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "arobust_otel"
FILE_LINES = 500
FUNCTION_LINES = 60
PARAMETERS = 5

# What rules and state may import beside the standard library's pure modules.
PURE = (
    "__future__", "arobust_otel.model", "arobust_otel.state", "arobust_otel.errors", "base64", "bisect",
    "collections", "dataclasses", "enum", "functools", "hashlib", "importlib", "io", "itertools", "json",
    "math", "numpy", "operator", "re", "signal", "statistics", "struct", "typing", "zlib",
)  # fmt: skip

# Never in what a training process loads: each costs milliseconds, memory or threads there.
HEAVY = (
    "click", "google.protobuf", "grpc", "http.server", "httptools", "numpy", "opentelemetry.exporter",
    "opentelemetry.sdk", "psutil", "pynvml", "requests", "rich", "sqlite3", "starlette", "urllib3", "uvicorn",
)  # fmt: skip

# Names that a telemetry literal may start with; other text with dots is a file, a host or a module.
TELEMETRY = re.compile(
    r"(arobust|process|system|hw|exception|code|thread|service|host|log\.file|disk|network)\.[a-z_.]+"
)
# Modules that define or speak about names rather than use them; dotted logger, module and key names.
DEFINES_NAMES = ("model/signals.py", "model/device_signals.py", "model/identity.py")
NOT_TELEMETRY = re.compile(r"arobust\.(toml|egg-info)|host\.[a-z]+\.internal|process\.py|log\.file")

FORBIDDEN_WORDS = (
    "/wo" + "rk/",
    "/ro" + "ot/",
    "pyp" + "i.org/simple",
    "files.python" + "hosted",
    "dev-" + "venv",
)


@cache
def tracked() -> tuple[Path, ...]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return tuple(path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file())


def sources() -> tuple[Path, ...]:
    return tuple(sorted(PACKAGE.rglob("*.py")))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def short(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "arobust_otel":
                yield from (f"arobust_otel.{alias.name}" for alias in node.names)
            else:
                yield node.module


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_no_file_is_longer_than_500_lines() -> None:
    files = [path for path in tracked() if path.suffix == ".py"]
    long = {path.name: lines for path in files if (lines := path.read_text().count("\n")) > FILE_LINES}
    assert long == {}


def test_no_function_is_longer_than_60_lines() -> None:
    long = {
        f"{short(path)}:{function.name}": lines
        for path in sources()
        for function in functions(path)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES
    }
    assert long == {}


def test_five_parameters_then_a_value_object() -> None:
    """Commands are exempt: click gives one parameter per option."""
    many = [
        f"{short(path)}:{function.name}"
        for path in sources()
        if "commands" not in path.parts
        for function in functions(path)
        if len([a for a in function.args.posonlyargs + function.args.args if a.arg not in ("self", "cls")])
        > PARAMETERS
    ]
    assert many == []


def broad(handler: ast.ExceptHandler) -> bool:
    """Catches everything and keeps it; cleaning up and raising again is fine."""
    if isinstance(last := handler.body[-1], ast.Raise) and last.exc is None:
        return False
    if handler.type is None:
        return True
    names = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(name, ast.Name) and name.id in ("Exception", "BaseException") for name in names)


def test_unexpected_exceptions_are_contained_in_guard_only() -> None:
    found = [
        f"{short(path)}:{node.lineno}"
        for path in sources()
        if path.name != "guard.py"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler) and broad(node)
    ]
    assert found == []


def test_every_module_says_what_lives_there_and_postpones_annotations() -> None:
    for path in sources():
        module = tree(path)
        assert ast.get_docstring(module), f"{short(path)} has no docstring"
        if any(not isinstance(node, ast.Expr) for node in module.body):
            assert "from __future__ import annotations" in path.read_text(), short(path)


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """Texts in code; docstrings and names of loggers are left out."""
    other = {
        id(argument)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "logging.getLogger"
        for argument in node.args
    }
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree(path)):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in documentation | other
        ):
            yield node.lineno, node.value


def test_telemetry_names_come_from_the_dictionary() -> None:
    """A name is written once, in model/signals.py; everybody else imports it."""
    found = [
        f"{short(path)}:{line} {text!r}"
        for path in sources()
        if short(path) not in DEFINES_NAMES
        for line, text in literals(path)
        if text in DICTIONARY or (TELEMETRY.fullmatch(text) and not NOT_TELEMETRY.fullmatch(text))
    ]
    assert found == []


@pytest.mark.parametrize("layer", ["rules", "state"])
def test_what_must_replay_imports_pure_modules_only(layer: str) -> None:
    found = {
        short(path): impure
        for path in (PACKAGE / layer).rglob("*.py")
        if (impure := [name for name in imports(path) if not within(name, PURE)])
    }
    assert found == {}


def test_the_model_needs_the_standard_library_only() -> None:
    allowed = ("__future__", "arobust_otel.model", "arobust_otel.errors", *sys.stdlib_module_names)
    found = {
        short(path): foreign
        for path in (PACKAGE / "model").rglob("*.py")
        if (foreign := [name for name in imports(path) if not within(name, allowed)])
    }
    assert found == {}


def test_guard_is_the_only_place_that_ignores_a_linter_about_it() -> None:
    found = [
        short(path)
        for path in sources()
        if "noqa: BLE001" in path.read_text() or "# noqa\n" in path.read_text()
    ]
    assert found == []


def test_a_training_process_loads_nothing_heavy() -> None:
    """In a fresh interpreter: the package, the model, and all of `training`."""
    names = [f"arobust_otel.model.{path.stem}" for path in (PACKAGE / "model").glob("[a-z]*.py")]
    names += [
        f"arobust_otel.training.{path.stem}"
        for path in (PACKAGE / "training").glob("[a-z]*.py")
        if path.stem != "detector"  # a class of the SDK: only a process that runs the SDK loads it
    ]
    code = (
        "import sys, importlib\n"
        f"[importlib.import_module(name) for name in ['arobust_otel', *{names!r}]]\n"
        "print('\\n'.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    heavy = sorted(name for name in done.stdout.split() if within(name, HEAVY))
    assert heavy == []


def test_training_says_so_where_it_needs_the_sdk() -> None:
    found = [
        short(path)
        for path in (PACKAGE / "training").rglob("*.py")
        if any(within(name, ("opentelemetry.sdk", "opentelemetry.exporter")) for name in imports(path))
    ]
    assert found in ([], ["training/detector.py"])


@pytest.mark.parametrize("group", GROUPS)
def test_every_part_has_its_own_test_and_a_summary(group: str) -> None:
    for name, part in discover(group).items():
        assert part.target is not None, f"{group}.{name} does not load: {part.error}"
        assert (ROOT / "tests" / group / f"test_{name}.py").exists(), (
            f"tests/{group}/test_{name}.py is missing"
        )
        assert part.summary, f"{group}.{name} has no docstring"


def test_tracked_files_name_no_machine() -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {word}" for word in FORBIDDEN_WORDS if word in text]
    assert found == []
