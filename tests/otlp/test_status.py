from __future__ import annotations

import json

import pytest
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from arobust_otel.otlp.status import MAX_MESSAGE_CHARACTERS, Encoding, encoding_of, failure, success


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("application/x-protobuf", Encoding.PROTOBUF),
        ("Application/JSON; charset=utf-8", Encoding.JSON),
        (" application/json ", Encoding.JSON),
        ("text/plain", None),
        ("", None),
        ("application/jsonp", None),
    ],
)
def test_content_type_is_read_as_a_media_type(header: str, encoding: Encoding | None) -> None:
    assert encoding_of(header) is encoding


@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
def test_full_success_has_an_empty_body_in_protobuf_and_an_empty_object_in_json(signal: str) -> None:
    assert success(signal, Encoding.PROTOBUF) == b""
    assert json.loads(success(signal, Encoding.JSON)) == {}


def test_partial_success_counts_and_explains_in_both_encodings() -> None:
    parsed = ExportTraceServiceResponse.FromString(success("traces", Encoding.PROTOBUF, 3, "bad ids"))
    assert (parsed.partial_success.rejected_spans, parsed.partial_success.error_message) == (3, "bad ids")
    wanted = {"metrics": "rejectedDataPoints", "logs": "rejectedLogRecords", "traces": "rejectedSpans"}
    for signal, name in wanted.items():
        body = json.loads(success(signal, Encoding.JSON, 3, "why"))
        assert body == {"partialSuccess": {name: "3", "errorMessage": "why"}}


def test_warning_is_a_partial_success_that_rejects_nothing() -> None:
    parsed = ExportTraceServiceResponse.FromString(success("traces", Encoding.PROTOBUF, 0, "old version"))
    assert parsed.HasField("partial_success")
    assert parsed.partial_success.rejected_spans == 0


@pytest.mark.parametrize(
    ("status", "code"), [(400, 3), (401, 16), (404, 12), (413, 8), (429, 8), (500, 13), (503, 14), (418, 2)]
)
def test_failure_is_a_google_status_in_both_encodings(status: int, code: int) -> None:
    parsed = Status.FromString(failure(status, Encoding.PROTOBUF, "why"))
    assert (parsed.code, parsed.message) == (code, "why")
    body = json.loads(failure(status, Encoding.JSON, "why"))
    assert (body["code"], body["message"]) == (code, "why")


def test_bad_request_carries_details_that_say_the_same() -> None:
    parsed = Status.FromString(failure(400, Encoding.PROTOBUF, "cut short"))
    details = BadRequest()
    assert parsed.details[0].Unpack(details)
    assert details.field_violations[0].description == "cut short"
    (detail,) = json.loads(failure(400, Encoding.JSON, "cut short"))["details"]
    assert detail["@type"] == "type.googleapis.com/google.rpc.BadRequest"
    assert detail["fieldViolations"][0]["description"] == "cut short"
    assert not Status.FromString(failure(503, Encoding.PROTOBUF, "later")).details


def test_messages_are_short_and_always_text() -> None:
    long = "x" * 10**6
    assert len(failure(400, Encoding.PROTOBUF, long)) < 3 * MAX_MESSAGE_CHARACTERS
    assert len(success("logs", Encoding.JSON, 1, long)) < 2 * MAX_MESSAGE_CHARACTERS
    assert Status.FromString(failure(400, Encoding.PROTOBUF, "lone \ud800")).message == "lone ?"
    assert b"lone ?" in success("logs", Encoding.PROTOBUF, 1, "lone \ud800")
