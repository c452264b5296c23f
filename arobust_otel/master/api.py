"""The query API of the judge as a raw ASGI application: read-only JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import parse_qs

from arobust_otel.master.judgement import Judgement
from arobust_otel.model.incident import STATUSES
from arobust_otel.otlp.status import Encoding
from arobust_otel.receiver.answers import Answer, Refusal, json_answer
from arobust_otel.receiver.auth import is_authorised
from arobust_otel.receiver.body import Receive, Scope
from arobust_otel.receiver.http import HEALTH_PATH, Send, respond

PREFIX = "/api/v1/"
Query = dict[str, str]


class Judge(Protocol):
    """Where the answers come from."""

    judgement: Judgement

    def status(self) -> dict[str, Any]:
        """Counters of all roles."""
        ...


class ApiApp:
    """ASGI application; `token` empty admits everybody (on loopback only, see `receiver.auth`)."""

    def __init__(self, judge: Judge, token: str = "") -> None:
        self._judge = judge
        self._token = token
        # path: (answer, names that its query may have)
        self._routes: dict[str, tuple[Callable[[Query], Any], tuple[str, ...]]] = {
            PREFIX + "incidents": (self._incidents, ("job_id", "status", "id")),
            PREFIX + "jobs": (self._jobs, ()),
            PREFIX + "ranks": (self._ranks, ("job_id",)),
            PREFIX + "agents": (self._agents, ()),
            PREFIX + "status": (lambda _: self._judge.status(), ()),
            HEALTH_PATH: (lambda _: {"status": "ok"}, ()),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one query."""
        try:
            answer = json_answer(200, _dumps(self._answer(scope)))
        except Refusal as refusal:
            body = _dumps({"error": refusal.message})
            answer = Answer(refusal.status, body, Encoding.JSON.value, refusal.headers)
        await respond(send, answer)

    def _answer(self, scope: Scope) -> Any:
        path = scope["path"]
        if path not in self._routes:
            raise Refusal(404, f"{path[:200]} is not served; try {', '.join(self._routes)}")
        if scope["method"] not in ("GET", "HEAD"):
            raise Refusal(405, "this API only reads", headers=((b"allow", b"GET, HEAD"),))
        if path != HEALTH_PATH and not is_authorised(self._token, _header(scope, b"authorization")):
            raise Refusal(401, "no valid bearer token", headers=((b"www-authenticate", b"Bearer"),))
        answer, names = self._routes[path]
        return answer(_query(scope, names))

    def _incidents(self, query: Query) -> Any:
        status = query.get("status")
        if status is not None and status not in STATUSES:
            raise Refusal(400, f"status={status[:50]}: one of {', '.join(STATUSES)}")
        engine = self._judge.judgement.engine
        rows = [incident.to_json() for incident in (engine.incidents() if engine else [])]
        wanted = [row for row in rows if all(row[name] == value for name, value in query.items())]
        if "id" in query and not wanted:
            raise Refusal(404, f"no incident has the id {query['id'][:50]}")
        return {"incidents": wanted}

    def _jobs(self, _query: Query) -> Any:
        engine = self._judge.judgement.engine
        return {"jobs": engine.jobs() if engine else []}

    def _ranks(self, query: Query) -> Any:
        engine = self._judge.judgement.engine
        job_id = query.get("job_id")
        if job_id is not None and not any(
            row["job_id"] == job_id for row in (engine.jobs() if engine else [])
        ):
            raise Refusal(404, f"no job has the id {job_id[:100]}")
        return {"ranks": engine.ranks(job_id) if engine else []}

    def _agents(self, _query: Query) -> Any:
        engine = self._judge.judgement.engine
        return {"agents": engine.agents() if engine else []}


def _query(scope: Scope, names: tuple[str, ...]) -> Query:
    values = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=20)
    for name in values:
        if name not in names:
            expected = f"the names are {', '.join(names)}" if names else "there are none"
            raise Refusal(400, f"{name[:50]} is not a name of this query; {expected}")
    return {name: found[-1] for name, found in values.items()}


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == wanted), None)


def _dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> Any:
    """Numbers of numpy, which the engine's rows may hold."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")
