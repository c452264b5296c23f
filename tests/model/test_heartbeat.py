"""Heartbeats on the wire: what is written reads back, unknown fields pass, wrong ones are named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arobust_otel.model.heartbeat import (
    CAPTURE_STACKS,
    CollectorReport,
    Command,
    CommandResult,
    Heartbeat,
    RankReport,
    Reply,
    decode_heartbeat,
    decode_reply,
    encode,
)

WORDS = st.text(min_size=1, max_size=20)
NUMBERS = st.integers(0, 2**40)
RANKS = st.builds(RankReport, NUMBERS, NUMBERS, NUMBERS, st.sampled_from("RSDTtZX"), WORDS, st.booleans())
HEARTBEATS = st.builds(
    Heartbeat,
    agent=WORDS,
    job_id=WORDS,
    incarnation=NUMBERS,
    sequence=NUMBERS,
    host=WORDS,
    time_ns=NUMBERS,
    interval_seconds=st.floats(0.1, 60),
    world_size=NUMBERS,
    node_rank=st.none() | NUMBERS,
    final=st.booleans(),
    ranks=st.lists(RANKS, max_size=4).map(tuple),
    collectors=st.lists(st.builds(CollectorReport, WORDS, st.booleans(), WORDS), max_size=3).map(tuple),
    gaps=st.lists(WORDS, max_size=3).map(tuple),
    results=st.lists(st.builds(CommandResult, WORDS, WORDS, WORDS), max_size=3).map(tuple),
    stats=st.dictionaries(WORDS, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
)
BEAT = Heartbeat(
    agent="gpu-a/job",
    job_id="job",
    incarnation=0,
    sequence=1,
    host="gpu-a",
    time_ns=1,
    interval_seconds=2.0,
    world_size=4,
)
COMMAND = Command("c1", CAPTURE_STACKS, "gpu-a/job", "job", 0, 20.0, (2,))


def changed(**fields: Any) -> bytes:
    values = json.loads(encode(BEAT))
    values.update(fields)
    return json.dumps(values).encode()


@given(HEARTBEATS)
def test_a_heartbeat_reads_back(heartbeat: Heartbeat) -> None:
    assert decode_heartbeat(encode(heartbeat)) == heartbeat


def test_a_reply_reads_back() -> None:
    reply = Reply(interval_seconds=2.0, commands=(COMMAND,))
    assert decode_reply(encode(reply)) == reply


def test_fields_of_a_newer_version_are_ignored() -> None:
    body = changed(
        colour="blue", ranks=[{"rank": 0, "local_rank": 0, "pid": 1, "state": "R", "mood": "good"}]
    )
    assert decode_heartbeat(body).ranks == (RankReport(0, 0, 1, "R"),)


def test_commands_of_a_newer_version_are_left_out() -> None:
    values = json.loads(encode(Reply(2.0, (COMMAND,))))
    values["commands"].append({**values["commands"][0], "kind": "dance"})
    assert decode_reply(json.dumps(values).encode()).commands == (COMMAND,)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[]", "a JSON object"),
        (b"{}", "missing"),
        (b"{", "Expecting"),
        (changed(agent=""), "agent"),
        (changed(job_id=7), "job_id"),
        (changed(sequence="1"), "sequence"),
        (changed(world_size=1.5), "world_size"),
        (changed(ranks={}), "ranks is not a list"),
        (changed(ranks=[3]), "RankReport is not a JSON object"),
        (changed(collectors=[{"name": "x"}]), "ok"),
    ],
)
def test_what_is_no_heartbeat_is_refused_in_words(body: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        decode_heartbeat(body)


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"commands": [{"kind": "capture_stacks"}]}'])
def test_what_is_no_reply_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        decode_reply(body)
