"""One hang for which two ranks were captured, as the engine puts it out; a minute old: stores refuse more."""

from __future__ import annotations

import json
import time
from typing import Any

from arobust_otel.model.incident import Action, Culprit, Evidence, Incident, rfc3339

_SECOND_NS = 10**9
_BEGUN_NS = time.time_ns() - 60 * _SECOND_NS
STACK = "read_shard (/app/data.py:88)\nmain (/app/train.py:10)"

INCIDENT: dict[str, Any] = json.loads(
    json.dumps(
        Incident(
            id="0123456789abcdef",
            job_id="gpt",
            incarnation=1,
            rule="hang",
            cause="hang_user_code",
            status="open",
            first_evidence_ns=_BEGUN_NS,
            opened_ns=_BEGUN_NS + 10 * _SECOND_NS,
            updated_ns=_BEGUN_NS + 12 * _SECOND_NS,
            resolved_ns=None,
            culprits=(Culprit(rank=2, local_rank=2, role="trainer", pid=4711, node="gpu-a"),),
            victims=(0, 1, 3),
            grade="two_witnesses",
            summary="Rank 2 hangs in read_shard (data.py:88)",
            evidence=(Evidence(_BEGUN_NS, "stack", "the same stack twice", "agent gpu-a/gpt"),),
            unseen=(),
            action=Action("restart_worker", "rank 2", "its code does not return"),
            refuted_by="step 12 appears",
        ).to_json()
    )
)
STACKS: list[dict[str, Any]] = [
    {
        "rank": rank,
        "pid": 4711 + rank,
        "at": rfc3339(_BEGUN_NS + 11 * _SECOND_NS),
        "method": "py-spy",
        "text": f"{STACK}\nrank {rank}",
    }
    for rank in (0, 2)
]
