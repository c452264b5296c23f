"""Every item is accounted for, also where something unexpected happens to it.

accepted + recovered = delivered + dropped + waiting in memory + waiting on the disk, and `flush` ends.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest

from arobust_otel.agent.client import sender, transport
from arobust_otel.agent.data_collector import LogCollector
from arobust_otel.agent.master_client import MasterClient
from arobust_otel.agent.spool.ledger import read_account
from arobust_otel.agent.spool.spool import SpoolLimits
from arobust_otel.agent.spool.store import Store
from arobust_otel.errors import ConfigurationError
from arobust_otel.model import signals
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import Event, LogLine, StackCapture
from tests.agent.clients import JOB, QUICK, client, line, points
from tests.agent.server import Answer, free_port, running
from tests.agent.test_client_spool import wait_until


class Changing(dict[str, Any]):
    """Attributes that their owner changes while somebody reads them."""

    def items(self) -> Any:
        raise RuntimeError("dictionary changed size during iteration")


def accounted(stats: Mapping[str, float]) -> bool:
    waits = stats["queue_items"] + stats.get("spool_items", 0)
    return stats["accepted"] + stats["recovered"] == stats["delivered"] + stats["dropped"] + waits


def killed_items(folder: Path) -> float:
    """What a client that comes later would count as lost with the process that had this folder."""
    (spool,) = list(folder.rglob("ledger"))
    account = read_account(spool)
    return account.lost(account.spooled)


def of_every_kind() -> list[Any]:
    """One stack whose threads are none, and one fact that changes, among good ones."""
    stack = StackCapture(1, 1, 0, 1, "py-spy", "c", ("no thread",), "text")  # type: ignore[arg-type]
    fact = Event("changing", 1, "body", Changing(key="value"))
    return [Event("good", 1, "first"), fact, Event("good", 1, "second"), stack, *points(0, 3)]


def test_an_item_that_cannot_be_stored_is_counted_and_its_batch_is_stored(tmp_path: Path) -> None:
    port = free_port()
    heard: list[str] = []
    with client(f"http://127.0.0.1:{port}", spool_dir=tmp_path) as ours:
        ours.report(of_every_kind())
        ours.report([line(1)], lambda: heard.append("acknowledged"))
        assert wait_until(lambda: ours.stats()["queue_items"] == 0)
        assert heard == ["acknowledged"]
        assert ours.stats()["dropped.invalid"] == 3, "the stack, as a fact and as a span, and the fact"
        assert ours.stats()["spool_items"] == 6
        assert accounted(ours.stats())
        assert killed_items(tmp_path) == 0
        with running(port) as master:
            assert ours.flush(10)
            assert sorted(master.bodies()) == ["first", "line 1", "second"]
            assert len(master.points()) == 3
        assert accounted(ours.stats())


def test_a_batch_of_which_nothing_can_be_stored_is_counted(tmp_path: Path) -> None:
    with client(f"http://127.0.0.1:{free_port()}", spool_dir=tmp_path) as ours:
        ours.report([Event("changing", 1, "body", Changing(key="value"))] * 5)
        assert wait_until(lambda: ours.stats()["queue_items"] == 0)
        assert ours.stats()["dropped.invalid"] == 5
        assert ours.flush(5)
        assert accounted(ours.stats())
        assert killed_items(tmp_path) == 0


def test_a_job_whose_rank_is_a_number_of_numpy_is_stored_and_delivered(tmp_path: Path) -> None:
    port = free_port()
    job = JobIdentity("job-1", 0, "host-a", numpy.int64(0))
    quiet = {"say": lambda text: None, "spool_dir": tmp_path}
    ours = MasterClient(f"http://127.0.0.1:{port}", job, **quiet)
    ours.report([*points(0, 3), Event("fact", 1, "body")])
    ours.close(2.0)
    assert ours.stats()["spool_items"] == 4
    with running(port) as master, client(master.url, spool_dir=tmp_path) as heir:
        assert heir.flush(10)
        assert len(master.points()) == 3
        (request,) = master.requests("logs")
        names = [item.key for item in request.resource_logs[0].resource.attributes]
        assert signals.NODE_RANK in names


@pytest.mark.parametrize("with_disk", [False, True])
def test_a_bug_while_a_batch_is_on_its_way_costs_this_batch_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_disk: bool
) -> None:
    real = sender.deliver
    bugs = [KeyError("a bug")]

    def deliver(*arguments: Any) -> Any:
        if bugs:
            raise bugs.pop()
        return real(*arguments)

    monkeypatch.setattr(sender, "deliver", deliver)
    said: list[str] = []
    spool = {"spool_dir": tmp_path} if with_disk else {}
    with running() as master, client(master.url, say=said.append, **spool) as ours:
        ours.report(points(0, 4))
        assert ours.flush(10)
        assert ours.stats()["dropped.invalid"] == 4
        assert any("KeyError" in text for text in said)
        ours.report(points(4, 4))
        assert ours.flush(10)
        assert [value for _, value, _ in master.points()] == [4, 5, 6, 7]
        assert accounted(ours.stats())
        assert not with_disk or killed_items(tmp_path) == 0


def test_a_source_hears_that_its_lines_were_given_up_because_the_client_is_closed() -> None:
    heard: list[str] = []
    ours = MasterClient(f"http://127.0.0.1:{free_port()}", JOB, QUICK, say=lambda text: None)
    ours.report([line(1)], lambda: heard.append("acknowledged"), given_up=lambda: heard.append("first"))
    ours.close(0.5)
    assert heard == ["first"]
    ours.report([line(2)], lambda: heard.append("acknowledged"), given_up=lambda: heard.append("second"))
    assert heard == ["first", "second"]
    assert accounted(ours.stats())


def test_a_log_goes_on_with_a_new_client_after_the_old_one_was_closed(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("")
    collector = LogCollector(str(log))
    closed = MasterClient(f"http://127.0.0.1:{free_port()}", JOB, QUICK, say=lambda text: None)
    collector.set_client(closed)
    assert collector.collect_data() == ""
    log.write_text("kept\n")
    assert wait_until(lambda: collector.collect_data() == "kept\n")
    collector.store_data("kept\n")
    closed.close(0.2)
    with running() as master, client(master.url) as ours:
        collector.set_client(ours)
        text = collector.collect_data()
        assert text == "kept\n"
        collector.store_data(text)
        assert ours.flush(10)
        assert master.bodies() == ["kept"]
    collector.forget()


@pytest.mark.parametrize("error", [FileNotFoundError("ca.pem"), ConfigurationError("ca", "ca.pem", "a file")])
def test_a_way_that_cannot_be_opened_now_is_tried_again(error: Exception) -> None:
    class Unreadable:
        bytes_raw = bytes_sent = 0
        errors = [error] * 2

        def send(self, *_: Any) -> transport.Answer:
            if self.errors:
                raise self.errors.pop()
            return transport.Answer()

        def close(self) -> None:
            pass

    with client("http://master", transports=lambda *_: Unreadable()) as ours:
        ours.report(points(0, 3))
        assert ours.flush(10)
        assert (ours.stats()["delivered"], ours.stats()["dropped"]) == (3, 0)


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No thread of a client can be started while this list holds something."""
    reasons = ["can't start new thread"]
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if reasons and self.name == "arobust-master-client":
            raise RuntimeError(reasons[0])
        real(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(sender, "_START_SECONDS", 0.0, raising=False)
    return reasons


def test_a_client_that_gets_no_thread_keeps_what_comes_and_tries_again(no_threads: list[str]) -> None:
    said: list[str] = []
    with running() as master, client(master.url, say=said.append) as ours:
        ours.report(points(0, 3))
        ours.report(points(3, 3))
        assert not ours.flush(0.1)
        assert ours.stats()["queue_items"] == 6
        assert len(said) == 1
        no_threads.clear()
        ours.report(points(6, 3))
        assert ours.flush(10)
        assert [value for _, value, _ in master.points()] == list(range(9))


@pytest.mark.parametrize("with_disk", [False, True])
def test_a_client_that_never_got_a_thread_stores_or_counts_what_it_has(
    tmp_path: Path, no_threads: list[str], with_disk: bool
) -> None:
    spool = {"spool_dir": tmp_path} if with_disk else {}
    ours = MasterClient("http://127.0.0.1:1", JOB, QUICK, say=lambda text: None, **spool)
    ours.report(points(0, 3))
    ours.close(1.0)
    stats = ours.stats()
    assert (stats.get("spool_items", 0), stats["dropped"]) == ((3, 0) if with_disk else (0, 3))
    ours.close(1.0)
    assert accounted(ours.stats())


def test_what_is_none_of_ours_is_accepted_and_dropped() -> None:
    with client(f"http://127.0.0.1:{free_port()}") as ours:
        ours.report([object(), "x"])
        assert wait_until(lambda: ours.stats()["dropped.invalid"] == 2)
        assert ours.stats()["accepted"] == 2
        ours.report(["x", *points(0, 3)])
        assert ours.stats()["accepted"] == 6
        assert accounted(ours.stats())


@pytest.mark.parametrize(
    "odd",
    [
        LogLine(None, 1, "/log", 1),  # type: ignore[arg-type]
        Event("odd", 1, "body", None),  # type: ignore[arg-type]
        StackCapture(1, 1, 0, 1, "py-spy", "c", (), None),  # type: ignore[arg-type]
    ],
)
def test_an_item_that_cannot_be_looked_at_costs_only_itself(odd: object) -> None:
    heard: list[str] = []
    with running() as master, client(master.url) as ours:
        ours.report([line(1), odd, line(2), *points(0, 3)], lambda: heard.append("acknowledged"))
        assert ours.flush(10)
        assert master.bodies() == ["line 1", "line 2"]
        assert len(master.points()) == 3
        assert heard == ["acknowledged"]
        assert (ours.stats()["accepted"], ours.stats()["dropped.invalid"]) == (6, 1)
        assert accounted(ours.stats())


def test_what_a_spool_holds_that_opens_late_is_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ended = [MasterClient(url, JOB, QUICK, spool_dir=tmp_path, say=lambda text: None) for _ in range(2)]
    for number, earlier in enumerate(ended):
        earlier.report(points(5 * number, 5))
    for earlier in ended:
        earlier.close(2.0)
    real = Store._prepare
    failures = [sqlite3.OperationalError("database or disk is full")]

    def prepare(self: Store) -> None:
        if failures:
            raise failures.pop()
        real(self)

    monkeypatch.setattr(Store, "_prepare", prepare)
    monkeypatch.setattr("arobust_otel.agent.spool.spool._AGAIN_SECONDS", 0.0)
    monkeypatch.setattr("arobust_otel.agent.client.safekeeping.AGAIN_SECONDS", 0.0)
    with client(url, spool_dir=tmp_path) as ours:
        assert (ours.stats()["recovered"], ours.stats()["spool_items"]) == (0, 0)
        ours.report(points(10, 3))
        assert wait_until(lambda: ours.stats()["spool_items"] == 13)
        assert (ours.stats()["recovered"], ours.stats()["accepted"]) == (10, 3)
        assert accounted(ours.stats())


def test_what_an_adopted_folder_holds_too_much_of_is_recovered_and_dropped(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    settings = replace(QUICK, batch_items=10)
    ended = [MasterClient(url, JOB, settings, spool_dir=tmp_path, say=lambda text: None) for _ in range(2)]
    for earlier in ended:
        earlier.report(points(0, 100))
        earlier.close(2.0)
    small = replace(settings, spool=SpoolLimits(max_bytes=1000))
    with client(url, small, spool_dir=tmp_path) as ours:
        assert ours.stats()["recovered"] == 200
        assert ours.stats()["dropped.spool_full"] > 0
        assert accounted(ours.stats())


def test_a_file_that_was_damaged_before_is_recovered_and_dropped(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ended = MasterClient(url, JOB, QUICK, spool_dir=tmp_path, say=lambda text: None)
    ended.report(points(0, 10))
    ended.close(2.0)
    (database,) = tmp_path.rglob("spool.db")
    database.write_bytes(b"no database" * 1000)
    with client(url, spool_dir=tmp_path) as ours:
        assert (ours.stats()["recovered"], ours.stats()["dropped.spool_damaged"]) == (10, 10)
        assert accounted(ours.stats())


def test_a_forked_child_counts_the_bytes_of_its_own_requests_only() -> None:
    with running() as master, client(master.url) as ours:
        ours.report(points(0, 3))
        assert ours.flush(10)
        assert min(ours.stats()["bytes_raw"], ours.stats()["bytes_sent"]) > 0
        child = os.fork()
        if child == 0:
            stats = ours.stats()
            os._exit(int(stats["bytes_raw"] + stats["bytes_sent"] > 0))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert ours.stats()["bytes_raw"] > 0


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A name server that does not answer until the test ends; set once somebody asks it."""
    asked, ended = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **others: Any) -> Any:
        if host != "slow.invalid":
            return real(host, *arguments, **others)
        asked.set()
        ended.wait(20)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield asked
    ended.set()


@pytest.mark.parametrize("with_disk", [False, True])
def test_closing_while_a_call_hangs_stores_or_counts_also_what_is_on_its_way(
    tmp_path: Path, slow_names: threading.Event, with_disk: bool
) -> None:
    spool = {"spool_dir": tmp_path} if with_disk else {}
    settings = replace(QUICK, batch_items=10)
    ours = MasterClient("http://slow.invalid:4318", JOB, settings, say=lambda text: None, **spool)
    heard: list[str] = []
    ours.report(points(0, 30))
    ours.report([line(1)], lambda: heard.append("acknowledged"), given_up=lambda: heard.append("given up"))
    assert slow_names.wait(10)
    started = time.monotonic()
    ours.close(1.5)
    assert time.monotonic() - started < 2.5
    stats = ours.stats()
    assert (stats.get("spool_items", 0), stats["dropped"]) == ((31, 0) if with_disk else (0, 31))
    assert stats["queue_items"] == 0
    assert accounted(stats)
    assert heard == (["acknowledged"] if with_disk else ["given up"])
    ours.report(points(30, 1))
    ours.close(0.1)
    assert accounted(ours.stats())
    if with_disk:
        with running() as master, client(master.url, spool_dir=tmp_path) as heir:
            assert heir.flush(10)
            assert [value for _, value, _ in master.points()] == list(range(30))


def test_what_arrives_after_closing_has_stored_it_is_known_by_its_id(tmp_path: Path) -> None:
    held = threading.Event()
    port = free_port()
    with running(port, script=lambda *_: Answer(hold=held)) as master:
        settings = replace(QUICK, call_seconds=30.0)
        ours = MasterClient(master.url, JOB, settings, say=lambda text: None, spool_dir=tmp_path)
        ours.report(points(0, 10))
        assert master.wait_for(lambda: bool(master.seen))
        ours.close(1.0)
        assert ours.stats()["spool_items"] == 10
        held.set()
        with client(master.url, spool_dir=tmp_path) as heir:
            assert heir.flush(10)
        assert len(set(master.batch_ids)) == 1
        assert (ours.stats()["delivered"], heir.stats()["delivered"]) == (0, 10)
