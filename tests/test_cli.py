"""The command line: what it prints, what it exits with, and what it says when something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result

from arobust_otel.cli import COMMANDS, cli

INCIDENT = {
    "id": "9c0d",
    "job_id": "job",
    "incarnation": 0,
    "rule": "hang",
    "cause": "hang_user_code",
    "status": "open",
    "first_evidence_at": "2026-01-01T12:00:00.000000Z",
    "opened_at": "2026-01-01T12:00:10.500000Z",
    "updated_at": "2026-01-01T12:00:11.000000Z",
    "resolved_at": None,
    "culprits": [{"rank": 2, "local_rank": 2, "role": "trainer", "pid": 4711, "node": "gpu-a"}],
    "victims": [0, 1, 3],
    "grade": "two_witnesses",
    "summary": "Rank 2 (gpu-a, pid 4711) in read_shard() data.py:88 for 10 s, the same stack twice.",
    "evidence": [],
    "unseen": [],
    "action": {"kind": "restart_worker", "target": "rank 2", "why": "it does not come back by itself"},
    "refuted_by": "step 4183 appears",
    "revisions": [],
}


class Answers(BaseHTTPRequestHandler):
    """Answers of a master's query API, fixed."""

    bodies: ClassVar[dict[str, Any]] = {
        "/api/v1/incidents": {"incidents": [INCIDENT]},
        "/api/v1/status": {"records": 12, "ticks": 10},
        "/api/v1/jobs": {
            "jobs": [
                {"job_id": "job", "incarnation": 0, "world_size": 4, "ranks_alive": 4, "open_incidents": 1}
            ]
        },
        "/api/v1/ranks": {
            "ranks": [{"rank": 2, "job_id": "job", "state": "running", "event_age_seconds": 12.0}]
        },
        "/api/v1/agents": [
            {
                "agent": "gpu-a/job",
                "last_heartbeat_at": "2026-01-01T12:00:11.000000Z",
                "collectors": [{"name": "stacks", "ok": False, "reason": "py-spy is not installed"}],
                "gaps": ["point-to-point traffic"],
                "stats": {
                    "delivered": 1204.0,
                    "dropped": 3.0,
                    "dropped.queue_full": 3.0,
                    "accepted": 1515.0,
                    "recovered": 4.0,
                    "queue_items": 12.0,
                    "queue_bytes": 6144.0,
                    "spool_items": 300.0,
                    "spool_bytes": 10240.0,
                    "oldest_age_seconds": 3.14,
                    "sends": 31.0,
                    "retries": 2.0,
                    "latency_seconds": 0.0042,
                    "bytes_raw": 40960.0,
                    "bytes_sent": 3072.0,
                    "circuit_open": 1.0,
                },
            }
        ],
    }

    token: ClassVar[str] = ""

    def do_GET(self) -> None:
        body = self.bodies.get(urlsplit(self.path).path)
        if self.token and self.headers.get("Authorization") != f"Bearer {self.token}":
            self.send_response(401)
        else:
            self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *values: object) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="arobust")


def test_help_names_every_command_and_what_it_is_for() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name, (_, line) in COMMANDS.items():
        assert name in result.output
        assert line in " ".join(result.output.split())


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "agent"])
def test_every_command_has_help(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: arobust {name}")


def test_the_module_runs_like_the_script() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "arobust_otel.cli", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "arobust, version 0.1.0\n")


def test_help_imports_no_numpy_no_sdk_and_no_server() -> None:
    code = (
        "import sys; from arobust_otel.cli import cli; cli(['--help'], standalone_mode=False); "
        "print([m for m in ('numpy', 'grpc', 'uvicorn', 'opentelemetry.sdk', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_list_shows_parts_with_state_and_summary() -> None:
    result = run("list")
    assert result.exit_code == 0, result.output
    line = next(line for line in result.output.splitlines() if line.split()[:1] == ["hang"])
    assert line.split()[1] == "ok"
    assert "stands still" in line


def test_list_as_json_has_the_options_of_a_rule() -> None:
    found = json.loads(run("list", "--json").output)
    hang = next(part for part in found["rules"] if part["name"] == "hang")
    assert hang["state"] == "ok"
    assert "idle_seconds" in hang["options"]


def test_explain_prints_all_four_sections_and_the_settings() -> None:
    result = run("explain", "hang")
    assert result.exit_code == 0
    for heading in ("Sees:", "Means:", "Do:", "Silent when:", "idle_seconds = "):
        assert heading in result.output


def test_explain_takes_a_dash_for_an_underscore_and_prints_json() -> None:
    found = json.loads(run("explain", "process-end", "--json").output)
    assert found["rule"] == "process_end"
    assert list(found["sections"]) == ["Sees", "Means", "Do", "Silent when"]


def test_explain_of_an_unknown_rule_offers_the_right_names() -> None:
    result = run("explain", "hag")
    assert result.exit_code == 2
    assert "did you mean hang?" in result.output


def test_check_config_shows_what_a_file_means(tmp_path: Path) -> None:
    path = tmp_path / "arobust.toml"
    path.write_text(
        '[master]\notlp_http = "127.0.0.1:0"\ntoken = "s3cret"\n[rules.hang]\nidle_seconds = 20\n'
    )
    result = run("check-config", str(path), "--json")
    assert result.exit_code == 0, result.output
    master = json.loads(result.output)["master"]
    assert (master["otlp_http"], master["rules"]) == ("127.0.0.1:0", {"hang": {"idle_seconds": 20.0}})
    assert "s3cret" not in run("check-config", str(path)).output


VENDOR = '[forwarders.v]\ntype = "otlp_http"\n'
HOOK = '[forwarders.c]\ntype = "webhook"\n'


@pytest.mark.parametrize(
    "text",
    [
        VENDOR + 'endpoint = "htps://user:s3cret@example.org"\n',
        VENDOR + 'endpoint = "user:s3cret@example.org"\n',
        VENDOR + 'endpoint = "http://a"\nheaders = "authorization=s3cret"\n',
        VENDOR + 'endpoint = "http://a"\nheaders = { "x-key" = "s3cret", "b" = 1 }\n',
        VENDOR + 'endpoint = "http://a"\nheders = { "x-key" = "s3cret" }\n',
        HOOK + 'url = "hooks.example.org/s3cret"\n',
        HOOK + 'url = "https://hooks.example.org/s3cret"\nsecret_file = "/none"\n',
        '[forwarders.a]\ntype = "alertmanager"\nurls = ["htp://user:s3cret@a"]\n',
        '[master]\ntokn = "s3cret"\n',
        '[master]\ntoken = ["s3cret"]\n',
    ],
)
def test_a_mistake_does_not_show_a_secret(tmp_path: Path, text: str) -> None:
    path = tmp_path / "arobust.toml"
    path.write_text(text)
    result = run("check-config", str(path))
    assert result.exit_code == 2
    assert "s3cret" not in result.output


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_check_config_shows_no_secret_of_a_destination(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = tmp_path / "arobust.toml"
    path.write_text(
        VENDOR
        + 'endpoint = "https://user:s3cret@example.org/otlp?key=s3cret"\nheaders = { "x-key" = "s3cret" }\n'
        + HOOK
        + 'url = "https://hooks.example.org/services/s3cret"\n'
    )
    result = run("check-config", str(path), *options)
    assert result.exit_code == 0, result.output
    assert "s3cret" not in result.output
    for text in ("https://example.org/otlp", "x-key", "https://hooks.example.org/"):
        assert text in result.output


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[master]\nsnc = true\n", "master.snc = True: expected a key among"),
        ("[engine]\ntick_second = 1\n", "engine.tick_second = 1: expected"),
        ('[rules.hang]\nidle_seconds = "x"\n', "rules.hang.idle_seconds = 'x': expected a number"),
        ('[forwarders.a]\ntype = "webhook"\n', "forwarders.a.url = '': expected a URL"),
        ("[agent]\nsample_seconds = 0\n", "agent.sample_seconds = 0: expected a number of at least 0.05"),
    ],
)
def test_check_config_names_a_mistake_and_exits_with_2(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "arobust.toml"
    path.write_text(text)
    result = run("check-config", str(path))
    assert result.exit_code == 2
    assert says in result.output


def test_check_config_without_a_file_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AROBUST_CONFIG", raising=False)
    result = run("check-config")
    assert result.exit_code == 2
    assert "AROBUST_CONFIG" in result.output


def test_a_wrong_master_flag_stops_before_anything_starts(tmp_path: Path) -> None:
    result = run("master", "--data-dir", str(tmp_path / "data"), "--otlp-http", "4318")
    assert result.exit_code == 2
    assert "--otlp-http = '4318': expected HOST:PORT" in result.output
    assert not (tmp_path / "data").exists()


def test_a_rank_outside_the_job_is_refused_by_the_demo() -> None:
    result = run("demo", "--rank", "4", "--ranks", "4")
    assert result.exit_code == 2
    assert "4 is not one of ranks 0 to 3" in result.output


@pytest.mark.parametrize("name", ["status", "incidents"])
def test_without_a_master_the_answer_is_one_clear_sentence(name: str) -> None:
    result = run(name, "--api", "http://127.0.0.1:9")
    assert result.exit_code == 3
    assert result.output.startswith("No master answers at http://127.0.0.1:9 (")
    assert "arobust master" in result.output


def test_a_master_with_a_token_wants_it_from_the_environment(
    api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answers, "token", "s3cret")
    refused = run("incidents", "--api", api)
    assert refused.exit_code == 3
    assert "AROBUST_TOKEN" in refused.output
    monkeypatch.setenv("AROBUST_TOKEN", "s3cret")
    assert run("incidents", "--api", api).exit_code == 0


@pytest.mark.parametrize("url", ["ftp://x", "foo:x", "http://"])
def test_a_wrong_api_url_is_a_wrong_setting(url: str) -> None:
    result = run("status", "--api", url)
    assert result.exit_code == 2
    assert "expected a URL" in result.output


def test_incidents_prints_the_verdict(api: str) -> None:
    result = run("incidents", "--api", api)
    assert result.exit_code == 0
    assert result.output.startswith("OPEN  hang_user_code  job job  (two witnesses)")
    assert "read_shard() data.py:88" in result.output
    assert "restart worker rank 2" in result.output


def test_incidents_as_json_is_what_the_api_says(api: str) -> None:
    assert json.loads(run("incidents", "--api", api, "--json").output) == [INCIDENT]


def test_incidents_can_be_asked_for_bad_news(api: str) -> None:
    assert run("incidents", "--api", api, "--check").exit_code == 1


def test_status_shows_jobs_ranks_agents_and_what_cannot_be_seen(api: str) -> None:
    result = run("status", "--api", api)
    assert result.exit_code == 0
    for text in (
        "Job job: 4 of 4 ranks alive, 1 open incident",
        "no progress",
        "stacks does not work: py-spy is not installed",
        "cannot see: point-to-point traffic",
        "1204 items delivered, 3 dropped, 12 wait in memory (6 KiB), 300 on the disk (10 KiB), "
        "the oldest for 3.1 s, 2 sends repeated, its master is only probed after failures",
        "dropped: 3 queue_full",
        "1515 items accepted, 4 recovered from earlier processes, 31 requests, the last took 4 ms, "
        "40 KiB before compression, 3 KiB sent",
    ):
        assert text in result.output
    assert set(json.loads(run("status", "--api", api, "--json").output)) == {
        "status",
        "jobs",
        "ranks",
        "agents",
    }


def test_replay_of_a_folder_that_is_not_there_is_refused() -> None:
    result = run("replay", "/nonexistent")
    assert result.exit_code == 2
    assert "does not exist" in result.output
