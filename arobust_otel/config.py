"""Settings of master and agent: read from TOML, environment and flags, checked, frozen.

Later beats earlier: default, file (`--config`, `AROBUST_CONFIG`), environment (agent only: `AROBUST_<KEY>`),
flag. Every mistake is a `ConfigurationError` at the start that names the key and what would be right. Nothing
here opens a socket or knows a rule: parts say themselves which options they have (`plugins`).
"""

from __future__ import annotations

import os
import sys
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from arobust_otel import plugins
from arobust_otel.checked import Address, at_least, checked, convert, from_text, one_of
from arobust_otel.errors import ConfigurationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENVIRONMENT_PREFIX = "AROBUST_"
MEBIBYTE = 1024 * 1024
MIN_PERIOD_SECONDS = 0.05
DEFAULT_OTLP_HTTP = Address("127.0.0.1", 4318)
DEFAULT_OTLP_GRPC = Address("127.0.0.1", 4317)
DEFAULT_API = Address("127.0.0.1", 4380)
NO_SPOOL = "off"


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where a master keeps its journal unless told otherwise: the user's state folder."""
    base = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME") or "~").expanduser() / ".local" / "state"
    return Path(base) / "arobust"


@dataclass(frozen=True, slots=True)
class ForwarderSettings:
    """One destination: its own name, the part that speaks to it, and that part's options."""

    name: str
    type: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MasterSettings:
    """What `arobust master` needs; `engine` and `rules` are passed on and stand in the journal."""

    data_dir: Path = field(default_factory=default_data_dir)
    otlp_http: Address = DEFAULT_OTLP_HTTP
    otlp_grpc: Address = DEFAULT_OTLP_GRPC
    api: Address = DEFAULT_API
    token: str = ""  # where set, senders must present it as a bearer token
    tls_certificate: str = ""  # PEM files; needed, with a token, where others than this machine may connect
    tls_key: str = ""
    sync: bool = True  # acknowledge only what is on the disk
    snapshot_seconds: float = at_least(1, 60.0)
    retention_bytes: int = at_least(128 * MEBIBYTE, 4096 * MEBIBYTE)
    backlog_bytes: int = at_least(0, 16384 * MEBIBYTE)  # beyond that, for forwarders that are behind
    reserve_bytes: int = at_least(0, 256 * MEBIBYTE)  # kept free on the disk, as far as old journal can be
    heartbeat_seconds: float = at_least(0.1, 2.0)
    tick_seconds: float = at_least(0.1, 1.0)
    max_request_bytes: int = at_least(1024, 64 * MEBIBYTE)
    forwarders: tuple[ForwarderSettings, ...] = ()
    engine: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What the agent of a node needs beside the job it works for."""

    sample_seconds: float = at_least(0.05, 0.5)
    gauge_seconds: float = at_least(0.05, 5.0)
    fast_gauge_seconds: float = at_least(0.05, 1.0)  # while some rank makes no progress
    fast_after_seconds: float = at_least(0, 3.0)  # without progress
    flush_seconds: float = at_least(0.01, 0.2)  # how long a fact may wait for company
    heartbeat_seconds: float = at_least(0.1, 2.0)
    linger_seconds: float = at_least(0, 5.0)  # after the last rank ended
    first_rank_seconds: float = at_least(1, 120.0)  # how long to wait for any rank at all
    export_timeout_seconds: float = at_least(0.1, 3.0)  # one request; the agent itself retries
    stack_timeout_seconds: float = at_least(0.1, 10.0)
    queue_items: int = at_least(1, 20_000)
    queue_bytes: int = at_least(MEBIBYTE, 16 * MEBIBYTE)
    spool_dir: str = ""  # what no master takes waits there; empty: the user's state folder; "off": nowhere
    spool_bytes: int = at_least(MEBIBYTE, 256 * MEBIBYTE)
    spool_seconds: float = at_least(1, 3 * 86400.0)
    log_files: tuple[str, ...] = ()  # paths or patterns of training logs
    py_spy: str = "py-spy"  # name or path; empty: never look from outside
    collectors: dict[str, dict[str, Any]] = field(default_factory=dict)  # sections of their own


SECTIONS = ("master", "engine", "rules", "forwarders", "agent", "collectors")
_OWN_SECTION = ("forwarders", "engine", "rules")


def load_file(path: Path | None) -> dict[str, Any]:
    """Sections of a configuration file; an empty dict without one.

    Raises:
        ConfigurationError: the file cannot be read, is not TOML, or has a section that nobody reads.
    """
    if path is None:
        return {}
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError("config", str(path), f"a file that can be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError("config", str(path), f"a TOML file ({error})") from None
    for name, section in values.items():
        if name not in SECTIONS:
            raise ConfigurationError(name, section, one_of(name, SECTIONS, "a section"))
        if not isinstance(section, dict):
            raise ConfigurationError(name, section, f"a table: [{name}]")
    return values


def config_path(flag: Path | None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file to read: the flag, then `AROBUST_CONFIG`, then none."""
    named = environ.get(f"{ENVIRONMENT_PREFIX}CONFIG")
    return flag or (Path(named) if named else None)


def master_settings(sections: Mapping[str, Any], flags: Mapping[str, Any] | None = None) -> MasterSettings:
    """Settings of a master from the sections of a file; a flag that is None was not given.

    Raises:
        ConfigurationError: names the key, the value and what would be right.
    """
    own = dict(sections.get("master", {}))
    for name in _OWN_SECTION:
        if name in own:
            raise ConfigurationError(f"master.{name}", own[name], f"a section of its own: [{name}]")
    values = checked(MasterSettings, own, "master", without=_OWN_SECTION)
    values.update(checked(MasterSettings, _given(flags), "--", without=_OWN_SECTION))
    return MasterSettings(
        **values,
        forwarders=_forwarders(sections.get("forwarders", {})),
        engine=dict(sections.get("engine", {})),
        rules=_rules(sections.get("rules", {})),
    )


def agent_settings(
    sections: Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, Any] | None = None,
) -> AgentSettings:
    """Settings of an agent: file, then `AROBUST_<KEY>` (lists separated by ``:``), then flags.

    Raises:
        ConfigurationError: names the key, the value and what would be right.
    """
    own = sections.get("agent", {})
    if "collectors" in own:
        raise ConfigurationError(
            "agent.collectors", own["collectors"], "sections of their own: [collectors.NAME]"
        )
    values = checked(AgentSettings, own, "agent")
    for item in fields(AgentSettings):
        if item.name == "collectors":
            continue
        text = environ.get(ENVIRONMENT_PREFIX + item.name.upper())
        if text is not None:
            hint = typing.get_type_hints(AgentSettings)[item.name]
            key = ENVIRONMENT_PREFIX + item.name.upper()
            values[item.name] = convert(key, from_text(text, hint), hint, item.metadata.get("minimum"))
    values.update(checked(AgentSettings, _given(flags), "--"))
    return AgentSettings(**values, collectors=_collectors(sections.get("collectors", {})))


def _given(flags: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (flags or {}).items() if value is not None}


def _forwarders(sections: Mapping[str, Any]) -> tuple[ForwarderSettings, ...]:
    known = plugins.discover("forwarders") if sections else {}
    result = []
    for name, values in sections.items():
        key = f"forwarders.{name}"
        if not isinstance(values, dict):
            raise ConfigurationError(key, values, f"a table: [{key}]")
        options = dict(values)
        kind = options.pop("type", name)
        if kind not in known:
            raise ConfigurationError(f"{key}.type", kind, one_of(str(kind), tuple(known), "a forwarder"))
        result.append(ForwarderSettings(name, kind, _options(known[kind], options, key)))
    return tuple(result)


def _rules(sections: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found = _sections("rules", "a rule", sections)
    return {
        part.name: {**_enabled(values, key), **_options(part, values, key)} for key, part, values in found
    }


def _collectors(sections: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Options of collectors; those with a thread of their own may have `period_seconds`, too."""
    result = {}
    for key, part, values in _sections("collectors", "a collector", sections):
        common = _enabled(values, key)
        if part.target is None and common.get("enabled") is False:  # one that does not load may be off
            result[part.name] = common
            continue
        own_period = ("period_seconds",) if part.name not in plugins.CORE_COLLECTORS else ()
        if own_period and "period_seconds" in values:
            period = values.pop("period_seconds")
            common["period_seconds"] = convert(f"{key}.period_seconds", period, float, MIN_PERIOD_SECONDS)
        for name, value in values.items():
            if name not in part.settings() and part.target is not None:
                known = tuple({*part.settings(), *own_period, "enabled"})
                raise ConfigurationError(f"{key}.{name}", value, one_of(name, known, "a key"))
        result[part.name] = {**common, **_options(part, values, key)}
    return result


def _sections(
    group: str, what: str, sections: Mapping[str, Any]
) -> Iterator[tuple[str, plugins.Part, dict[str, Any]]]:
    """Key, part and a copy of the values of each section of a group."""
    known = plugins.discover(group) if sections else {}
    for name, values in sections.items():
        key = f"{group}.{name}"
        if name not in known:
            raise ConfigurationError(key, values, one_of(name, tuple(known), what))
        if not isinstance(values, dict):
            raise ConfigurationError(key, values, f"a table: [{key}]")
        yield key, known[name], dict(values)


def _enabled(values: dict[str, Any], key: str) -> dict[str, Any]:
    """Take the switch out of a section."""
    enabled = {"enabled": values.pop("enabled")} if "enabled" in values else {}
    if not isinstance(enabled.get("enabled", True), bool):
        raise ConfigurationError(f"{key}.enabled", enabled["enabled"], "true or false")
    return enabled


def _options(part: plugins.Part, values: Mapping[str, Any], section: str) -> dict[str, Any]:
    if part.target is None:
        raise ConfigurationError(section, part.name, f"a part that loads ({part.error})")
    if not part.options():
        for name, value in values.items():
            raise ConfigurationError(f"{section}.{name}", value, "no option at all")
        return {}
    if not is_dataclass(part.target):  # a plain class says names, not types
        return dict(values)
    return checked(part.target, values, section)
