"""Alerts about the watcher itself: a part that is blind must never look healthy."""

from __future__ import annotations

from dataclasses import dataclass

from arobust_otel.model import signals
from arobust_otel.model.prometheus_names import label_name, metric_name

DOCS_LABEL = "arobust_docs"


def link(alert: str) -> str:
    """Where an alert's runbook is: a path in this repository, behind what Prometheus says in `DOCS_LABEL`."""
    return f"{{{{ $externalLabels.{DOCS_LABEL} }}}}docs/alerts.md#{alert.lower()}"


@dataclass(frozen=True, slots=True)
class MasterAlert:
    """An alert about the watcher itself."""

    name: str
    expr: str
    hold: str
    severity: str
    summary: str
    description: str

    @property
    def labels(self) -> dict[str, str]:
        """Beside those of the series."""
        return {"severity": self.severity, "arobust_tier": "master"}

    @property
    def annotations(self) -> dict[str, str]:
        """As for every alert."""
        told = {"summary": self.summary, "description": self.description}
        return told | {"runbook_url": link(self.name)}


MASTER_UP, LAG, DROPPED, LOST, JUDGE_LAG, WRITABLE = (
    metric_name(name)
    for name in (
        signals.MASTER_UP, signals.FORWARDER_LAG, signals.FORWARDER_DROPPED, signals.CLIENT_DROPPED,
        signals.JUDGE_LAG, signals.JOURNAL_WRITABLE,
    )
)  # fmt: skip
FORWARDER, REASON, ROLE = (
    label_name(name) for name in (signals.FORWARDER, signals.REASON, signals.MASTER_ROLE)
)


def _grown(metric: str) -> str:
    """Whether a counter grew in the last quarter of an hour; `increase` misses a first value."""
    return f"increase({metric}[15m]) > 0 or ({metric} unless {metric} offset 15m) > 0"


MASTER_ALERTS = (
    MasterAlert(
        "ArobustMasterBlind",
        'up{job="arobust-master"} == 0 or absent(up{job="arobust-master"})',
        "1m",
        "critical",
        "A master does not answer: nobody would say which rank hangs",
        "Prometheus cannot scrape it, or knows of none, so that incidents that begin now are not seen. Start "
        "`arobust master`, or correct the target of the scrape job `arobust-master`. What agents report "
        "meanwhile is kept and judged later.",
    ),
    MasterAlert(
        "ArobustMasterRoleDown",
        f"{MASTER_UP} == 0",
        "30s",
        "critical",
        f"The master's process {{{{ $labels.{ROLE} }}}} does not run",
        "The supervisor starts it again, and what arrived is in the journal. Where this lasts, the master's "
        "own words say why; `arobust status` shows all roles.",
    ),
    MasterAlert(
        "ArobustJudgeBehind",
        f'{JUDGE_LAG} > 60 or ({MASTER_UP}{{{ROLE}="judge"}} == 1 unless on (instance) {JUDGE_LAG})',
        "1m",
        "critical",
        "Nobody judges: a rank that hangs now is named late or not at all",
        "The judge's process is there, but what it judged last came in more than a minute ago, or it says "
        "nothing any more. `arobust status --json` shows how far it is behind, or has no answer either. "
        "Where that does not shrink end the judge's process (`roles` in the data folder's `master.json`): "
        "the supervisor starts it again, and it judges on from the journal.",
    ),
    MasterAlert(
        "ArobustJournalFull",
        f"{WRITABLE} == 0",
        "1m",
        "critical",
        "The journal's disk is full: the master takes nothing",
        "Senders are told to come again and keep what they can, agents on their own disks; nothing that "
        "happens now is judged. Make room on the disk of the master's `data_dir`, or lower "
        "`retention_bytes`. `arobust status --json` has `blocked_bytes`: what is kept over that limit only "
        "because a forwarder has not delivered it.",
    ),
    MasterAlert(
        "ArobustForwarderBehind",
        f"{LAG} > 300",
        "5m",
        "warning",
        f"Forwarder {{{{ $labels.{FORWARDER} }}}} is {{{{ $value | humanizeDuration }}}} behind",
        "Its destination is away, slow or refuses us: `arobust status` has the last answer. Nothing is lost "
        "before the journal's retention ends, and verdicts do not wait for it.",
    ),
    MasterAlert(
        "ArobustForwarderDrops",
        _grown(DROPPED),
        "0s",
        "warning",
        f"Forwarder {{{{ $labels.{FORWARDER} }}}} gave items up: {{{{ $labels.{REASON} }}}}",
        "The destination will never take them: too old, refused one by one, or past retention. The reason is "
        "a label, the last answer in `arobust status`.",
    ),
    MasterAlert(
        "ArobustAgentDrops",
        _grown(LOST),
        "0s",
        "warning",
        f"An agent gave telemetry up: {{{{ $labels.{REASON} }}}}",
        "The master was away for longer than queue and spool of the agent could hold. Bulk logs go first, "
        "facts last; verdicts of that time may miss evidence.",
    ),
    MasterAlert(
        "ArobustWatchdog",
        'count(up{job="arobust-master"} == 1) > 0',
        "0s",
        "none",
        "Always firing while a master is seen: a dead-man switch",
        "Send it to a receiver that alarms when it stops to come: then master, Prometheus or Alertmanager is "
        "away, and none of them could say so.",
    ),
)
