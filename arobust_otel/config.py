"""Settings of master and agent: read from TOML, environment and flags, checked, frozen.

Later beats earlier: default, file (`--config` or `AROBUST_CONFIG`), environment (`AROBUST_<KEY>`, agent only),
flag. Every mistake is a `ConfigurationError` at the start that names the key and what would be right. Nothing
here opens a socket or knows a rule: parts say themselves which options they have (`plugins`).
"""

from __future__ import annotations

import math
import os
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from arobust_otel import plugins
from arobust_otel.errors import ConfigurationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

S = TypeVar("S")

ENVIRONMENT_PREFIX = "AROBUST_"
MEBIBYTE = 1024 * 1024


class Address(NamedTuple):
    """Where a server listens; port 0 asks for any free port. `str()` gives ``host:port`` back."""

    host: str
    port: int

    def __str__(self) -> str:
        """As it stands in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _at_least(minimum: float, default: Any) -> Any:
    """A number that must not be smaller than `minimum`."""
    return field(default=default, metadata={"minimum": minimum})


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
    """What `arobust master` needs. `engine` and `rules` are passed on as they are and stand in the journal."""

    data_dir: Path = field(default_factory=default_data_dir)
    otlp_http: Address = Address("127.0.0.1", 4318)
    api: Address = Address("127.0.0.1", 4380)
    sync: bool = True  # acknowledge only what is on the disk
    snapshot_seconds: float = _at_least(1, 60.0)
    retention_bytes: int = _at_least(128 * MEBIBYTE, 4096 * MEBIBYTE)
    heartbeat_seconds: float = _at_least(0.1, 2.0)
    tick_seconds: float = _at_least(0.1, 1.0)
    max_request_bytes: int = _at_least(1024, 64 * MEBIBYTE)
    forwarders: tuple[ForwarderSettings, ...] = ()
    engine: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What the agent of a node needs beside the job it works for."""

    sample_seconds: float = _at_least(0.05, 0.5)
    gauge_seconds: float = _at_least(0.05, 5.0)
    fast_gauge_seconds: float = _at_least(0.05, 1.0)  # while some rank makes no progress
    fast_after_seconds: float = _at_least(0, 3.0)  # without progress
    flush_seconds: float = _at_least(0.01, 0.2)  # how long a fact may wait for company
    heartbeat_seconds: float = _at_least(0.1, 2.0)
    linger_seconds: float = _at_least(0, 5.0)  # after the last rank ended
    first_rank_seconds: float = _at_least(1, 120.0)  # how long to wait for any rank at all
    export_timeout_seconds: float = _at_least(0.1, 10.0)
    stack_timeout_seconds: float = _at_least(0.1, 10.0)
    queue_items: int = _at_least(1, 20_000)
    queue_bytes: int = _at_least(MEBIBYTE, 16 * MEBIBYTE)
    log_files: tuple[str, ...] = ()  # paths or patterns of training logs
    py_spy: str = "py-spy"  # name or path; empty: never look from outside


SECTIONS = ("master", "engine", "rules", "forwarders", "agent")
_OWN_SECTION = ("forwarders", "engine", "rules")


def load_file(path: Path | None) -> dict[str, Any]:
    """Sections of a configuration file; an empty dict without one.

    Raises:
        ConfigurationError: the file cannot be read, is not TOML, or has a section that nobody reads.
    """
    if path is None:
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError("config", str(path), f"a file that can be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError("config", str(path), f"a TOML file ({error})") from None
    for name, section in values.items():
        if name not in SECTIONS:
            raise ConfigurationError(name, section, _one_of(name, SECTIONS, "a section"))
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
    values = checked(AgentSettings, sections.get("agent", {}), "agent")
    for item in fields(AgentSettings):
        text = environ.get(ENVIRONMENT_PREFIX + item.name.upper())
        if text is not None:
            hint = typing.get_type_hints(AgentSettings)[item.name]
            key = ENVIRONMENT_PREFIX + item.name.upper()
            values[item.name] = _value(key, _from_text(text, hint), hint, item.metadata.get("minimum"))
    values.update(checked(AgentSettings, _given(flags), "--"))
    return AgentSettings(**values)


def checked(
    target: type[Any], values: Mapping[str, Any], section: str, *, without: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Values of a section in the types that the dataclass `target` declares.

    Args:
        target: a dataclass; a field may say `minimum` in its metadata.
        values: as TOML or a flag gave them.
        section: how the user names the place, for example ``rules.hang``; ``--`` for flags.
        without: fields that this section must not have.

    Raises:
        ConfigurationError: an unknown key, a wrong type, or a number that is too small.
    """
    known = {item.name: item for item in fields(target) if item.init and item.name not in without}
    hints = typing.get_type_hints(target)
    result = {}
    for name, value in values.items():
        key = f"--{name.replace('_', '-')}" if section == "--" else f"{section}.{name}"
        if name not in known:
            raise ConfigurationError(key, value, _one_of(name, tuple(known), "a key"))
        result[name] = _value(key, value, hints[name], known[name].metadata.get("minimum"))
    return result


def parse_address(key: str, text: Any) -> Address:
    """``HOST:PORT`` or ``[IPv6]:PORT``; a URL with the scheme http is accepted too.

    Raises:
        ConfigurationError: the text is no such address.
    """
    expected = "HOST:PORT, for example 127.0.0.1:4318; port 0 means any free port"
    if not isinstance(text, str):
        raise ConfigurationError(key, text, expected)
    host, colon, port = text.removeprefix("http://").rstrip("/").rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isdecimal() and port.isascii() and int(port) < 65536) or "/" in host:
        raise ConfigurationError(key, text, expected)
    return Address(host, int(port))


def _given(flags: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (flags or {}).items() if value is not None}


def _one_of(name: str, known: tuple[str, ...], what: str) -> str:
    close = get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{what} among {', '.join(sorted(known)) or 'none at all'}{hint}"


def _value(key: str, value: Any, hint: Any, minimum: float | None) -> Any:
    """The value in the type that was declared, or a refusal that says what would be right."""
    result = _convert(key, value, hint)
    if minimum is not None and result < minimum:
        raise ConfigurationError(key, value, f"a number of at least {minimum:g}")
    return result


def _convert(key: str, value: Any, hint: Any) -> Any:
    if hint is Any or value is None and type(None) in typing.get_args(hint):
        return value
    if hint is Address:
        return value if isinstance(value, Address) else parse_address(key, value)
    if hint is Path:
        return _path(key, value)
    if hint == tuple[str, ...]:
        return _texts(key, value)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    for kind, fits, words in (
        (bool, isinstance(value, bool), "true or false"),
        (int, is_number and isinstance(value, int), "a whole number"),
        (float, is_number and math.isfinite(value), "a number"),
        (str, isinstance(value, str), "a text"),
    ):
        if hint is kind or kind in typing.get_args(hint):
            if not fits:
                raise ConfigurationError(key, value, words)
            return kind(value)
    return value


def _path(key: str, value: Any) -> Path:
    if not isinstance(value, (str, Path)) or not str(value):
        raise ConfigurationError(key, value, "the path of a folder")
    return Path(value).expanduser()


def _texts(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise ConfigurationError(key, value, 'a list of texts, for example ["train.log"]')
    return tuple(value)


def _from_text(text: str, hint: Any) -> Any:
    """What an environment variable means; a text that is no number stays one, and is then refused."""
    if hint == tuple[str, ...]:
        return [item for item in text.split(":") if item]
    if hint is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            return text
    return text


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
            raise ConfigurationError(f"{key}.type", kind, _one_of(str(kind), tuple(known), "a forwarder"))
        result.append(ForwarderSettings(name, kind, _options(known[kind], options, key)))
    return tuple(result)


def _rules(sections: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    known = plugins.discover("rules") if sections else {}
    result = {}
    for name, values in sections.items():
        key = f"rules.{name}"
        if name not in known:
            raise ConfigurationError(key, values, _one_of(name, tuple(known), "a rule"))
        if not isinstance(values, dict):
            raise ConfigurationError(key, values, f"a table: [{key}]")
        result[name] = _options(known[name], values, key)
    return result


def _options(part: plugins.Part, values: Mapping[str, Any], section: str) -> dict[str, Any]:
    if part.target is None:
        raise ConfigurationError(section, part.name, f"a part that loads ({part.error})")
    if not part.options():
        for name, value in values.items():
            raise ConfigurationError(f"{section}.{name}", value, "no option at all")
        return {}
    return checked(part.target, values, section)
