"""What of a setting may be shown: messages, logs and `check-config` hold no secret.

Light on purpose: `errors` imports it, and so does a training process.
Secrets are texts under a name that says so, credentials and queries of URLs, and the path of a web hook.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

HIDDEN = "..."
_SECRET = re.compile(r"(token|secret|password|passwd|authorization|headers|api_?key)$", re.IGNORECASE)
_URL = re.compile(r"[^\s'\"]+://[^\s'\"]*|[^\s/'\"]+:[^\s/'\"]+@\S+")


def shown(key: str, value: object) -> object:
    """The value of a setting without what nobody should read; what is no text stays as it is.

    >>> shown("forwarders.chat.headers", {"x-key": "abc"}), shown("master.sync", 5)
    ({'x-key': '...'}, 5)
    >>> shown("forwarders.vendor.endpoint", "https://user:pass@example.org/otlp?key=abc")
    'https://example.org/otlp'
    """
    name = key.rpartition(".")[2].replace("-", "_")
    if _SECRET.search(name):
        return hidden(value)
    if isinstance(value, Mapping):
        return {inner: shown(f"{key}.{inner}", item) for inner, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(shown(key, item) for item in value) if type(value) in (list, tuple) else value
    if isinstance(value, str):
        return _web_hook(value) if name == "url" else _URL.sub(lambda found: _without(found[0]), value)
    return value


def hidden(value: object) -> object:
    """Nothing of a text; of a table its keys."""
    if isinstance(value, Mapping):
        return dict.fromkeys(value, HIDDEN)
    return HIDDEN if value and isinstance(value, (str, list, tuple)) else value


def _without(url: str) -> str:
    """A URL without credentials and query."""
    scheme, separator, rest = url.rpartition("://")
    place, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}{separator}{place.rpartition('@')[2]}{slash}{path}"


def _web_hook(url: str) -> str:
    """Scheme and host; the path of a web hook admits whoever knows it."""
    scheme, separator, rest = _without(url).rpartition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host}{slash}{HIDDEN if path else ''}"
