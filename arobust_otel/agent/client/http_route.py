"""Posts to one URL again and again, without what `requests` works out anew for each request.

URL, proxies, ``.netrc`` and certificates are found once, as `requests` finds them, except that a certificate
authority of ours goes before `REQUESTS_CA_BUNDLE`, which would win otherwise. That is half of the processor
time of a small request. Redirects are not followed, cookies not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import BaseAdapter
from urllib3 import Timeout


@dataclass(frozen=True, slots=True)
class Route:
    """The way of a session to one URL. Not safe for several threads."""

    prepared: requests.PreparedRequest
    adapter: BaseAdapter
    settings: Mapping[str, Any]  # proxies, certificates

    @classmethod
    def find(cls, session: requests.Session, url: str, headers: Mapping[str, str]) -> Route:
        """With the certificates that the session has now; the environment is read now, too."""
        prepared = session.prepare_request(requests.Request("POST", url, headers=dict(headers)))
        authority = session.verify if isinstance(session.verify, str) else None
        found = session.merge_environment_settings(url, {}, None, authority, session.cert)
        settings = {name: found[name] for name in ("proxies", "verify", "cert")}
        return cls(prepared, session.get_adapter(url), settings)

    def post(
        self, body: bytes, seconds: float, headers: Mapping[str, str | None] | None = None
    ) -> requests.Response:
        """One request; the body of the answer is unread: close it.

        Args:
            body: what is sent.
            seconds: for connecting and waiting for the answer's head together.
            headers: of this request; None takes one away that an earlier request had.

        Raises:
            requests.RequestException: no answer.
        """
        request = self.prepared
        request.body = body
        request.headers["Content-Length"] = str(len(body))
        for name, value in (headers or {}).items():
            if value is None:
                request.headers.pop(name, None)
            else:
                request.headers[name] = value
        limit: Any = Timeout(total=seconds)
        return self.adapter.send(request, stream=True, timeout=limit, **self.settings)
