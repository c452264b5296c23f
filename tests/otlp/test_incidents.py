from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from arobust_otel.model import signals
from arobust_otel.model.incident import Action, Culprit, Evidence, Incident, rfc3339
from arobust_otel.otlp.attributes import to_attributes
from arobust_otel.otlp.decode import decode
from arobust_otel.otlp.incidents import digest, incident_gauge, incident_requests, span_id, to_ns, trace_id
from arobust_otel.otlp.validate import validate

T = 1_700_000_000_123_456_000
SECOND = 10**9
STACK = "read_shard (/app/data.py:88)\nmain (/app/train.py:10)"

INCIDENT = Incident(
    id="0123456789abcdef",
    job_id="job-7",
    incarnation=1,
    rule="hang",
    cause="hang_user_code",
    status="open",
    first_evidence_ns=T,
    opened_ns=T + 10 * SECOND,
    updated_ns=T + 12 * SECOND,
    resolved_ns=None,
    culprits=(Culprit(rank=2, local_rank=2, role="trainer", pid=4711, node="gpu-a"),),
    victims=(0, 1, 3),
    grade="two_witnesses",
    summary="Rank 2 hangs in read_shard (data.py:88)",
    evidence=(Evidence(T, "stack", "the same stack twice", "agent gpu-a/job-7"),),
    unseen=(),
    action=Action("restart_worker", "rank 2", "its code does not return"),
    refuted_by="step 12 appears",
)
STACKS = [{"rank": 2, "pid": 4711, "at": rfc3339(T + 11 * SECOND), "method": "py-spy", "text": STACK}]


def output(incident: Incident = INCIDENT, stacks: Any = STACKS) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(json.dumps({"incident": incident.to_json(), "stacks": stacks}))
    return body


def requests(incident: Incident = INCIDENT, stacks: Any = STACKS) -> dict[str, bytes]:
    return dict(incident_requests(output(incident, stacks)))


def log_records(incident: Incident = INCIDENT, stacks: Any = STACKS) -> list[Any]:
    parsed = ExportLogsServiceRequest.FromString(requests(incident, stacks)["logs"])
    return list(parsed.resource_logs[0].scope_logs[0].log_records)


def span(incident: Incident = INCIDENT, stacks: Any = STACKS) -> Any:
    parsed = ExportTraceServiceRequest.FromString(requests(incident, stacks)["traces"])
    return parsed.resource_spans[0].scope_spans[0].spans[0]


def test_same_output_gives_the_same_bytes_logs_first_and_all_are_valid() -> None:
    found = incident_requests(output())
    assert [signal for signal, _ in found] == ["logs", "metrics", "traces"]
    assert found == incident_requests(output())
    assert [validate(signal, body).items for signal, body in found] == [2, 1, 1]
    assert all(validate(signal, body).rejected == 0 for signal, body in found)


def test_log_record_carries_the_verdict_as_json_and_its_severity() -> None:
    record = log_records()[0]
    assert json.loads(record.body.string_value) == INCIDENT.to_json()
    assert (record.event_name, record.severity_number, record.severity_text) == (
        signals.INCIDENT_EVENT,
        17,
        "ERROR",
    )
    assert record.time_unix_nano == T + 12 * SECOND
    attributes = to_attributes(record.attributes)
    assert attributes == {
        signals.EVENT_NAME: signals.INCIDENT_EVENT,
        signals.INCIDENT_ID: INCIDENT.id,
        signals.INCIDENT_STATUS: "open",
        signals.INCIDENT_GRADE: "two_witnesses",
        signals.RULE: "hang",
        signals.CAUSE: "hang_user_code",
        signals.SEVERITY: "critical",
        signals.RANK: 2,
        signals.HOST_NAME: "gpu-a",
    }


def test_resolved_incident_is_no_error_any_more_and_its_gauge_goes_to_zero() -> None:
    resolved = INCIDENT.changed(status="resolved", resolved_ns=T + 20 * SECOND, updated_ns=T + 20 * SECOND)
    assert log_records(resolved)[0].severity_number == 9
    (batch,) = decode("metrics", requests(resolved)["metrics"])
    assert batch.metrics is not None
    assert batch.metrics.value.tolist() == [0.0]
    assert span(resolved).end_time_unix_nano == T + 20 * SECOND
    assert span(resolved).status.code == 0


def test_pending_incident_is_a_log_record_only() -> None:
    pending = INCIDENT.changed(status="pending", opened_ns=None)
    assert list(requests(pending)) == ["logs"]
    assert log_records(pending)[0].severity_number == 9


def test_gauge_has_job_rule_cause_and_culprit_and_never_the_incident_id() -> None:
    body = incident_gauge(INCIDENT.to_json(), T + 5)
    (batch,) = decode("metrics", body)
    assert batch.metrics is not None
    assert batch.metrics.names == (signals.INCIDENT_OPEN,)
    assert (batch.metrics.value.tolist(), batch.metrics.rank.tolist()) == ([1.0], [2])
    assert batch.metrics.time_ns.tolist() == [T + 5]
    assert (batch.resource.job_id, batch.resource.incarnation) == ("job-7", 1)
    assert batch.resource.service_name == "arobust-master"
    assert INCIDENT.id.encode() not in body


@pytest.mark.parametrize("culprits", [(), (Culprit(rank=1), Culprit(rank=2)), (Culprit(node="gpu-a"),)])
def test_gauge_has_no_rank_where_not_exactly_one_is_to_blame(culprits: tuple[Culprit, ...]) -> None:
    (batch,) = decode("metrics", incident_gauge(INCIDENT.changed(culprits=culprits).to_json(), T))
    assert batch.metrics is not None
    assert batch.metrics.rank.tolist() == [-1]


def test_everything_a_master_makes_is_marked_as_forwarded() -> None:
    for signal, body in incident_requests(output()):
        assert signals.FORWARDED.encode() in body, signal


def test_span_lasts_from_first_evidence_to_the_last_update() -> None:
    found = span()
    assert (found.start_time_unix_nano, found.end_time_unix_nano) == (T, T + 12 * SECOND)
    assert (found.trace_id, found.span_id) == (trace_id(INCIDENT.id), span_id(INCIDENT.id))
    assert (len(found.trace_id), len(found.span_id)) == (16, 8)
    assert found.status.code == 2
    assert found.status.message == INCIDENT.summary
    backwards = INCIDENT.changed(updated_ns=T - SECOND)
    assert span(backwards).end_time_unix_nano == T


def test_stack_travels_whole_in_a_log_record_of_the_same_trace() -> None:
    long = "\n".join(f"function_{number} (/app/{'x' * 80}.py:{number})" for number in range(500))
    stacks = [{**STACKS[0], "text": long}]
    verdict, stack = log_records(stacks=stacks)
    assert (stack.trace_id, stack.span_id) == (verdict.trace_id, verdict.span_id)
    assert (stack.event_name, stack.body.string_value) == (signals.STACK_DUMP, long)
    assert stack.time_unix_nano == T + 11 * SECOND
    (event,) = span(stacks=stacks).events
    assert event.name == signals.STACK_DUMP
    assert event.ByteSize() < 2048
    found = to_attributes(event.attributes)
    assert (
        found[signals.STACK_DIGEST] == to_attributes(stack.attributes)[signals.STACK_DIGEST] == digest(long)
    )
    assert str(found[signals.STACK_TEXT]).startswith("function_0 (/app/")
    assert (found[signals.RANK], found[signals.PID], found[signals.STACK_METHOD]) == (2, 4711, "py-spy")


def test_decoding_gives_the_facts_back() -> None:
    (batch,) = decode("logs", requests()["logs"])
    verdict, stack = batch.facts
    assert (verdict.name, verdict.rank) == (signals.INCIDENT_EVENT, 2)
    assert json.loads(verdict.body)["id"] == INCIDENT.id
    assert (stack.name, stack.rank, stack.body, stack.attributes[signals.PID]) == (
        signals.STACK_DUMP,
        2,
        STACK,
        4711,
    )
    (batch,) = decode("traces", requests()["traces"])
    assert (batch.stacks, batch.other) == ((), 1)


def test_stacks_with_unknown_parts_and_wild_text_spoil_nothing() -> None:
    stacks = [{"rank": None, "pid": None, "at": None, "method": None, "text": "lone \ud800 é" * 400}, {}]
    verdict, stack, empty = log_records(INCIDENT.changed(summary="\udfff"), stacks)
    assert signals.RANK not in to_attributes(stack.attributes)
    assert stack.time_unix_nano == verdict.time_unix_nano
    assert empty.body.string_value == ""
    first, _ = span(INCIDENT.changed(summary="\udfff"), stacks).events
    assert first.ByteSize() < 2048
    assert len(incident_requests({"incident": INCIDENT.to_json()})) == 3


def test_different_incidents_have_different_ids() -> None:
    assert trace_id("a") != trace_id("b")
    assert span_id("a") != span_id("b")


@pytest.mark.parametrize("time_ns", [0, 999_000, T, 4_102_444_800 * SECOND])
def test_times_of_incidents_are_read_back_exactly(time_ns: int) -> None:
    assert to_ns(rfc3339(time_ns)) == time_ns


def test_missing_time_is_zero_and_whole_seconds_are_read() -> None:
    assert to_ns(None) == 0
    assert to_ns("1970-01-01T00:00:01Z") == SECOND
