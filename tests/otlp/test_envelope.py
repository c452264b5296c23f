"""Marking and cutting at the outermost layer: bytes of the sender stay as they are."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from arobust_otel.errors import DecodeError
from arobust_otel.model import signals
from arobust_otel.otlp.envelope import MARK, halves, outgoing
from arobust_otel.otlp.validate import validate


def logs(*bodies: str) -> bytes:
    request = ExportLogsServiceRequest()
    for body in bodies:
        record = request.resource_logs.add().scope_logs.add().log_records.add()
        record.body.string_value = body
    return request.SerializeToString()


def test_a_marked_request_is_the_same_with_one_attribute_more() -> None:
    marked = ExportLogsServiceRequest.FromString(outgoing("logs", logs("a", "b")))
    for entry in marked.resource_logs:
        (pair,) = entry.resource.attributes
        assert (pair.key, pair.value.bool_value) == (signals.FORWARDED, True)
        entry.ClearField("resource")
    assert marked.SerializeToString() == logs("a", "b")


def test_marking_twice_leaves_nothing() -> None:
    assert outgoing("logs", outgoing("logs", logs("a"))) == b""


def test_text_that_only_mentions_the_mark_is_not_marked() -> None:
    assert outgoing("logs", logs(f"what is {signals.FORWARDED}?", MARK.decode("latin-1")))


def test_fields_of_a_later_version_pass() -> None:
    later = b"\x12\x03new" + b"\x18\x05"
    assert outgoing("logs", later + logs("a")).startswith(later)


@pytest.mark.parametrize(
    "group", [b"\x1b\x1c", b"\x1b\x08\x01\x23\x12\x01x\x24\x1c", b"\x1b" * 99 + b"\x1c" * 99]
)
def test_a_group_that_the_parser_takes_passes(group: bytes) -> None:
    body = group + logs("a") + group
    assert validate("logs", body).body == body
    passed = outgoing("logs", body)
    assert passed.startswith(group)
    assert passed.endswith(group)
    assert len(ExportLogsServiceRequest.FromString(passed).resource_logs) == 1


@pytest.mark.parametrize(
    "body", [b"\x0a\x05ab", b"\x0a", b"\x0b", b"\x1b\x08\x01", b"\x1c", b"\x0a" + b"\xff" * 12]
)
def test_what_is_cut_short_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        outgoing("logs", body)


def test_halves_end_at_a_single_record() -> None:
    left, right = halves("logs", logs("a", "b", "c")) or (b"", b"")
    assert (left, right) == (logs("a"), logs("b", "c"))
    assert halves("logs", left) is None
