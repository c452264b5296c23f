"""How commands print: JSON for programs, text for people, questions to a master's query API."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import click

from arobust_otel.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_API_URL = "http://127.0.0.1:4380"
ANSWER_LIMIT_SECONDS = 10.0
NO_MASTER = 3

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Configuration file (TOML); else $AROBUST_CONFIG; else none.",
)


def api_option(function: F) -> F:
    """``--api URL`` of commands that ask a running master."""
    option = click.option(
        "--api",
        default=DEFAULT_API_URL,
        show_default=True,
        envvar="AROBUST_API",
        help="Query API of the master.",
    )
    return option(function)


def print_json(value: Any) -> None:
    """Indented JSON on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def is_terminal() -> bool:
    """Whether colours and boxes make sense."""
    return sys.stdout.isatty()


def ask(api: str, what: str, parameters: Mapping[str, str | None] | None = None) -> Any:
    """Answer of ``/api/v1/<what>``; ends the command with a sentence and code 3 where no master answers.

    Raises:
        ConfigurationError: `api` is not the URL of a server.
    """
    given = {name: value for name, value in (parameters or {}).items() if value is not None}
    url = f"{_base(api)}/api/v1/{what}" + (f"?{urllib.parse.urlencode(given)}" if given else "")
    token = os.environ.get("AROBUST_TOKEN", "")
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_LIMIT_SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.UNAUTHORIZED:
            click.echo(f"The master at {api} wants its token: set AROBUST_TOKEN to it.", err=True)
            raise click.exceptions.Exit(NO_MASTER) from None
        reason = f"it answers {url} with {error.code} {error.reason}"
    except (urllib.error.URLError, OSError) as error:
        reason = str(getattr(error, "reason", error))
    except ValueError:
        reason = "what answers there does not speak JSON"
    click.echo(
        f"No master answers at {api} ({reason}). "
        "Start one with `arobust master`, or say where it is: --api URL.",
        err=True,
    )
    raise click.exceptions.Exit(NO_MASTER)


def rows(answer: Any, name: str) -> list[dict[str, Any]]:
    """The list in an answer, whether it stands alone or under its name."""
    found = answer.get(name, []) if isinstance(answer, dict) else answer
    return [row for row in found if isinstance(row, dict)]


def _base(api: str) -> str:
    url = api if "://" in api else f"http://{api}"
    parts = urllib.parse.urlsplit(url)
    try:
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is no number
        right = False
    if not right:
        raise ConfigurationError("--api", api, f"a URL, for example {DEFAULT_API_URL}")
    return url.rstrip("/")
