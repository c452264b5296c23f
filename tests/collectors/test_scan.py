"""Who lives on a node."""

from __future__ import annotations

import os
import time

from arobust_otel.collectors.scan import NodeScan
from arobust_otel.model.beacon import Child, GroupCounters
from arobust_otel.plugins import Clock


def test_folders_that_do_not_exist_hold_nobody(tmp_path, world) -> None:
    assert NodeScan([tmp_path / "nowhere"]).scan(world.clock()).ranks == ()


def test_fallback_folders_are_read_too_and_ranks_are_ordered(tmp_path, world) -> None:
    world.rank(os.getpid(), rank=1)
    process = world.python("print('ready', flush=True); input()")
    world.rank(process.pid, rank=0)
    other = tmp_path / "other"
    other.mkdir()
    (world.folder / f"rank-1-{os.getpid()}.beacon").rename(other / f"rank-1-{os.getpid()}.beacon")
    node = NodeScan([world.folder, other]).scan(world.clock())
    assert [(rank.rank, rank.alive) for rank in node.ranks] == [(0, True), (1, True)]


def test_another_process_with_the_same_pid_is_not_the_rank(world) -> None:
    world.rank(os.getpid(), start_ticks=1)
    assert [rank.alive for rank in world.node().ranks] == [False]


def test_a_file_that_is_no_beacon_is_said_and_harms_no_other(world) -> None:
    world.rank(os.getpid())
    (world.folder / "rank-9-1.beacon").write_bytes(b"x" * 4096)
    (world.folder / "launcher-9.beacon").write_bytes(b"")
    node = world.node()
    assert len(node.ranks) == 1
    assert len(node.unreadable) == 2
    assert all("beacon" in reason for reason in node.unreadable)


def test_ranks_of_an_earlier_run_are_left_alone(world) -> None:
    hour_ago = time.time_ns() - 3_600_000_000_000
    world.rank(os.getpid(), start_ticks=1, born_ns=hour_ago)
    assert world.node().ranks == ()


def test_a_rank_that_was_seen_alive_stays_however_old_it_is(world) -> None:
    process = world.python("print('ready', flush=True); input()")
    hour_ago = time.time_ns() - 3_600_000_000_000
    world.rank(process.pid, born_ns=hour_ago)
    scan = NodeScan([world.folder])
    assert [rank.alive for rank in scan.scan(world.clock()).ranks] == [True]
    process.kill()
    process.wait()
    assert [rank.alive for rank in scan.scan(world.clock()).ranks] == [False]


def test_a_collective_counter_that_moves_is_an_event(world) -> None:
    long_ago = time.monotonic_ns() - 60_000_000_000
    scan = NodeScan([world.folder])

    def event_age(enqueued: int, read_ago_ns: int) -> float:
        now = world.clock()
        groups = (GroupCounters("dp", "0-1", "gloo", enqueued, 0),)
        read_ns = now.mono_ns - read_ago_ns
        world.rank(os.getpid(), event_mono_ns=long_ago, groups=groups, groups_read_mono_ns=read_ns)
        now = Clock(now.wall_ns, time.monotonic_ns())
        return (now.mono_ns - scan.scan(now).ranks[0].event_mono_ns) / 1e9

    assert event_age(5, 0) > 59
    assert event_age(5, 0) > 59
    assert 1.9 < event_age(6, 2_000_000_000) < 30
    assert event_age(6, 0) < 30


def test_a_child_without_a_beacon_becomes_a_rank_after_some_seconds(world) -> None:
    process = world.python("print('ready', flush=True); input()")

    def child(seconds_ago: float, **values):
        born = time.time_ns() - int(seconds_ago * 1e9)
        return Child(process.pid, 0, 2, 2, born, values.get("ended_ns"), values.get("status"))

    world.launcher(os.getpid(), child(-30))  # however long it takes until the look
    assert world.node().ranks == ()
    world.launcher(os.getpid(), child(5))
    assert [(rank.rank, rank.alive, rank.beacon) for rank in world.node().ranks] == [(2, True, None)]
    world.launcher(os.getpid(), child(1, ended_ns=time.time_ns(), status=-11))
    assert [(rank.rank, rank.alive) for rank in world.node().ranks] == [(2, False)]
    world.rank(process.pid, rank=2)
    assert [rank.beacon is None for rank in world.node().ranks] == [False]


def test_a_child_that_is_only_a_shell_around_its_rank_is_no_second_rank(world) -> None:
    rank, shell = (world.python("print('ready', flush=True); input()") for _ in range(2))
    world.rank(rank.pid, rank=2)
    world.launcher(os.getpid(), Child(shell.pid, 0, 2, 2, 1, None, None))
    assert [found.pid for found in world.node().ranks] == [rank.pid]
