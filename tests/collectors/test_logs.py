"""Stories of log files: written, rotated, truncated, left and found again."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path

import pytest

from arobust_otel.collectors import logtail
from arobust_otel.collectors.logs import LogsCollector, load_positions
from arobust_otel.model import signals
from arobust_otel.model.samples import LogLine
from arobust_otel.plugins import Clock, Node, close

START = Clock(1_800_000_000_000_000_000, 1_000_000_000)


class Agent:
    """Samples a collector at times that the story chooses; acknowledges where it says so."""

    def __init__(self, *files: object, **options: object) -> None:
        self.collector = LogsCollector(files=tuple(str(file) for file in files), **options)
        self.seconds = 0.0
        self.last: list[LogLine] = []

    def lines(self, seconds: float = 2.0, node: Node | None = None, acknowledge: bool = True) -> list[str]:
        self.seconds += seconds
        later = int(self.seconds * 1e9)
        now = Clock(START.wall_ns + later, START.mono_ns + later)
        self.last = [
            item for item in self.collector.collect(now, node or Node()) if isinstance(item, LogLine)
        ]
        if acknowledge:
            for line in self.last:
                self.collector.acknowledge(line.path, line.end_offset)
        return [line.body for line in self.last]


@pytest.fixture
def agent():
    agents = []

    def make(*files: object, **options: object) -> Agent:
        agents.append(Agent(*files, **options))
        return agents[-1]

    yield make
    for one in agents:
        close(one.collector)


def append(path: Path, text: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(text.encode() if isinstance(text, str) else text)


def test_a_file_that_does_not_exist_yet_is_followed_once_it_does(tmp_path, agent) -> None:
    log = tmp_path / "train.log"
    follower = agent(log)
    assert follower.lines() == []
    append(log, "step 1\nstep")
    assert follower.lines() == ["step 1"]
    append(log, " 2\n")
    assert follower.lines() == ["step 2"]
    line = follower.last[0]
    assert line.attributes == {signals.LOG_PATH: str(log), signals.LOG_OFFSET: 14}
    assert (line.path, line.end_offset) == (str(log), 14)


def test_a_glob_finds_files_that_come_later(tmp_path, agent) -> None:
    follower = agent(tmp_path / "*.log")
    append(tmp_path / "a.log", "from a\n")
    assert follower.lines() == ["from a"]
    append(tmp_path / "b.log", "from b\n")
    assert follower.lines() == ["from b"]


def test_a_name_that_looks_like_a_pattern_is_a_name_where_it_exists(tmp_path, agent) -> None:
    """As parameter sweeps call their folders."""
    folder = tmp_path / "lr=[0.1,0.2]"
    folder.mkdir()
    (tmp_path / "lr=0").mkdir()
    append(tmp_path / "lr=0" / "train.log", "of another run\n")
    followers = [agent(folder / name) for name in ("train.log", "*.log")]
    assert [follower.lines() for follower in followers] == [[], []]
    append(folder / "train.log", "step 1\n")
    assert [follower.lines() for follower in followers] == [["step 1"], ["step 1"]]


def test_rotation_by_rename_loses_and_repeats_nothing(tmp_path, agent) -> None:
    log = tmp_path / "train.log"
    append(log, "1\n")
    follower = agent(log)
    assert follower.lines() == ["1"]
    append(log, "2\n3 without its end")
    log.rename(tmp_path / "train.log.1")
    append(log, "4\n")
    assert follower.lines() == ["2", "3 without its end", "4"]
    append(log, "5\n")
    assert follower.lines() == ["5"]


def test_a_writer_that_still_holds_the_renamed_file_is_heard(tmp_path, agent) -> None:
    log = tmp_path / "train.log"
    append(log, "1\n")
    follower = agent(log)
    assert follower.lines() == ["1"]
    log.rename(tmp_path / "train.log.1")
    log.touch()  # logrotate makes the new file before the writer opens it
    assert follower.lines(0.5) == []
    append(tmp_path / "train.log.1", "2\n")
    append(log, "3\n")
    assert follower.lines(0.5) == ["2", "3"]


def test_rotation_by_copy_and_truncate_starts_again(tmp_path, agent) -> None:
    log = tmp_path / "train.log"
    append(log, "first 1\nfirst 2\n")
    follower = agent(log)
    assert follower.lines() == ["first 1", "first 2"]
    os.truncate(log, 0)
    append(log, "x\n")
    assert follower.lines() == ["x"]


def compress(path: Path) -> None:
    with path.open("rb") as plain, gzip.open(f"{path}.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    os.utime(f"{path}.gz", ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))  # as the program does
    path.unlink()


def rotate(log: Path, packed_from: int = 9) -> None:
    """As logrotate does: the newest one is .1; from a number on they are compressed."""
    for number in range(8, 0, -1):
        for suffix in ("", ".gz"):
            old = log.with_name(f"{log.name}.{number}{suffix}")
            if old.exists():
                old.rename(log.with_name(f"{log.name}.{number + 1}{suffix}"))
    log.rename(f"{log}.1")
    for number in range(packed_from, 10):
        if (old := log.with_name(f"{log.name}.{number}")).exists():
            compress(old)


LONG = "".join(
    f"{number} of the first file\n" for number in range(20)
)  # long enough to be known by its bytes


@pytest.mark.parametrize("packed_from", [9, 3, 2, 1])
def test_files_that_were_rotated_away_between_two_looks_are_read(tmp_path, agent, packed_from) -> None:
    log = tmp_path / "train.log"
    append(log, "long ago\n")
    rotate(log, packed_from)
    append(log, LONG)
    follower = agent(log)
    assert follower.lines() == LONG.splitlines()
    append(log, "last of the first\n")
    for text in ("second\n", "third\n"):
        rotate(log, packed_from)
        append(log, text)
    rotate(log, packed_from)
    append(log, "fourth\n")
    assert follower.lines() == ["last of the first", "second", "third", "fourth"]
    append(log, "and on\n")
    assert follower.lines() == ["and on"]


def test_what_was_not_read_before_a_copy_and_truncation_is_read_from_the_copy(tmp_path, agent) -> None:
    log = tmp_path / "train.log"
    append(log, LONG)
    follower = agent(log)
    assert follower.lines() == LONG.splitlines()
    append(log, "not read yet\nhalf a")
    shutil.copy(log, f"{log}.1")
    os.truncate(log, 0)
    append(log, "anew\n")
    assert follower.lines() == ["not read yet", "half a", "anew"]
    append(log, "and on\n")
    assert follower.lines() == ["and on"]


@pytest.mark.parametrize("way", ["compressed", "copied", "copied and compressed", "twice"])
def test_what_was_rotated_while_no_agent_ran_is_found(tmp_path, agent, way) -> None:
    log, state = tmp_path / "train.log", tmp_path / "logs.json"
    append(log, LONG)
    first = agent(log, state_file=state)
    first.lines()
    close(first.collector)
    append(log, "meanwhile\n")
    if way.startswith("copied"):
        shutil.copy(log, f"{log}.1")
        os.truncate(log, 0)
    else:
        rotate(log)
    if way == "twice":
        append(log, "between\n")
        rotate(log)
    if way.endswith("compressed"):
        compress(Path(f"{log}.1"))
    append(log, "now\n")
    assert agent(log, state_file=state).lines() == ["meanwhile", *["between"] * (way == "twice"), "now"]


def test_files_that_are_no_backups_of_the_log_are_not_read(tmp_path, agent) -> None:
    """Others of a similar name, a copy that somebody made, one that is being compressed, a damaged one."""
    log = tmp_path / "train.log"
    append(log, LONG)
    follower = agent(log)
    follower.lines()
    log.rename(f"{log}.1")
    for name in ("train.log.lock", "train.log-errors", "train.log.1.bak", "train.log2", "xtrain.log.1"):
        append(tmp_path / name, "no line of this log\n")
    shutil.copy(f"{log}.1", f"{log}.7")
    append(Path(f"{log}.2"), "missed\n")
    with gzip.open(f"{log}.2.gz", "wb") as half:
        half.write(b"missed\n")
    append(Path(f"{log}.3.gz"), b"\x1f\x8b no gzip")
    append(log, "new\n")
    assert follower.lines() == ["missed", "new"]


def test_a_truncated_file_that_is_longer_already_is_known_by_its_first_bytes(tmp_path, agent) -> None:
    log = tmp_path / "train.log"
    append(log, "first 1\n")
    follower = agent(log)
    follower.lines()
    os.truncate(log, 0)
    append(log, "second, much longer than before\n")
    assert follower.lines() == ["second, much longer than before"]


def test_a_traceback_is_one_record_even_where_the_next_line_is_late(tmp_path, agent) -> None:
    log = tmp_path / "train.log"
    follower = agent(log)
    append(log, "Traceback (most recent call last):\n  File 'a', line 1\n")
    assert follower.lines(0.5) == []
    append(log, "ValueError: bad\n")
    assert follower.lines(0.5) == []
    assert follower.lines(0.5) == []
    assert follower.lines(0.6) == ["Traceback (most recent call last):\n  File 'a', line 1\nValueError: bad"]


def test_an_agent_that_is_killed_amid_interleaved_tracebacks_loses_no_line_of_them(tmp_path, agent) -> None:
    log, state = tmp_path / "train.log", tmp_path / "logs.json"
    head = "Traceback (most recent call last):"
    append(log, f"[rank1]: {head}\n[rank2]: {head}\n[rank1]: ValueError: a\n[rank2]: ValueError: b\nnext\n")
    first = agent(log, state_file=state)
    first.lines(acknowledge=False)
    records = [
        f"[rank{rank}]: {head}\n[rank{rank}]: ValueError: {name}" for rank, name in ((1, "a"), (2, "b"))
    ]
    assert [line.body for line in first.last] == [*records, "next"]
    first.collector.acknowledge(str(log), first.last[0].end_offset)  # rank 1's; rank 2's began before its end
    close(first.collector)
    second = agent(log, state_file=state)
    assert second.lines() == [*records, "next"]
    close(second.collector)
    assert agent(log, state_file=state).lines() == []


def test_at_the_end_of_a_job_what_is_unfinished_is_given(tmp_path, agent) -> None:
    log, state = tmp_path / "train.log", tmp_path / "logs.json"
    append(log, "Traceback (most recent call last):\n  File 'a', line 1\nValueError: b")
    first = agent(log, state_file=state)
    assert first.lines(0.1) == []
    first.collector.finish()
    assert first.lines(0.1) == ["Traceback (most recent call last):\n  File 'a', line 1\nValueError: b"]
    assert first.lines(0.1) == []
    close(first.collector)
    assert agent(log, state_file=state).lines() == []


def test_bytes_that_are_no_text_are_replaced_and_long_lines_cut(tmp_path, agent) -> None:
    log = tmp_path / "train.log"
    append(log, b"\xff\xed\xa0\x80 ok\n" + b"y" * 70_000 + b"\n")
    follower = agent(log)
    first, second = follower.lines()
    assert first.endswith(" ok")
    first.encode("utf-8")
    assert second.endswith("[cut: 4464 bytes left out]")


def test_one_sample_reads_no_more_than_its_budget_and_starves_no_file(tmp_path, agent) -> None:
    for name in ("a.log", "b.log"):
        append(tmp_path / name, "x" * 99 + "\n" + "y" * 99 + "\n")
    follower = agent(tmp_path / "*.log", bytes_per_sample=100)
    seen = [line.path[-5:] for _ in range(4) for line in (follower.lines() and follower.last)]
    assert sorted(seen) == ["a.log", "a.log", "b.log", "b.log"]
    assert seen[:2] != ["a.log", "a.log"]


def test_an_agent_that_comes_back_goes_on_where_delivery_stopped(tmp_path, agent) -> None:
    log, state = tmp_path / "train.log", tmp_path / "logs.json"
    append(log, "1\n2\n3\n")
    first = agent(log, state_file=state)
    first.lines(acknowledge=False)
    for line in (first.last[0], first.last[2]):  # the second one is still under way
        first.collector.acknowledge(line.path, line.end_offset)
    close(first.collector)
    assert load_positions(state)[str(log)].offset == 2

    second = agent(log, state_file=state)
    assert second.lines() == ["2", "3"]
    close(second.collector)
    assert agent(log, state_file=state).lines() == []


def test_a_file_that_was_renamed_while_no_agent_ran_is_finished_first(tmp_path, agent) -> None:
    log, state = tmp_path / "train.log", tmp_path / "logs.json"
    append(log, "1\n")
    first = agent(log, state_file=state)
    first.lines()
    close(first.collector)
    append(log, "2\n")
    log.rename(tmp_path / "train.log.1")
    append(log, "3\n")
    assert agent(log, state_file=state).lines() == ["2", "3"]


def test_another_file_under_the_old_name_is_read_from_its_beginning(tmp_path, agent) -> None:
    log, state = tmp_path / "train.log", tmp_path / "logs.json"
    append(log, "1\n2\n")
    first = agent(log, state_file=state)
    first.lines()
    close(first.collector)
    log.write_text("other 1\nother 2\n")  # the same inode, other bytes
    assert agent(log, state_file=state).lines() == ["other 1", "other 2"]


def test_a_late_acknowledgement_of_a_renamed_file_does_not_skip_the_new_one(tmp_path, agent) -> None:
    log, state = tmp_path / "train.log", tmp_path / "logs.json"
    append(log, "old and long\n")
    first = agent(log, state_file=state)
    first.lines(acknowledge=False)
    (old,) = first.last
    log.rename(tmp_path / "train.log.1")
    append(log, "new\nnew 2 and longer\n")
    first.lines(acknowledge=False)
    first.collector.acknowledge(old.path, old.end_offset)
    close(first.collector)
    assert agent(log, state_file=state).lines() == ["new", "new 2 and longer"]


def test_a_file_waits_while_nothing_is_acknowledged(tmp_path, agent, monkeypatch) -> None:
    monkeypatch.setattr(logtail, "_MAX_OUTSTANDING", 3)
    log = tmp_path / "train.log"
    follower = agent(log, bytes_per_sample=2)
    append(log, "1\n2\n3\n4\n5\n")
    seen = [line for _ in range(6) for line in follower.lines(acknowledge=False)]
    assert seen == ["1", "2", "3"]
    follower.collector.acknowledge(str(log), 2)
    assert follower.lines() == ["4"]


def test_of_a_long_old_file_only_the_end_is_read(tmp_path, agent, monkeypatch) -> None:
    monkeypatch.setattr(logtail, "_FIRST_READ_BYTES", 100)
    log = tmp_path / "train.log"
    append(log, b"old line\n" * 200 + b"newest\n")
    assert agent(log).lines() == ["old line"] * 10 + ["newest"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"/a": 3, "/b": {"inode": "x"}}', '{"/a": {"offset": -1}}']
)
def test_a_damaged_state_file_is_no_state(tmp_path, content) -> None:
    state = tmp_path / "logs.json"
    state.write_text(content)
    assert load_positions(state) == {}


def test_the_output_of_a_rank_is_found_by_its_descriptors_and_carries_the_rank(
    world, agent, tmp_path
) -> None:
    log, extra, read_only = tmp_path / "rank1.out", tmp_path / "metrics.log", tmp_path / "input.log"
    read_only.write_text("not a log\n")
    code = (
        "import os,sys\nhandle = open(sys.argv[2], 'w'); other = open(sys.argv[3])\n"
        "print('ready', flush=True)\nos.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), 1)\n"
        "print('hello from rank 1', flush=True); print('loss 3', file=handle, flush=True)\n"
        "os.write(2, b'moved\\n'); sys.stdin.readline()"
    )
    errors = tmp_path / "moved"
    with errors.open("w") as stream:
        process = world.python(code, str(log), str(extra), str(read_only), stderr=stream)
    world.rank(process.pid, rank=1)
    follower = agent()
    seen: dict[str, dict[str, object]] = {}
    items = world.sample_until(_Eager(follower), lambda items: len(items) >= 3)
    seen = {item.body: item.attributes for item in items if isinstance(item, LogLine)}
    assert seen["hello from rank 1"][signals.RANK] == 1
    assert seen["moved"][signals.RANK] == 1
    assert signals.RANK not in seen["loss 3"]
    assert "not a log" not in seen


def test_a_file_that_two_ranks_write_belongs_to_none(world, agent, tmp_path) -> None:
    log = tmp_path / "all.out"
    with log.open("w") as stream:
        for rank in (0, 1):
            process = world.python("print('ready', flush=True); input()", stderr=stream)
            world.rank(process.pid, rank=rank)
    append(log, "one line\n")
    items = world.sample_until(_Eager(agent()), lambda items: bool(items))
    assert signals.RANK not in items[0].attributes


class _Eager:
    """Discovers at every sample: each one is two seconds later."""

    def __init__(self, follower: Agent) -> None:
        self.follower = follower

    def collect(self, now: Clock, node: Node) -> list[LogLine]:
        self.follower.lines(node=node)
        return self.follower.last


def test_the_state_file_is_json_that_people_can_read(tmp_path, agent) -> None:
    log, state = tmp_path / "train.log", tmp_path / "logs.json"
    append(log, "1\n")
    follower = agent(log, state_file=state)
    follower.lines()
    close(follower.collector)
    assert json.loads(state.read_text())[str(log)]["offset"] == 2
