"""Tempo cannot be run in tests: its configuration has no key that Tempo does not document."""

from __future__ import annotations

from pathlib import Path

FILE = Path(__file__).parents[1] / "collector_config" / "tempo.yaml"
OTLP = "distributor.receivers.otlp.protocols"
SERVER = ("http_listen_address", "http_listen_port", "grpc_listen_address", "grpc_listen_port", "log_level")
# From Tempo's documentation, "Configure Tempo", version 3.0: what this file may hold.
DOCUMENTED = {
    "server": None, **{f"server.{key}": str for key in SERVER},
    "distributor": None, "distributor.receivers": None, "distributor.receivers.otlp": None,
    OTLP: None, f"{OTLP}.http": None, f"{OTLP}.http.endpoint": str,
    f"{OTLP}.grpc": None, f"{OTLP}.grpc.endpoint": str,
    "distributor.max_attribute_bytes": int,
    "storage": None, "storage.trace": None, "storage.trace.backend": str, "storage.trace.wal": None,
    "storage.trace.wal.path": str, "storage.trace.local": None, "storage.trace.local.path": str,
    "usage_report": None, "usage_report.reporting_enabled": bool,
}  # fmt: skip


def keys(text: str) -> dict[str, str]:
    """Dotted path of every key of a file that has only nested maps, with its value's text."""
    found: dict[str, str] = {}
    path: list[str] = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, _, value = line.strip().partition(":")
        depth, rest = divmod(len(line) - len(line.lstrip()), 2)
        assert rest == 0, line
        path[depth:] = [key]
        found[".".join(path)] = value.strip()
    return found


def test_every_key_is_documented_and_has_a_value_of_its_kind() -> None:
    for path, value in keys(FILE.read_text(encoding="utf-8")).items():
        assert path in DOCUMENTED, path
        kind = DOCUMENTED[path]
        assert bool(value) == (kind is not None), path
        assert kind is not int or value.isdigit(), path
        assert kind is not bool or value in ("true", "false"), path


def test_stacks_are_not_cut_and_nobody_else_may_connect() -> None:
    found = keys(FILE.read_text(encoding="utf-8"))
    assert int(found["distributor.max_attribute_bytes"]) > 2048
    assert all("127.0.0.1" in value for key, value in found.items() if key.endswith(("address", "endpoint")))
