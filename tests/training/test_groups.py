"""From the recorder's local keys to names that all ranks share."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest

from arobust_otel.training.groups import GroupBook, UnknownGroup, backends, dump_status, name_counters

STATUS = {"0": {"last_enqueued_collective": 9, "last_completed_collective": 8}}


@pytest.mark.parametrize(
    ("configuration", "made"),
    [
        ("gloo", ["gloo"]),
        ("cpu:gloo,cuda:gloo", ["gloo"]),
        ("cpu:gloo,cuda:nccl", ["gloo", "nccl"]),
        ("cuda:nccl", ["nccl"]),
    ],
)
def test_backend_objects_of_a_configuration(configuration: str, made: list[str]) -> None:
    assert backends(configuration) == made


def test_each_backend_counts_its_own_objects() -> None:
    book = GroupBook()
    book.created("0", "cpu:gloo,cuda:nccl")
    book.created("5", "gloo")
    book.created("6", "cuda:nccl")
    assert [book.name("gloo", key) for key in ("0", "1")] == ["0", "5"]
    assert [book.name("nccl", key) for key in ("0", "1")] == ["0", "6"]


def test_a_group_that_is_gone_is_left_out_and_one_unseen_is_refused() -> None:
    book = GroupBook()
    book.created("0", "gloo")
    assert list(name_counters(book, "gloo", STATUS, {"0": "0-3"})) == [("0", "0-3", "gloo", 9, 8)]
    assert list(name_counters(book, "gloo", STATUS, {})) == []
    with pytest.raises(UnknownGroup):
        list(name_counters(book, "nccl", STATUS, {"0": "0-3"}))


def test_recorders_of_other_versions_are_absent_not_zero() -> None:
    assert dump_status(None, "gloo") is None
    assert dump_status(SimpleNamespace(), "nccl") is None
    assert dump_status(SimpleNamespace(_dump_nccl_trace=lambda: b""), "nccl") is None
    recorder = SimpleNamespace(_dump_fr_trace=lambda *_parts: pickle.dumps({"pg_status": STATUS}))
    assert dump_status(recorder, "gloo") == STATUS
    assert dump_status(recorder, "hccl") is None
