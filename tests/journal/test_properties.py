from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arobust_otel.errors import JournalError
from arobust_otel.journal import Appender, Kind, Reader, Record, Source
from arobust_otel.journal.segments import first_offsets, segment_path
from arobust_otel.journal.tail import recent_batches

entries = st.lists(
    st.tuples(
        st.sampled_from(Kind),
        st.binary(max_size=200),
        st.integers(0, 2**62),
        st.sampled_from(["", "logs", "metrics"]),
        st.text(max_size=20),
        st.booleans(),
    ),
    min_size=1,
    max_size=25,
)

bounded = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def read_all(folder: Path) -> list[Record]:
    records: list[Record] = []
    with Reader(folder) as reader:
        while found := reader.read(max_records=7):
            records += found
    return records


def batch_of(payload: bytes) -> str:
    """Some records have a batch id, others have none."""
    return payload[:16].hex() if len(payload) >= 16 else ""


def write(folder: Path, given_entries: list[tuple[Kind, bytes, int, str, str, bool]], size: int) -> None:
    with Appender.open(folder, segment_bytes=size) as appender:
        for kind, payload, received_ns, signal, sender, sync in given_entries:
            appender.append(
                kind, payload, received_ns=received_ns, source=Source(signal, sender, batch_of(payload))
            )
            if sync:
                appender.sync()


@bounded
@given(entries, st.integers(1, 1000))
def test_everything_appended_comes_back(given_entries, size) -> None:  # type: ignore[no-untyped-def]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, given_entries, size)
        records = read_all(folder)
        assert [(r.kind, r.payload, r.signal) for r in records] == [(e[0], e[1], e[3]) for e in given_entries]
        assert [r.batch for r in records] == [batch_of(e[1]) for e in given_entries]
        named = [(r.signal, r.batch) for r in records if r.batch and r.kind == Kind.REQUEST]
        assert recent_batches(folder, 1000) == named
        assert [r.offset for r in records] == list(range(len(records)))
        assert [r.received_ns for r in records] == sorted(r.received_ns for r in records)


@bounded
@given(entries, st.integers(50, 1000), st.integers(0, 10**6))
def test_any_kill_point_recovers_exactly_the_whole_records(given_entries, size, cut) -> None:  # type: ignore[no-untyped-def]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, given_entries, size)
        before = read_all(folder)
        last = segment_path(folder, first_offsets(folder)[-1])
        data = last.read_bytes()
        last.write_bytes(data[: 32 + cut % (len(data) - 31)])
        whole = read_all(folder)
        assert whole == before[: len(whole)]
        with Appender.open(folder) as appender:
            assert appender.next_offset == len(whole)
            appender.append(Kind.TICK, b"after", received_ns=0)
        assert read_all(folder)[:-1] == whole


@bounded
@given(
    entries,
    st.integers(50, 1000),
    st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=60))),
)
def test_random_bytes_raise_nothing_but_a_journal_error(given_entries, size, damage) -> None:  # type: ignore[no-untyped-def]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, given_entries, size)
        before = {record.offset: record for record in read_all(folder)}
        for place, junk in damage:
            firsts = first_offsets(folder)
            path = segment_path(folder, firsts[place % len(firsts)])
            data = bytearray(path.read_bytes())
            at = place % len(data)
            data[at : at + len(junk)] = junk
            path.write_bytes(data)
        try:
            assert all(record == before[record.offset] for record in read_all(folder))
            Appender.open(folder).close()
        except JournalError as error:
            said = str(error)
        else:
            said = ".segment"
        assert ".segment" in said
