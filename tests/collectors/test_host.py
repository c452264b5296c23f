"""The node's own gauges."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from arobust_otel.collectors.host import HostCollector, mount_of, parse_pressure
from arobust_otel.model import signals
from arobust_otel.plugins import Clock


def test_a_real_host(world, values) -> None:
    world.rank(os.getpid())
    collector = HostCollector(interval_seconds=0)
    items = list(collector.collect(world.clock(), world.node()))
    assert values(items, signals.HOST_CPU) == []  # a share needs two readings
    sum(range(3_000_000))
    items = list(collector.collect(world.clock(), world.node()))
    assert 0 < values(items, signals.HOST_CPU)[0] <= 1
    assert 0 < values(items, signals.HOST_MEMORY_USAGE)[0] < values(items, signals.HOST_MEMORY_LIMIT)[0]
    assert all(0 <= share <= 1 for share in values(items, signals.HOST_FS_UTILIZATION))
    directions = [p.attributes[signals.NET_DIRECTION] for p in items if p.name == signals.HOST_NET_IO]
    assert directions == ["receive", "transmit"]
    assert values(items, signals.OOM_KILLS)[0] >= 0
    assert all(signals.RANK not in point.attributes for point in items)


def test_between_two_readings_the_last_points_are_given_again(world) -> None:
    collector = HostCollector(interval_seconds=5)
    first = list(collector.collect(Clock(10, 0), world.node()))
    assert list(collector.collect(Clock(20, 4_999_999_999), world.node())) == first
    later = collector.collect(Clock(30, 5_000_000_000), world.node())
    assert {point.time_ns for point in later} == {30}


def test_what_the_kernel_does_not_account_for_is_no_point(world, tree, values) -> None:
    proc = tree({"pressure/io": "some avg10=12.50 avg60=3.10 avg300=1.00 total=1\nfull avg10=0.00\n"})
    items = list(HostCollector(proc=proc).collect(world.clock(), world.node()))
    assert values(items, signals.HOST_PRESSURE) == [0.125]
    assert values(items, signals.OOM_KILLS) == []


@pytest.mark.parametrize("text", ["", "full avg10=1.00", "some avg60=1.00", "some avg10=x"])
def test_a_pressure_that_cannot_be_read_is_none(text: str) -> None:
    assert parse_pressure(text) is None


def test_the_innermost_mount_counts() -> None:
    mounts = {Path("/"): "ext4", Path("/data"): "nfs"}
    assert mount_of(Path("/data/shards"), mounts) == Path("/data")
    assert mount_of(Path("/database"), mounts) == Path("/")
    assert mount_of(Path("/x"), {}) is None
