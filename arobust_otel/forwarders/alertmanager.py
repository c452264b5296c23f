"""Alertmanager: open incidents as alerts, said again and again, since an alert that nobody repeats ends.

Labels are what makes an alert the same one: few, and the same until the verdict is another. Everything that
may change from one evidence to the next is an annotation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from arobust_otel.errors import PermanentDelivery, RetryableDelivery
from arobust_otel.forwarders._http import (
    Poster,
    check_file,
    check_url,
    said,
    secret,
    shown,
    succeeded,
    wants_tls,
)
from arobust_otel.model import signals
from arobust_otel.model.incident import OPEN, rfc3339
from arobust_otel.model.notice import Told, labels_of
from arobust_otel.model.prometheus_names import label_name

PATH = "/api/v2/alerts"
REPEATS_TO_LIVE = 4  # an alert ends by itself where this many repetitions did not come
ALERTS_PER_REQUEST = 64
EVIDENCE_LINES = 5
_TEXT_CHARACTERS = 2000  # of one annotation


@dataclass
class Alertmanager:
    """Says open incidents to one or more Alertmanagers, and their end.

    Options:
        urls: base URLs, all members of a cluster; one that takes the alerts is enough for success.
        repeat_seconds: how often open incidents are said again. They end by themselves after four times this.
        labels: a table that every alert carries, for example the cluster.
        runbook_url: link of alerts; ``{cause}`` or ``{anchor}`` (heading of docs/alerts.md) is filled in,
            and where neither is there the cause is appended.
        token_file: file with a bearer token. ca_file: authorities to trust, PEM. timeout_seconds.
    """

    name: ClassVar[str] = "alertmanager"

    urls: tuple[str, ...] = ("http://127.0.0.1:9093",)
    repeat_seconds: float = field(default=60.0, metadata={"minimum": 0.1})
    labels: Mapping[str, str] = field(default_factory=dict)
    runbook_url: str = ""
    token_file: str = ""
    ca_file: str = ""
    timeout_seconds: float = field(default=10.0, metadata={"minimum": 0.1})

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigurationError: names the option.
        """
        for url in self.urls or ("",):
            check_url("urls", url, "http://alertmanager:9093, in a list")
        check_file("token_file", self.token_file)
        check_file("ca_file", self.ca_file)
        self._poster = Poster(self.timeout_seconds, self.ca_file)

    def show(self, incidents: Sequence[Told], now_ns: int) -> None:
        """Say all alerts to every member; an empty list too, which shows whether anybody would hear us.

        Raises:
            RetryableDelivery: no member took some of them.
            PermanentDelivery: all members refuse some of them as they are.
        """
        alerts = [self._alert(incident, now_ns) for incident in incidents]
        refusal: PermanentDelivery | None = None
        for start in range(0, max(1, len(alerts)), ALERTS_PER_REQUEST):
            try:
                self._say(alerts[start : start + ALERTS_PER_REQUEST])
            except PermanentDelivery as error:  # one alert that is refused must not silence the others
                refusal = error
        if refusal is not None:
            raise refusal

    def close(self) -> None:
        """Close the connections."""
        self._poster.close()

    def _alert(self, incident: Told, now_ns: int) -> dict[str, Any]:
        ends_ns = now_ns + int(self.repeat_seconds * REPEATS_TO_LIVE * 1e9)
        is_open = incident["status"] == OPEN
        return {
            "labels": {**self.labels, **alert_labels(incident)},
            "annotations": alert_annotations(incident, self.runbook_url),
            "startsAt": incident["opened_at"] or incident["first_evidence_at"],
            "endsAt": rfc3339(ends_ns) if is_open else incident["resolved_at"] or incident["updated_at"],
        }

    def _say(self, alerts: list[dict[str, Any]]) -> None:
        body = json.dumps(alerts).encode()
        errors = [error for error in (self._post(url, body) for url in self.urls) if error is not None]
        if len(errors) == len(self.urls):
            refused = [error for error in errors if isinstance(error, PermanentDelivery)]
            raise refused[0] if len(refused) == len(errors) else errors[0]

    def _post(self, base: str, body: bytes) -> PermanentDelivery | RetryableDelivery | None:
        url = base.rstrip("/") + PATH
        headers = {"content-type": "application/json"}
        try:
            if self.token_file:
                headers["authorization"] = f"Bearer {secret(self.token_file)}"
            response = self._poster.post(url, body, headers, shown(url))
        except RetryableDelivery as error:
            return error
        if succeeded(response):
            return None
        is_final = response.status_code in (400, 413, 422) and not wants_tls(response)
        kind = PermanentDelivery if is_final else RetryableDelivery
        return kind(said(shown(url), response))


def alert_labels(incident: Told) -> dict[str, str]:
    """`alertname` is the cause; severity, job, rule, and the culprit's rank and host where it is one."""
    values = {signals.JOB_ID: incident["job_id"], **labels_of(incident)}
    cause = values.pop(signals.CAUSE)
    severity = values.pop(signals.SEVERITY)
    named = {label_name(key): str(value) for key, value in values.items()}
    return {"alertname": str(cause), "severity": str(severity), **named}


def alert_annotations(incident: Told, runbook_url: str) -> dict[str, str]:
    """What a tired person reads: summary, action with its reason, the best evidence, a link."""
    action = incident["action"]
    target = f" {action['target']}" if action["target"] else ""
    supporting = [row["says"] for row in incident["evidence"] if row["supports"]]
    found = {
        "summary": incident["summary"],
        "action": f"{action['kind']}{target}: {action['why']}",
        "evidence": "\n".join(supporting[:EVIDENCE_LINES]),
        "grade": incident["grade"],
        "refuted_by": incident["refuted_by"],
        "incident_id": incident["id"],
        "runbook_url": runbook_of(runbook_url, incident["cause"]) if runbook_url else "",
    }
    return {key: text[:_TEXT_CHARACTERS] for key, text in found.items() if text}


def runbook_of(pattern: str, cause: str) -> str:
    """The link of a cause.

    >>> runbook_of("https://wiki/alerts.md#{anchor}", "process_killed")
    'https://wiki/alerts.md#arobustprocesskilled'
    """
    if "{" not in pattern:
        return f"{pattern.rstrip('/')}/{cause}"
    return pattern.replace("{cause}", cause).replace("{anchor}", f"arobust{cause.replace('_', '')}")
