"""The whole docker-compose.yml on a real engine, Grafana aside, and the questions that people ask.

Not collected by its name: `make test-compose` runs it. Images of other projects' programs hold what
`make stack-programs` built; what was not run is printed at the end.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from arobust_otel.demo.progress import Progress
from arobust_otel.demo.torch_env import ensure
from tests.stack.live import Addresses, Story
from tests.stack.running import until_answer
from tests.stack.whole_stack import (  # noqa: F401 - the same questions as to the stack without containers
    test_jaeger_has_the_incident_with_a_stack_of_each_rank_whose_text_is_in_loki,
    test_loki_has_the_training_lines,
    test_loki_has_the_verdict,
    test_prometheus_knows_the_incident_and_its_rank,
    test_prometheus_knows_the_step_of_every_rank,
    test_prometheus_sees_the_master_and_no_alert_says_that_it_is_blind,
    test_recording_rules_answer,
)
from tools.stack.engine import BASE, REMEDY, NoEngine, engine, make_base, make_program_image, missing

ROOT = Path(__file__).parents[2]
NOT_RUN = {"grafana": "its image cannot be built here; its boards are checked as files and by their queries"}
VERDICT_SECONDS = 300.0
pytestmark = [pytest.mark.stack, pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(900)]


def commands() -> list[list[str]]:
    """Words after `docker compose` in the guide's commands, in order."""
    text = (ROOT / "docs/compose.md").read_text(encoding="utf-8")
    lines = re.findall(r"^docker compose (.+)$", text, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def started() -> list[str]:
    """How the guide starts all."""
    (words,) = [words for words in commands() if words[0] == "up"]
    return words


class Compose:
    """docker-compose on our file, with the tests' additions."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        self._command = ["docker-compose", "--project-name", "arobust-test"]
        for path in (ROOT / "docker-compose.yml", ROOT / "tests/compose/override.yml"):
            self._command += ["--file", str(path)]

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=ROOT,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"docker-compose {' '.join(arguments)}:\n{done.stdout[-6000:]}"
        return done.stdout

    def inspected(self, service: str) -> dict[str, Any]:
        """What the engine says about the container of a service."""
        (container,) = self("ps", "--quiet", service).split()
        command = ["docker", "inspect", container]
        done = subprocess.run(command, env=self._environ, stdout=subprocess.PIPE, check=True)
        (found,) = json.loads(done.stdout)
        return dict(found)

    def incidents(self) -> list[dict[str, Any]]:
        """Open incidents, asked for inside the master's container."""
        ask = 'AROBUST_TOKEN="$(cat /identity/token)" arobust incidents --json'
        answer = json.loads(self("exec", "-T", "master", "sh", "-c", ask))
        rows = answer["incidents"] if isinstance(answer, dict) else answer
        return [row for row in rows if row["status"] == "open"]


def torch_folder() -> Path:
    """Where PyTorch lies: mounted into the training's container, whose Python is Debian's."""
    assert sys.version_info[:2] == (3, 11), (
        "the base image has Python 3.11, and PyTorch is that of this Python"
    )
    place = ensure()
    if place.python_path is not None:
        return place.python_path
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parents[1]


@contextlib.contextmanager
def up(progress: Progress) -> Iterator[Compose]:
    """Everything but Grafana, until the test ends."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    torch = torch_folder()
    added = {
        "AROBUST_BASE_IMAGE": BASE,
        "AROBUST_TORCH": "",
        "AROBUST_TEST_TORCH": str(torch),
        "COMPOSE_PROFILES": "",
    }
    with engine(progress.say) as environ:
        make_base(environ, progress.say)
        for name, service in services.items():
            if name not in NOT_RUN and not service["image"].startswith("arobust-otel"):
                make_program_image(service["image"], environ, progress.say)
        compose = Compose({**environ, **added})
        progress.say("building our own images, and starting all")
        try:
            compose(*started(), "--detach")
            progress.say("all services are started")
            yield compose
        except BaseException:
            print(compose("ps"), compose("logs", "--no-color", "--tail", "40"))
            raise
        finally:
            compose("down", "--volumes", "--timeout", "20")


@pytest.fixture(scope="module")
def compose() -> Iterator[Compose]:
    if lacking := missing():
        pytest.skip(f"no Docker engine can be started: {', '.join(lacking)} missing ({REMEDY})")
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(up(Progress()))
        except NoEngine as error:
            pytest.skip(str(error))
        yield found


@pytest.fixture(scope="module")
def story(compose: Compose) -> Story:
    progress = Progress()
    (incident, *_) = until_answer("an open incident", compose.incidents, VERDICT_SECONDS)
    progress.say(incident["summary"])
    at = Addresses(
        prometheus="http://127.0.0.1:9090",
        loki="http://127.0.0.1:3100",
        traces="",
        jaeger="http://127.0.0.1:16686",
        alertmanager="http://127.0.0.1:9093",
        gateway="",
        scraped="",
    )
    return Story(at, None, None, incident, progress)  # type: ignore[arg-type] # asked by containers' ports alone


def test_the_verdict_names_the_rank_and_the_line_that_hangs(story: Story) -> None:
    assert story.incident["cause"] == "hang_user_code"
    assert [culprit["rank"] for culprit in story.incident["culprits"]] == [2]
    assert "read_shard() stuck_reader.py" in story.incident["summary"]


def test_the_guides_command_shows_the_verdict(compose: Compose, story: Story) -> None:
    (words,) = [words for words in commands() if words[0] == "exec"]
    said = compose(words[0], "-T", *words[1:])
    assert "hang_user_code" in said
    assert story.incident["id"] in said


def test_whatever_can_be_asked_is_healthy(compose: Compose) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    asked = [name for name, service in services.items() if "healthcheck" in service and name not in NOT_RUN]
    assert {"master", "prometheus", "loki", "jaeger", "alertmanager"} <= set(asked)
    for service in asked:
        until_answer(
            f"{service} is healthy",
            lambda service=service: compose.inspected(service)["State"]["Health"]["Status"] == "healthy",
        )


def test_the_pager_is_told(story: Story, compose: Compose) -> None:
    words = until_answer(
        "the alert",
        lambda: "ArobustHangUserCode" in (text := compose("logs", "--no-color", "pager")) and text,
    )
    assert "FIRING" in words
    assert "ArobustWatchdog" not in words  # it wakes nobody


def test_the_collectors_queue_is_in_its_volume(compose: Compose) -> None:
    look = ("run", "--rm", "-T", "--no-deps", "--user", "10001:10001", "--entrypoint", "ls", "identity")
    assert "exporter_otlp_http" in compose(*look, "/queue")


def test_the_job_cannot_read_the_masters_key(compose: Compose) -> None:
    found = compose("exec", "-T", "training", "sh", "-c", "ls /identity; ls /master-identity || true")
    assert {"ca.pem", "master.pem", "token"} <= set(found.split())
    assert "master.key" not in found
    assert "master.toml" not in found


def test_a_second_start_keeps_who_is_who(compose: Compose) -> None:
    assert "kept from an earlier start" in compose("run", "--rm", "-T", "--no-deps", "identity")


def test_nothing_runs_as_root_or_was_killed(compose: Compose) -> None:
    """The one that makes keys may: it has no network and has ended."""
    for service in (
        "master",
        "collector",
        "prometheus",
        "loki",
        "jaeger",
        "alertmanager",
        "pager",
        "training",
    ):
        inspected = compose.inspected(service)
        assert inspected["State"]["Running"], service
        assert inspected["RestartCount"] == 0, service
        assert inspected["Config"]["User"].partition(":")[0] not in ("", "0", "root"), service


def test_what_was_not_run_is_said() -> None:
    for service, reason in NOT_RUN.items():
        print(f"not run: {service}: {reason}")
    assert set(NOT_RUN) == {"grafana"}
