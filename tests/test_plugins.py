"""How parts are found and made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from arobust_otel import plugins
from arobust_otel.errors import ConfigurationError
from arobust_otel.plugins import Collector, build, close, discover

ANNOUNCED = """
[arobust_otel.collectors]
{lines}
"""


@pytest.fixture
def announce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install a package that announces collectors by entry points."""

    def install(*lines: str) -> None:
        info = tmp_path / "infiniband-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: infiniband\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(ANNOUNCED.format(lines="\n".join(lines)))
        (tmp_path / "infiniband_parts.py").write_text(
            'class Fine:\n    """Counts errors of InfiniBand ports.\n\n    More.\n    """\n'
            '    name = "infiniband"\n    def collect(self, now, node):\n        return ()\n'
            "NOT_A_CLASS = 3\n"
        )
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    sys.modules.pop("infiniband_parts", None)


def test_built_in_collectors_are_found_by_walking_their_package() -> None:
    found = discover("collectors")
    assert {"beacons", "host", "logs", "processes"} <= set(found)
    assert list(found) == sorted(found)
    assert all(part.error == "" and part.summary for part in found.values())
    assert found["host"].origin == "arobust_otel.collectors.host"


def test_each_collector_carries_the_name_of_its_file_and_can_be_made_without_options() -> None:
    for name, part in discover("collectors").items():
        made = build(part)
        assert isinstance(made, Collector)
        assert made.name == name
        close(made)


def test_options_are_those_of_the_class_and_others_are_refused_with_the_right_ones() -> None:
    part = discover("collectors")["processes"]
    assert "stalled_seconds" in part.options()
    assert not any(option.startswith("_") for option in part.options())
    made = build(part, {"stalled_seconds": 9.0})
    assert made.stalled_seconds == 9.0
    close(made)
    with pytest.raises(ConfigurationError, match=r"collectors\.processes\.staled_seconds.*stalled_seconds"):
        build(part, {"staled_seconds": 9.0})


def test_parts_of_other_packages_are_announced_by_entry_points(announce) -> None:
    announce("infiniband = infiniband_parts:Fine")
    part = discover("collectors")["infiniband"]
    assert part.origin == "infiniband"
    assert part.summary == "Counts errors of InfiniBand ports."
    assert build(part).name == "infiniband"
    with pytest.raises(ConfigurationError, match="no option at all"):
        build(part, {"x": 1})


def test_a_part_that_does_not_load_is_listed_with_its_reason_and_hides_no_other(announce) -> None:
    announce(
        "broken = infiniband_parts:Missing",
        "odd = infiniband_parts:NOT_A_CLASS",
        "ib = infiniband_parts:Fine",
    )
    found = discover("collectors")
    assert "Missing" in found["broken"].error
    assert "not a class" in found["odd"].error
    assert found["ib"].error == ""
    with pytest.raises(ConfigurationError, match="a part that loads"):
        build(found["broken"])


def test_a_module_that_is_a_script_ends_nobody(announce, tmp_path: Path) -> None:
    (tmp_path / "a_script.py").write_text("import sys\nsys.exit(3)\n")
    announce("script = a_script:Part", "ib = infiniband_parts:Fine")
    found = discover("collectors")
    assert found["script"].error == "ImportError: importing it ends the program (exit code 3)"
    assert found["ib"].error == ""


def test_two_parts_with_one_name_are_refused(announce) -> None:
    announce("host = infiniband_parts:Fine")
    with pytest.raises(ConfigurationError, match="has not taken; infiniband announces it, too"):
        discover("collectors")


def test_an_unknown_group_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="collectors, rules, forwarders"):
        discover("colectors")


def test_close_is_optional() -> None:
    close(object())


def test_importing_the_protocols_loads_nothing_heavy() -> None:
    heavy = {"numpy", "psutil", "opentelemetry.sdk", "grpc"}
    code = f"import sys, arobust_otel.plugins; print({heavy} & set(sys.modules))"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    root = Path(plugins.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
