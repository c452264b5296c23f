"""Settings: where they come from, which one wins, and what a mistake says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arobust_otel.checked import Address, parse_address
from arobust_otel.config import (
    AgentSettings,
    MasterSettings,
    agent_settings,
    config_path,
    default_data_dir,
    load_file,
    master_settings,
)
from arobust_otel.errors import ConfigurationError

FILE = """
[master]
data_dir = "/var/lib/arobust"
otlp_http = "0.0.0.0:4318"
snapshot_seconds = 30

[engine]
tick_seconds = 1.0

[rules.hang]
idle_seconds = 20
enabled = true

[agent]
gauge_seconds = 10
log_files = ["train-*.log"]
"""


def refusal(sections: dict[str, Any], flags: dict[str, Any] | None = None) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        master_settings(sections, flags)
    return caught.value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "arobust.toml"
    path.write_text(FILE)
    return path


def test_without_any_setting_the_master_listens_on_loopback_and_syncs() -> None:
    settings = master_settings({})
    assert str(settings.otlp_http) == "127.0.0.1:4318"
    assert str(settings.api) == "127.0.0.1:4380"
    assert settings.sync is True


def test_a_file_gives_every_section_its_place(file: Path) -> None:
    settings = master_settings(load_file(file))
    assert settings.data_dir == Path("/var/lib/arobust")
    assert settings.otlp_http == Address("0.0.0.0", 4318)
    assert settings.snapshot_seconds == 30.0
    assert settings.engine == {"tick_seconds": 1.0}
    assert settings.rules == {"hang": {"enabled": True, "idle_seconds": 20.0}}


def test_a_flag_beats_the_file_and_a_flag_that_was_not_given_does_not(file: Path) -> None:
    settings = master_settings(load_file(file), {"otlp_http": "127.0.0.1:0", "api": None, "sync": False})
    assert settings.otlp_http == Address("127.0.0.1", 0)
    assert settings.api == Address("127.0.0.1", 4380)
    assert settings.sync is False


def test_the_agents_environment_beats_the_file(file: Path) -> None:
    environ = {"AROBUST_GAUGE_SECONDS": "2.5", "AROBUST_LOG_FILES": "a.log:b.log", "AROBUST_QUEUE_ITEMS": "7"}
    settings = agent_settings(load_file(file), environ)
    assert (settings.gauge_seconds, settings.log_files, settings.queue_items) == (2.5, ("a.log", "b.log"), 7)
    assert agent_settings(load_file(file), {}).log_files == ("train-*.log",)
    assert agent_settings({}, {}) == AgentSettings()


def test_the_file_is_named_by_flag_then_by_environment() -> None:
    assert config_path(Path("a.toml"), {"AROBUST_CONFIG": "b.toml"}) == Path("a.toml")
    assert config_path(None, {"AROBUST_CONFIG": "b.toml"}) == Path("b.toml")
    assert config_path(None, {}) is None
    assert load_file(None) == {}


def test_the_journal_lives_in_the_users_state_folder() -> None:
    assert default_data_dir({"XDG_STATE_HOME": "/state"}) == Path("/state/arobust")
    assert default_data_dir({"HOME": "/home/ada"}) == Path("/home/ada/.local/state/arobust")


@pytest.mark.parametrize(
    ("sections", "key", "says"),
    [
        ({"master": {"snapshot_second": 3}}, "master.snapshot_second", "did you mean snapshot_seconds?"),
        ({"master": {"sync": "yes"}}, "master.sync", "true or false"),
        ({"master": {"retention_bytes": 1.5}}, "master.retention_bytes", "a whole number"),
        ({"master": {"retention_bytes": 5}}, "master.retention_bytes", "at least 1.34218e+08"),
        ({"master": {"tick_seconds": 0}}, "master.tick_seconds", "at least 0.1"),
        ({"master": {"tick_seconds": float("nan")}}, "master.tick_seconds", "a number"),
        ({"master": {"tick_seconds": True}}, "master.tick_seconds", "a number"),
        ({"master": {"data_dir": ""}}, "master.data_dir", "the path of a folder"),
        ({"master": {"api": "4380"}}, "master.api", "HOST:PORT"),
        ({"master": {"rules": {}}}, "master.rules", "a section of its own: [rules]"),
        ({"rules": {"hangs": {}}}, "rules.hangs", "did you mean hang?"),
        ({"rules": {"hang": 3}}, "rules.hang", "a table: [rules.hang]"),
        ({"rules": {"hang": {"idle": 3}}}, "rules.hang.idle", "idle_seconds"),
        ({"rules": {"hang": {"idle_seconds": "3"}}}, "rules.hang.idle_seconds", "a number"),
        ({"rules": {"hang": {"enabled": 1}}}, "rules.hang.enabled", "true or false"),
        ({"forwarders": {"store": {"type": "carrier_pigeon"}}}, "forwarders.store.type", "a forwarder among"),
        ({"forwarders": {"store": 1}}, "forwarders.store", "a table"),
        (
            {"forwarders": {"store": {"type": "otlp_http", "headers": {"x-team": 1}}}},
            "forwarders.store.headers",
            "a table of texts",
        ),
    ],
)
def test_a_mistake_names_the_key_and_what_would_be_right(
    sections: dict[str, Any], key: str, says: str
) -> None:
    error = refusal(sections)
    assert error.key == key
    assert says in error.expected


def test_a_wrong_flag_is_named_as_the_user_wrote_it() -> None:
    assert refusal({}, {"snapshot_seconds": 0}).key == "--snapshot-seconds"


def test_a_wrong_environment_variable_is_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        agent_settings({}, {"AROBUST_SAMPLE_SECONDS": "fast"})
    assert (caught.value.key, caught.value.value) == ("AROBUST_SAMPLE_SECONDS", "fast")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[master", "a TOML file"),
        ("[mastre]\n", "did you mean master?"),
        ("master = 3\n", "a table: [master]"),
    ],
)
def test_a_broken_file_says_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="not valid") as caught:
        load_file(path)
    assert says in caught.value.expected


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_file(tmp_path / "none.toml")
    assert "No such file" in caught.value.expected
    assert str(tmp_path / "none.toml") == caught.value.value


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:4318", Address("127.0.0.1", 4318)),
        ("[::1]:0", Address("::1", 0)),
        ("http://gpu-a:80/", Address("gpu-a", 80)),
    ],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    assert parse_address("key", text) == address


@pytest.mark.parametrize(
    "text", ["", "host", ":1", "host:", "host:65536", "host:-1", "host:1/path", "host:٣", 3]
)
def test_what_is_no_address_is_refused(text: object) -> None:
    with pytest.raises(ConfigurationError, match="HOST:PORT"):
        parse_address("key", text)


def test_an_address_of_version_six_reads_back() -> None:
    assert str(Address("::1", 4318)) == "[::1]:4318"


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        MasterSettings().sync = False  # type: ignore[misc]


def test_a_section_of_a_collector_reaches_the_agents_settings() -> None:
    sections = {
        "collectors": {"nvidia": {"period_seconds": 2, "interval_seconds": 9}, "host": {"enabled": False}}
    }
    settings = agent_settings(sections, {})
    assert settings.collectors == {
        "nvidia": {"period_seconds": 2.0, "interval_seconds": 9.0},
        "host": {"enabled": False},
    }
    assert agent_settings({}, {}).collectors == {}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"nvidea": {}}, r"collectors\.nvidea = .*did you mean nvidia\?"),
        ({"nvidia": 3}, r"a table: \[collectors\.nvidia\]"),
        ({"nvidia": {"enabled": "no"}}, r"collectors\.nvidia\.enabled = .*true or false"),
        (
            {"nvidia": {"period_second": 1}},
            r"collectors\.nvidia\.period_second = .*did you mean period_seconds\?",
        ),
        ({"nvidia": {"period_seconds": 0}}, r"collectors\.nvidia\.period_seconds = 0.*at least 0\.05"),
        ({"xpu_timer": {"timeout_seconds": "x"}}, r"collectors\.xpu_timer\.timeout_seconds = .*a number"),
        ({"host": {"period_seconds": 1}}, r"collectors\.host\.period_seconds"),
        ({"processes": {"on_exit": 3}}, r"collectors\.processes\.on_exit"),
    ],
)
def test_a_mistake_in_a_section_of_a_collector_names_key_and_remedy(section: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        agent_settings({"collectors": section}, {})


def test_collectors_do_not_belong_into_the_agents_section_nor_into_the_environment() -> None:
    with pytest.raises(ConfigurationError, match=r"sections of their own: \[collectors\.NAME\]"):
        agent_settings({"agent": {"collectors": {}}}, {})
    assert agent_settings({}, {"AROBUST_COLLECTORS": "nvidia"}).collectors == {}


def test_a_collector_that_does_not_load_may_be_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "torn-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torn\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[arobust_otel.collectors]\ntorn = no_such_module:Torn\n")
    monkeypatch.syspath_prepend(tmp_path)
    off = {"collectors": {"torn": {"enabled": False}}}
    assert agent_settings(off, {}).collectors == {"torn": {"enabled": False}}
    with pytest.raises(ConfigurationError, match="a part that loads"):
        agent_settings({"collectors": {"torn": {"x": 1}}}, {})
