"""Values that users wrote, checked against the dataclass that declares them.

A wrong key, type or number is a `ConfigurationError` that names the key and what would be right; the message
lists the right keys. Nothing here knows which settings exist.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from dataclasses import field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from arobust_otel.errors import ConfigurationError
from arobust_otel.redaction import hidden


class Address(NamedTuple):
    """Where a server listens; port 0 asks for any free port. `str()` gives ``host:port`` back."""

    host: str
    port: int

    def __str__(self) -> str:
        """As it stands in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def at_least(minimum: float, default: Any) -> Any:
    """A number that must not be smaller than `minimum`."""
    return field(default=default, metadata={"minimum": minimum})


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
            # A misspelt key may be that of a secret.
            raise ConfigurationError(key, hidden(value), one_of(name, tuple(known), "a key"))
        result[name] = convert(key, value, hints[name], known[name].metadata.get("minimum"))
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


def one_of(name: str, known: tuple[str, ...], what: str) -> str:
    """What to write instead of `name`: all right names, and the one that was probably meant."""
    close = get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{what} among {', '.join(sorted(known)) or 'none at all'}{hint}"


def convert(key: str, value: Any, hint: Any, minimum: float | None) -> Any:
    """The value in the type that was declared, or a refusal that says what would be right."""
    result = _convert(key, value, hint)
    if minimum is not None and result < minimum:
        raise ConfigurationError(key, value, f"a number of at least {minimum:g}")
    return result


def _convert(key: str, value: Any, hint: Any) -> Any:
    if hint is Any or (value is None and type(None) in typing.get_args(hint)):
        return value
    if hint is Address:
        return value if isinstance(value, Address) else parse_address(key, value)
    if hint is Path:
        return _path(key, value)
    if hint == tuple[str, ...]:
        return _texts(key, value)
    if hint == Mapping[str, str]:
        return _table(key, value)
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


def _table(key: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(item, str) for item in value.values()):
        raise ConfigurationError(key, value, 'a table of texts, for example { "x-team" = "training" }')
    return dict(value)


def from_text(text: str, hint: Any) -> Any:
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
