"""What stands in the heads of the configuration files: run so, nothing listens to other machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stack import guides
from tests.stack.running import CONFIG, free_ports, listens_beyond, running

# Programs that get their address from the command; the others get it from their files.
PORTS = {"prometheus": "127.0.0.1:9090", "alertmanager": "127.0.0.1:9093"}
STARTS = [(file, words) for file, words in guides.headers() if words[0] in PORTS]


def test_the_commands_are_found() -> None:
    assert [(file, words[0]) for file, words in STARTS] == [
        ("alertmanager.yml", "alertmanager"),
        ("otelcol-prometheus-2.yaml", "prometheus"),
        ("prometheus-2.yml", "prometheus"),
        ("prometheus.yml", "prometheus"),
    ]


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(("file", "words"), STARTS, ids=[file for file, _ in STARTS])
def test_started_as_its_file_says_it_listens_on_this_machine_only(
    file: str, words: list[str], tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    name = "prometheus2" if "prometheus-2" in file else words[0]
    places = {PORTS[words[0]]: f"127.0.0.1:{port}", "collector_config/": f"{CONFIG}/"}
    arguments = guides.placed(words[1:], places)
    with running(name, arguments, tmp_path, f"http://127.0.0.1:{port}/-/ready") as process:
        assert listens_beyond(process.pid) == []
