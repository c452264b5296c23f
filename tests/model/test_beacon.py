"""The beacon format: what goes in comes out, and a torn page is known as torn."""

from __future__ import annotations

import string
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arobust_otel.errors import BeaconError
from arobust_otel.model import beacon
from arobust_otel.model import beacon_layout as at

NUMBER = st.integers(min_value=0, max_value=2**63 - 1)
POSITIVE = st.integers(min_value=1, max_value=2**62)
TEXT = st.text(alphabet=string.ascii_letters + string.digits + " /._-äß漢", max_size=14)

GROUPS = st.lists(
    st.builds(
        beacon.GroupCounters,
        name=TEXT,
        ranks=TEXT,
        backend=st.just("gloo"),
        enqueued=NUMBER,
        completed=NUMBER,
    ),
    max_size=at.MAX_GROUPS,
).map(tuple)

EXCEPTIONS = st.none() | st.builds(
    beacon.SeenException,
    time_ns=POSITIVE,
    step=NUMBER,
    type=TEXT,
    message=TEXT,
    function=TEXT,
    file=TEXT,
    line=NUMBER,
    thread=TEXT,
)

RANKS = st.builds(
    beacon.RankBeacon,
    pid=NUMBER,
    start_ticks=NUMBER,
    rank=NUMBER,
    local_rank=NUMBER,
    world_size=NUMBER,
    local_world_size=NUMBER,
    node_rank=st.none() | NUMBER,
    incarnation=NUMBER,
    job_id=TEXT,
    host=TEXT,
    role=st.just("trainer"),
    script=TEXT,
    born_ns=NUMBER,
    main_tid=NUMBER,
    watcher_tid=NUMBER,
    state=st.sampled_from(beacon.STATES),
    step=NUMBER,
    step_end_mono_ns=NUMBER,
    step_duration_ns=NUMBER,
    phase=st.sampled_from(beacon.PHASES),
    phase_since_mono_ns=NUMBER,
    event_mono_ns=NUMBER,
    event_count=st.integers(min_value=0, max_value=2**62),
    tick_count=NUMBER,
    tick_mono_ns=NUMBER,
    groups=GROUPS,
    groups_read_mono_ns=NUMBER,
    device_counters=st.booleans(),
    exception=EXCEPTIONS,
    exit_begun_ns=st.none() | POSITIVE,
    nonfinite_step=st.none(),
    nonfinite_ns=st.none(),
    loss=st.none() | st.floats(allow_nan=False),
    stack_request=NUMBER,
    stack_done=NUMBER,
    capabilities=st.sets(st.sampled_from(beacon.CAPABILITIES)).map(
        lambda names: tuple(name for name in beacon.CAPABILITIES if name in names)
    ),
    gaps=st.sets(st.sampled_from(tuple(beacon.GAPS))).map(
        lambda names: tuple(name for name in beacon.GAPS if name in names)
    ),
).map(lambda page: replace(page, event_mono_ns=max(page.event_mono_ns, page.phase_since_mono_ns)))

LAUNCHERS = st.builds(
    beacon.LauncherBeacon,
    pid=NUMBER,
    start_ticks=NUMBER,
    job_id=TEXT,
    incarnation=NUMBER,
    host=TEXT,
    born_ns=NUMBER,
    argv=TEXT,
    exit_begun_ns=st.none() | POSITIVE,
    signal_received=st.none() | st.integers(1, 64),
    children=st.lists(
        st.builds(
            beacon.Child,
            pid=NUMBER,
            start_ticks=NUMBER,
            rank=st.none() | NUMBER,
            local_rank=st.none() | NUMBER,
            born_ns=NUMBER,
            ended_ns=st.none() | POSITIVE,
            wait_status=st.none() | st.integers(-64, 255),
        ),
        max_size=at.MAX_CHILDREN,
    ).map(tuple),
)


@given(RANKS)
def test_a_rank_beacon_comes_back_as_it_was_written(written: beacon.RankBeacon) -> None:
    assert beacon.decode(beacon.encode(written)) == written


@given(LAUNCHERS)
def test_a_launcher_beacon_comes_back_as_it_was_written(written: beacon.LauncherBeacon) -> None:
    assert beacon.decode(beacon.encode(written)) == written


@given(st.integers())
def test_any_page_is_a_beacon_or_says_why_not(seed: int) -> None:
    page = Random(seed).randbytes(at.SIZE_BYTES)
    marked = at.RANK_MAGIC.to_bytes(8, "little") + at.VERSION.to_bytes(8, "little") + page[16:]
    assert isinstance(beacon.decode(marked), beacon.RankBeacon)
    with pytest.raises(BeaconError):
        beacon.decode(b"\0" * 8 + page[8:])


@given(st.text(max_size=60), st.integers(1, 40))
def test_text_is_cut_at_a_character(text: str, size: int) -> None:
    packed = at.pack_text(text, size)
    assert len(packed) == size
    assert at.unpack_text(packed) == packed.rstrip(b"\0").decode()


def _example() -> bytearray:
    launcher = beacon.LauncherBeacon(7, 1, "job", 0, "host", 1, "torchrun", None, None, ())
    return bytearray(beacon.encode(launcher))


def test_a_writer_inside_a_section_makes_the_page_torn(tmp_path: Path) -> None:
    page = _example()
    page[at.FACTS_SEQUENCE * 8] = 3
    path = tmp_path / beacon.launcher_file(7)
    path.write_bytes(page)
    assert beacon.read(path).torn
    page[at.FACTS_SEQUENCE * 8] = 4
    path.write_bytes(page)
    assert not beacon.read(path).torn


@pytest.mark.parametrize("content", [b"", b"short", b"\0" * at.SIZE_BYTES])
def test_what_is_no_beacon_says_so_with_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rank-0-1.beacon"
    path.write_bytes(content)
    with pytest.raises(BeaconError, match=r"rank-0-1\.beacon"):
        beacon.read(path)


def test_a_request_for_stacks_changes_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / beacon.launcher_file(7)
    path.write_bytes(_example())
    beacon.request_stacks(path, 5)
    written = path.read_bytes()
    assert int.from_bytes(written[at.STACK_REQUEST * 8 : at.STACK_REQUEST * 8 + 8], "little") == 5
    assert len(written) == at.SIZE_BYTES
    with pytest.raises(BeaconError):
        beacon.request_stacks(tmp_path / "missing", 1)


@given(st.text(max_size=200))
def test_a_job_id_becomes_one_harmless_path_component(job_id: str) -> None:
    name = beacon.safe_name(job_id)
    assert name not in {"", ".", ".."}
    assert "/" not in name
    assert "\0" not in name
    assert beacon.job_folder("/root", job_id).parent == Path("/root")
