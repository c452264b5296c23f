"""Stories of the rule process_end."""

from __future__ import annotations

import signal

import pytest

from arobust_otel.model import signals
from arobust_otel.testing import Story

PLACE = ("pack_batch", "/job/tokens.py", 31)
RESET = "[gloo] Connection closed by peer [127.0.0.1]:4242"
BACKWARD = ("backward", "/usr/lib/python3/site-packages/torch/_tensor.py", 600)


def peers_die(story: Story, culprit: int, at_s: float = 0.1) -> None:
    """What peers of a dead rank show: an exception about the connection, or a SIGTERM of the launcher."""
    for rank in range(story.ranks):
        if rank == culprit:
            continue
        if rank % 2:
            story.raises(rank, "RuntimeError", RESET, BACKWARD, at_s)
            story.ends(rank, code=1, at_s=at_s + 0.2)
        else:
            story.ends(rank, signal=int(signal.SIGTERM), at_s=at_s + 0.3)


@pytest.mark.parametrize("culprit", [0, 2])
def test_a_killed_rank_is_blamed_and_its_peers_are_victims(culprit: int) -> None:
    story = Story(ranks=4)
    story.run(10)
    story.ends(culprit, signal=int(signal.SIGKILL))
    peers_die(story, culprit)
    assert story.run_until_open(5) <= 4
    incident = story.the_open_one()
    assert (incident.cause, story.open_culprits()) == ("process_killed", [culprit])
    assert incident.grade == "hard_fact"
    assert set(incident.victims) == {0, 1, 2, 3} - {culprit}


def test_a_late_stamp_on_the_killed_rank_does_not_blame_a_peer() -> None:
    story = Story(ranks=4)
    story.run(10)
    peers_die(story, 2, at_s=0.0)
    story.ends(2, signal=int(signal.SIGKILL), at_s=0.9)
    story.run_until_open(6)
    assert story.open_culprits() == [2]


def test_an_exception_is_named_with_function_and_file_before_the_process_ends() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.raises(1, "ValueError", "token 70000 out of range", PLACE)
    assert story.run_until_open(5) <= 3
    incident = story.the_open_one()
    assert (incident.cause, story.open_culprits()) == ("python_exception", [1])
    assert "ValueError: token 70000 out of range in pack_batch() tokens.py:31" in incident.summary


def test_a_crash_is_named_while_the_kernel_still_writes_the_core() -> None:
    story = Story(ranks=4)
    story.run(10)
    where = {
        signals.EXIT_SIGNAL: int(signal.SIGSEGV),
        signals.CODE_FUNCTION: "copy_block",
        signals.CODE_FILE: "/job/fast.py",
        signals.CODE_LINE: 5,
    }
    story.fact(signals.RANK_CRASHING, 3, where)
    assert story.run_until_open(5) <= 3
    assert story.the_open_one().cause == "process_crashed"
    assert "SIGSEGV in copy_block() fast.py:5" in story.the_open_one().summary


def test_exit_0_while_peers_need_the_rank_is_an_early_exit() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.ends(2, code=0)
    peers_die(story, 2)
    story.run_until_open(6)
    incident = story.the_open_one()
    assert (incident.cause, story.open_culprits()) == ("early_exit", [2])
    assert incident.action.kind == "escalate"


def test_exit_0_of_a_rank_that_waiting_peers_still_need() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.ends(2, code=0)
    assert story.run_until_open(20) <= 14
    assert (story.the_open_one().cause, story.open_culprits()) == ("early_exit", [2])


def test_an_exit_code_without_an_exception() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.ends(0, code=7)
    peers_die(story, 0)
    story.run_until_open(10)
    assert (story.the_open_one().cause, story.open_culprits()) == ("process_exit", [0])
    assert "exit code 7" in story.the_open_one().summary


def test_a_kill_for_memory_is_told_from_any_other_kill() -> None:
    story = Story(ranks=4)
    story.run(10)
    killed = {
        signals.EXIT_SIGNAL: int(signal.SIGKILL),
        signals.EXIT_WITNESS: "launcher",
        signals.EXIT_OOM: "cgroup",
    }
    story.fact(signals.RANK_EXITED, 1, killed)
    story.run_until_open(5)
    assert story.the_open_one().cause == "out_of_memory_host"


def test_an_exit_code_that_nobody_saw_is_said() -> None:
    story = Story(ranks=2)
    story.run(10)
    story.fact(signals.RANK_EXITED, 1, {signals.EXIT_WITNESS: "none"})
    story.run_until_open(10)
    incident = story.the_open_one()
    assert incident.cause == "process_exit"
    assert "nobody saw" in incident.summary
    assert (incident.grade, incident.unseen) == ("one_witness", ("exit code",))


def test_the_same_error_everywhere_blames_nobody() -> None:
    story = Story(ranks=4)
    story.run(5)
    for rank in range(4):
        story.raises(rank, "KeyError", "'vocab'", PLACE, at_s=0.05 * rank)
    story.run_until_open(5)
    assert story.the_open_one().cause == "software_error"
    assert story.open_culprits() == []


def test_silent_when_all_ranks_end_with_0() -> None:
    story = Story(ranks=4)
    story.run(20)
    for rank in (3, 1, 0):
        story.ends(rank, code=0, at_s=0.1 * rank)
    story.run(2)
    story.ends(2, code=0)
    story.agent_ends = True
    story.run(60)
    assert story.incidents() == []


def test_silent_when_the_launcher_was_told_to_stop() -> None:
    story = Story(ranks=4)
    story.run(20)
    story.fact(signals.LAUNCHER_EXITED, None, {signals.EXIT_SIGNAL: int(signal.SIGTERM)})
    for rank in range(4):
        story.ends(rank, signal=int(signal.SIGTERM), at_s=0.1 * rank)
    story.run(40)
    assert story.incidents("open") == []


def test_silent_when_a_single_process_is_ended_at_the_keyboard() -> None:
    story = Story(ranks=1)
    story.run(10)
    story.ends(0, signal=int(signal.SIGINT))
    story.run(30)
    assert story.incidents() == []


def test_the_end_of_the_job_after_a_hang_is_no_second_incident() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.rank(2).hangs_in("read_shard", "/job/data.py", 88)
    story.run_until_open(20)
    story.run(5)
    for rank in range(4):
        story.ends(rank, signal=int(signal.SIGKILL), at_s=0.1 * rank)
    story.run(60)
    assert story.incidents("open") == []
    assert [item.cause for item in story.incidents("resolved")] == ["hang_user_code"]


def test_closes_when_a_later_attempt_makes_steps() -> None:
    first = Story(ranks=4)
    first.run(10)
    first.ends(2, signal=int(signal.SIGKILL))
    peers_die(first, 2)
    first.run(5)
    assert len(first.incidents("open")) == 1
    second = Story(ranks=4, incarnation=1, engine=first.engine)
    second.second = first.second + 10
    second.run(15)
    assert second.incidents("open") == []
    assert [item.incarnation for item in second.incidents("resolved")] == [0]


def test_closes_when_the_rank_is_born_again() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.ends(2, signal=int(signal.SIGKILL))
    story.run(4)
    assert len(story.incidents("open")) == 1
    story.reborn(2)
    story.run(15)
    assert story.incidents("open") == []


def test_silent_on_an_exception_of_a_background_thread_while_the_rank_trains_on() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.raises(1, "OSError", "statsd is away", PLACE, thread="metrics-writer")
    story.run(60)
    for rank in range(4):
        story.ends(rank, code=0)
    story.agent_ends = True
    story.run(30)
    assert story.incidents() == []


def test_an_exception_of_a_thread_that_the_rank_needs_is_named() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.raises(1, "ValueError", "bad shard", PLACE, thread="prefetch")
    story.rank(1).waits_for_data()
    assert story.run_until_open(10) <= 8
    assert (story.the_open_one().cause, story.open_culprits()) == ("python_exception", [1])


def test_the_main_threads_exception_replaces_that_of_another_thread() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.raises(1, "OSError", "statsd is away", PLACE, thread="metrics-writer")
    story.run(20)
    story.raises(1, "KeyError", "'vocab'", PLACE)
    story.run_until_open(5)
    assert "KeyError" in story.the_open_one().summary
