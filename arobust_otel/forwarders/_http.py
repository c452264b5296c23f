"""What all forwarders that post have in common: a connection, trust, a time limit, words for failures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import requests

from arobust_otel.errors import ConfigurationError, OverloadedDelivery, RetryableDelivery
from arobust_otel.http_answers import TimelyAdapter

_EXCERPT_CHARACTERS = 200
_WITHOUT_TLS = (
    b"HTTP request to an HTTPS server",
    b"HTTP request was sent to HTTPS port",
)  # servers in Go; nginx


class Poster:
    """Posts bytes; `ca_file` and `certificate` (with its key) are PEM files, empty for none."""

    def __init__(
        self, timeout_seconds: float, ca_file: str = "", certificate: tuple[str, str] = ("", "")
    ) -> None:
        """Nothing is opened before the first `post`."""
        self._timeout_seconds = timeout_seconds
        # Given with each request: requests lets REQUESTS_CA_BUNDLE beat what a session says.
        self._verify = ca_file or None
        self._certificate = certificate if certificate[0] else None
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, TimelyAdapter())
        self._session.headers["accept-encoding"] = "identity"  # a few bytes must not become gigabytes

    def post(self, url: str, body: bytes, headers: Mapping[str, str], name: str) -> requests.Response:
        """The answer, whatever its status; a redirection is not followed.

        Args:
            url: where to.
            body: what.
            headers: all of them.
            name: what messages call the destination (`shown`): URLs may hold secrets.

        Raises:
            OverloadedDelivery: no answer in time.
            RetryableDelivery: the destination cannot be reached, or its answer is not over in time or size.
        """
        try:
            return self._session.post(
                url,
                data=body,
                headers=dict(headers),
                timeout=self._timeout_seconds,
                allow_redirects=False,
                verify=self._verify,
                cert=self._certificate,
            )
        except requests.ReadTimeout:
            raise OverloadedDelivery(f"{name} did not answer within {self._timeout_seconds:g} s") from None
        except ValueError as error:  # a secret that cannot stand in a header; the message would show it
            reason = f"a header or the URL cannot be used ({type(error).__name__})"
            raise RetryableDelivery(f"{name}: {reason}") from None
        except (requests.RequestException, OSError) as error:  # OSError: a CA file that is gone
            raise RetryableDelivery(f"{name} cannot be reached: {_innermost(error)}") from None

    def close(self) -> None:
        """Close the connection."""
        self._session.close()


def succeeded(response: requests.Response) -> bool:
    """Whether it was taken."""
    return 200 <= response.status_code < 300


def wants_tls(response: requests.Response) -> bool:
    """Whether it is the 400 of a port that speaks TLS and was spoken to without: the URL needs https."""
    return response.status_code == 400 and any(words in response.content for words in _WITHOUT_TLS)


def shown(url: str, *, path: bool = True) -> str:
    """A URL as messages, the log and the status API may show it: never credentials or a query.

    `path`: False where the path is a secret, too.

    >>> shown("https://user:pass@example.org:8443/v1/logs?key=1")
    'https://example.org:8443/v1/logs'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path if path else ''}"


def said(name: str, response: requests.Response) -> str:
    """A refusal in one line; a path that the answer repeats is left out."""
    path = response.request.path_url or ""
    text = response.text.replace(path, "...") if len(path) > 1 else response.text
    text = "".join(filter(str.isprintable, text[:_EXCERPT_CHARACTERS]))
    return f"{name} answered {response.status_code}: {text}"


def retry_after(response: requests.Response) -> float | None:
    """Seconds; a date, which the standard allows too, is not worth a parser: the back-off serves."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdecimal() and text.isascii() else None


def secret(path: str) -> str:
    """Text of a file, without the line end and the byte-order mark that editors add.

    Raises:
        RetryableDelivery: it cannot be read now.
    """
    try:
        return Path(path).read_text("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RetryableDelivery(f"{path} cannot be read: {error}") from None


def check_url(option: str, text: str, example: str) -> None:
    """Refuse what is no URL.

    Raises:
        ConfigurationError: names the option.
    """
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.netloc:
        raise ConfigurationError(option, text, f"a URL such as {example}")


def check_file(option: str, path: str) -> None:
    """Refuse a file that cannot be read; an empty path is none.

    Raises:
        ConfigurationError: names the option.
    """
    if not path:
        return
    try:
        with Path(path).open("rb"):
            return
    except OSError as error:
        raise ConfigurationError(option, path, f"a file that can be read ({error.strerror})") from None


def _innermost(error: BaseException) -> str:
    """The innermost cause, which names the trouble."""
    cause = error
    while cause.__context__ is not None:
        cause = cause.__context__
    return str(cause)[:_EXCERPT_CHARACTERS]
