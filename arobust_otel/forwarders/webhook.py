"""A web hook: each change of an incident as one signed JSON request, in order.

The form is that of Standard Webhooks (https://www.standardwebhooks.com): the headers `webhook-id`,
`webhook-timestamp` and `webhook-signature`, which libraries of many languages verify.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from arobust_otel.errors import ConfigurationError, PermanentDelivery, RetryableDelivery
from arobust_otel.forwarders._http import (
    Poster,
    check_file,
    check_url,
    retry_after,
    said,
    secret,
    shown,
    succeeded,
    wants_tls,
)
from arobust_otel.model.incident import rfc3339
from arobust_otel.model.notice import SUSPECTED, Notice

_UNACCEPTABLE = frozenset({400, 405, 410, 413, 415, 422})
_SECRET_PREFIX = "whsec_"  # noqa: S105  a prefix of the standard, not a secret


@dataclass
class Webhook:
    """Sends each change of an incident as signed JSON, until the receiver has taken it.

    Options:
        url: where to send.
        secret_file: file with the secret of the signature: ``whsec_`` and base64, or any text; else unsigned.
        headers: a table. ca_file: authorities to trust, PEM. timeout_seconds.
        pending: whether suspicions are told, too.
        max_age_seconds: older changes are not told any more: a first start begins with those of a day.
    """

    name: ClassVar[str] = "webhook"

    url: str = ""
    secret_file: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    ca_file: str = ""
    timeout_seconds: float = field(default=10.0, metadata={"minimum": 0.1})
    pending: bool = False
    max_age_seconds: float = field(default=86400.0, metadata={"minimum": 0})

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigurationError: names the option.
        """
        check_url("url", self.url, "https://example.org/incidents")
        check_file("secret_file", self.secret_file)
        check_file("ca_file", self.ca_file)
        self._poster = Poster(self.timeout_seconds, self.ca_file)
        if self.secret_file:
            try:
                self._key()
            except RetryableDelivery as error:
                raise ConfigurationError("secret_file", self.secret_file, str(error)) from None

    def notify(self, notice: Notice) -> None:
        """Send one change.

        Raises:
            RetryableDelivery: the receiver is away, or refuses us.
            PermanentDelivery: it will never take this.
        """
        if notice.change == SUSPECTED and not self.pending:
            return
        body = body_of(notice)
        stamp = str(int(time.time()))
        headers = {
            **self.headers,
            "content-type": "application/json",
            "webhook-id": notice.id,
            "webhook-timestamp": stamp,
        }
        if self.secret_file:
            headers["webhook-signature"] = signature(self._key(), notice.id, stamp, body)
        name = shown(self.url, path=False)
        response = self._poster.post(self.url, body, headers, name)
        if succeeded(response):
            return
        if response.status_code in _UNACCEPTABLE and not wants_tls(response):
            raise PermanentDelivery(said(name, response))
        raise RetryableDelivery(said(name, response), retry_after(response))

    def close(self) -> None:
        """Close the connection."""
        self._poster.close()

    def _key(self) -> bytes:
        """The key of the signature as the file says it now.

        Raises:
            RetryableDelivery: there is none now.
        """
        text = secret(self.secret_file)
        try:
            is_coded = text.startswith(_SECRET_PREFIX)
            key = base64.b64decode(text.removeprefix(_SECRET_PREFIX)) if is_coded else text.encode()
        except ValueError as error:
            raise RetryableDelivery(f"{self.secret_file} holds no base64: {error}") from None
        if not key:
            raise RetryableDelivery(f"{self.secret_file} is empty")
        return key


def body_of(notice: Notice) -> bytes:
    """The JSON of a change: `type`, `timestamp` and `data`, which holds the incident as everywhere."""
    values = {
        "type": notice.change,
        "timestamp": rfc3339(notice.at_ns),
        "data": {"id": notice.id, "incident": notice.incident},
    }
    return json.dumps(values, separators=(",", ":")).encode()


def signature(key: bytes, notice_id: str, stamp: str, body: bytes) -> str:
    """The header `webhook-signature`: HMAC-SHA256 of id, timestamp and body."""
    content = b".".join((notice_id.encode(), stamp.encode(), body))
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
