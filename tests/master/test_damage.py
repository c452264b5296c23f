"""A journal that is damaged where some destination still has to read: the rest is delivered to all."""

from __future__ import annotations

from pathlib import Path

import requests

from arobust_otel.journal.segments import segment_path
from arobust_otel.master.incident_streams import OtlpStream
from tests.forwarders.sink import sinking
from tests.master.delivering import World, an_incident, points_of, request
from tests.master.running import Master, forward_to, settings_for, until

GROUP = b"\x1b\x1c"  # a field that no version of OTLP has, which every parser of protobuf passes over


def spoil(journal: Path, text: bytes) -> None:
    """One byte in the record that holds this text."""
    path = segment_path(journal, 0)
    position = path.read_bytes().index(text)
    with path.open("r+b") as handle:
        handle.seek(position)
        handle.write(b"X")


def names_of(bodies: list[bytes]) -> list[str]:
    return [name for name, _ in points_of(bodies)]


def test_a_damaged_record_is_passed_over_and_counted(world: World) -> None:
    for number in range(9):
        world.append(request(f"m{number}"))
        world.appender.sync()
    spoil(world.folder / "journal", b"m4")
    stream = world.deliver()
    assert names_of(world.sink.bodies("metrics")) == [f"m{number}" for number in range(9) if number != 4]
    assert stream.sender.counts.dropped == {"damaged": 1}
    assert stream.sender.counts.next_offset == 9


def test_incidents_behind_damage_are_told(world: World) -> None:
    for number in range(3):
        world.incident(an_incident(id=f"i{number}", job_id=f"job-{number}"))
        world.appender.sync()
    spoil(world.folder / "journal", b"job-1")
    stream = world.deliver(OtlpStream)
    assert len(world.sink.bodies("logs")) == 2
    assert stream.sender.counts.dropped == {"damaged": 1}


def test_a_record_that_cannot_be_read_is_counted_and_ends_nothing(world: World) -> None:
    world.append(request("before"), b"\xff\xff", request("after"))
    stream = world.deliver()
    assert names_of(world.sink.bodies("metrics")) == ["before", "after"]
    assert stream.sender.counts.dropped == {"unreadable": 1}


def test_a_group_in_a_request_reaches_the_destination(world: World) -> None:
    world.append(request("before"), request("odd") + GROUP, request("after"))
    stream = world.deliver()
    assert names_of(world.sink.bodies("metrics")) == ["before", "odd", "after"]
    assert stream.sender.counts.dropped == {}


def test_damage_that_one_destination_meets_disturbs_no_other(tmp_path: Path) -> None:
    with sinking() as away, sinking() as well:
        away.judge = lambda signal, body: (503, {}, b"")
        forwarders = forward_to(away.url, "away") + forward_to(well.url, "well")
        with Master(settings_for(tmp_path, forwarders=forwarders)) as master:
            _post(master, "m00")
            until("a try: it reads nothing more meanwhile", lambda: away.asked)
            for number in range(1, 20):
                _post(master, f"m{number:02}")
            until("all at one", lambda: len(names_of(well.bodies("metrics"))) == 20)
            spoil(tmp_path / "journal", b"m10")
            away.judge = lambda signal, body: (200, {}, b"")
            until("the rest at the other", lambda: len(names_of(away.bodies("metrics"))) == 19)
            _post(master, "late")
            until("both go on", lambda: all("late" in names_of(s.bodies("metrics")) for s in (away, well)))
            assert master.info()["restarts"] == {"receive": 0, "judge": 0, "deliver": 0}
            assert names_of(well.bodies("metrics")) == [f"m{number:02}" for number in range(20)] + ["late"]
            until("it is told", lambda: _dropped(master, "away") == {"damaged": 1})
            assert _dropped(master, "well") == {}


def _dropped(master: Master, name: str) -> dict[str, int] | None:
    rows = (master.query("/api/v1/status") or {}).get("forwarders", {})
    return rows[name]["bulk"]["dropped"] if name in rows else None


def _post(master: Master, name: str) -> None:
    headers = {"content-type": "application/x-protobuf"}
    assert requests.post(f"{master.url}/v1/metrics", request(name), headers=headers, timeout=20).ok
