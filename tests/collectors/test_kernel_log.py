"""Facts from the kernel's log: lines from real machines, files of its form, and the real log of this one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from arobust_otel.collectors.kernel_lines import ROWS, Row, fact_of, pci_address
from arobust_otel.collectors.kernel_log import REPETITIONS, KernelLogCollector
from arobust_otel.collectors.kmsg import KERNEL_LOG, KernelLog, parse_records
from arobust_otel.errors import CapabilityError
from arobust_otel.model import signals
from arobust_otel.model.samples import ERROR, Event
from arobust_otel.model.xids import RESTART_APP, XIDS, xid
from arobust_otel.plugins import Clock, Node

AT = Clock(wall_ns=10**18, mono_ns=100 * 10**9)  # 100 s after the machine was started
NOW_US = 100_000_000
XID = "NVRM: Xid (PCI:0000:3b:00): 79, pid=4711, name=python3, GPU has fallen off the bus."


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.kind)
def test_each_kind_of_line_is_known_by_its_own_row(row: Row) -> None:
    fact = fact_of(row.example)
    assert fact is not None
    assert (fact.name, fact.attributes[signals.KERNEL_FAULT_KIND]) == (signals.KERNEL_FAULT, row.kind)
    assert fact.severity == row.severity


@pytest.mark.parametrize(
    ("line", "code", "pid", "task"),
    [
        (XID, 79, 4711, "python3"),
        ("NVRM: Xid (PCI:0000:3B:00): 48, pid='<unknown>', name=<unknown>, DBE (double bit)", 48, None, None),
        ("NVRM: Xid (PCI:0000:3b:00): 31, pid=7, Ch 00000008, MMU Fault: ENGINE GRAPHICS", 31, 7, None),
        ("NVRM: Xid (0000:3b:00): 13, Graphics SM Warp Exception", 13, None, None),
        ("NVRM: Xid (PCI:0000:3b:00): 63, Row Remapper: New row marked for remapping", 63, None, None),
    ],
)
def test_an_xid_in_all_its_forms(line: str, code: int, pid: int | None, task: str | None) -> None:
    fact = fact_of(line)
    assert fact is not None
    assert (fact.name, fact.attributes[signals.XID_CODE], fact.pid) == (signals.KERNEL_XID, code, pid)
    assert fact.attributes.get(signals.KERNEL_TASK) == task
    assert fact.pci_address == "0000:3b:00.0"
    assert fact.severity == XIDS[code].severity


def test_the_table_says_what_a_number_asks_for_and_an_unknown_one_is_not_harmless() -> None:
    assert xid(31).advice == RESTART_APP
    assert (xid(9999).meaning, xid(9999).advice) == ("unknown", "watch")
    assert {48, 74, 79, 94, 95, 119, 144, 150} <= set(XIDS)


@pytest.mark.parametrize(
    "line",
    [
        "NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.",
        "NVRM: GPU at PCI:0000:3b:00: has fallen off the bus.",
        "NVRM: The NVIDIA GPU 0000:3b:00.0 has fallen off the bus and is not responding to commands.",
    ],
)
def test_a_device_that_fell_off_the_bus_is_lost(line: str) -> None:
    fact = fact_of(line)
    assert fact is not None
    assert (fact.name, fact.pci_address, fact.severity) == (signals.ACCELERATOR_LOST, "0000:3b:00.0", ERROR)


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("Memory cgroup out of memory: Killed process 8 (python3) total-vm:9kB, anon-rss:1kB", "cgroup"),
        ("Out of memory: Killed process 8 (python3) total-vm:9kB, anon-rss:1kB", "host"),
        ("Out of memory: Kill process 8 (python3) score 900 or sacrifice child", "host"),
    ],
)
def test_a_kill_for_memory_names_process_and_place(line: str, place: str) -> None:
    fact = fact_of(line)
    assert fact is not None
    assert (fact.name, fact.pid) == (signals.KERNEL_OOM_KILL, 8)
    assert fact.attributes == {signals.EXIT_OOM: place, signals.KERNEL_TASK: "python3"}


@pytest.mark.parametrize(
    "line",
    [
        "ata1: SATA link down (SStatus 0 SControl 300)",
        "docker0: port 1(veth2) entered disabled state",
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.15",
        "EXT4-fs (sda1): mounted filesystem with ordered data mode. Quota mode: none.",
        "",
    ],
)
def test_other_lines_are_nobodys_business(line: str) -> None:
    assert fact_of(line) is None


def test_pci_addresses_have_one_form() -> None:
    assert {pci_address(text) for text in ("0000:3B:00", "00000000:3b:00.0", "0000:3b:00:")} == {
        "0000:3b:00.0"
    }


def test_records_have_continuations_and_escapes() -> None:
    content = (
        b"6,339,5140900,-;NET: Registered\n"
        b"11,340,5690716,-,caller=T1;name \\x0a caf\\xc3\\xa9\n SUBSYSTEM=pci\n DEVICE=+pci:x\nbad\n"
    )
    first, second = parse_records(content)
    assert (first.sequence, first.time_us, first.facility, first.text) == (
        339,
        5140900,
        "kern",
        "NET: Registered",
    )
    assert (second.facility, second.text) == ("user", "name \\x0a café")


# --- a file in the form of the log ------------------------------------------------------------------------


class Log:
    """A kernel's log in a folder, and the little of /proc that goes with it."""

    def __init__(self, root: Path) -> None:
        self.root, self.path, self.state = root, root / "kmsg", root / "kernel_log.json"
        self.path.touch()
        self.boot("first")
        self._sequence = 0

    def boot(self, boot_id: str) -> None:
        place = self.root / "proc/sys/kernel/random"
        place.mkdir(parents=True, exist_ok=True)
        (place / "boot_id").write_text(boot_id + "\n")

    def write(self, *texts: str, time_us: int = NOW_US, priority: int = 4) -> None:
        with self.path.open("a") as file:
            for text in texts:
                file.write(f"{priority},{self._sequence},{time_us},-;{text}\n")
                self._sequence += 1

    def collector(self, **options: object) -> KernelLogCollector:
        chosen = {"path": self.path, "state_file": self.state, "proc": self.root / "proc", **options}
        return KernelLogCollector(**chosen)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def events(collector: KernelLogCollector, node: Node = Node(), now: Clock = AT) -> list[Event]:  # noqa: B008
    return [item for item in collector.collect(now, node) if isinstance(item, Event)]


def codes(found: list[Event]) -> list[object]:
    return [event.attributes.get(signals.XID_CODE, event.name) for event in found]


def xid_line(code: int) -> str:
    return f"NVRM: Xid (PCI:0000:3b:00): {code}, pid=4711, name=python3, something"


def test_an_xid_becomes_an_event_with_device_process_and_meaning(log: Log) -> None:
    (log.root / "proc/driver/nvidia/gpus/0000:3b:00.0").mkdir(parents=True)
    (log.root / "proc/driver/nvidia/gpus/0000:3b:00.0/information").write_text(
        "Model: \t\t NVIDIA H100\nGPU UUID: \t GPU-8f2a\nBus Location: \t 0000:3b:00.0\n"
    )
    log.write("usb 1-1: new device", XID, time_us=NOW_US - 3_000_000)
    collector = log.collector(host_pids=True)
    (event,) = events(collector)
    collector.close()
    assert (event.name, event.body, event.severity) == (signals.KERNEL_XID, XID, ERROR)
    assert event.time_ns == AT.wall_ns - 3 * 10**9
    assert event.attributes == {
        signals.XID_CODE: 79, signals.XID_MEANING: "the device has fallen off the bus",
        signals.XID_ADVICE: "reboot", signals.KERNEL_TASK: "python3", signals.ACCELERATOR_PCI: "0000:3b:00.0",
        signals.HW_ID: "GPU-8f2a", signals.PID: 4711, signals.KERNEL_FACILITY: "kern",
        signals.KERNEL_SEQUENCE: 1,
    }  # fmt: skip


def test_the_drivers_own_line_names_the_device_before_its_first_error(log: Log) -> None:
    log.write("NVRM: GPU at PCI:0000:3b:00: GPU-6c0e-11", xid_line(43))
    collector = log.collector()
    assert [event.attributes[signals.HW_ID] for event in events(collector)] == ["GPU-6c0e-11"]
    collector.close()


def test_a_process_of_the_job_is_named_by_rank_and_in_a_container_no_pid_is_believed(log: Log, world) -> None:
    world.rank(os.getpid())
    log.write(f"NVRM: Xid (PCI:0000:3b:00): 31, pid={os.getpid()}, name=python3, MMU Fault")
    inside, outside = log.collector(host_pids=False, state_file=None), log.collector(host_pids=True)
    (believed,), (unknown,) = events(outside, world.node()), events(inside, world.node())
    assert (believed.attributes[signals.RANK], believed.attributes[signals.PID]) == (0, os.getpid())
    assert not {signals.RANK, signals.PID} & set(unknown.attributes)
    inside.close()
    outside.close()


def test_what_a_process_wrote_into_the_log_is_not_believed_except_in_drills_and_says_so(log: Log) -> None:
    log.write(XID, priority=12)
    believing, doubting = log.collector(accept_user_records=True), log.collector()
    assert [event.attributes[signals.KERNEL_FACILITY] for event in events(believing)] == ["user"]
    assert events(doubting) == []
    believing.close()
    doubting.close()


def test_the_first_agent_looks_back_a_minute_and_no_further(log: Log) -> None:
    log.write(xid_line(31), time_us=NOW_US - 61_000_000)
    log.write(xid_line(13), time_us=NOW_US - 59_000_000)
    collector = log.collector()
    assert codes(events(collector)) == [13]
    collector.close()


def test_an_agent_that_comes_back_goes_on_after_the_last_acknowledged_record(log: Log) -> None:
    first = log.collector()
    log.write(xid_line(13), xid_line(31))
    told = events(first)
    log.write("something else", xid_line(48))
    told += events(first)
    assert codes(told) == [13, 31, 48]
    first.acknowledge(told[0].path, told[0].end_offset)
    first.acknowledge(told[2].path, told[2].end_offset)  # out of order: 31 still waits
    first.close()
    second = log.collector()
    again = events(second)
    assert codes(again) == [31, 48]
    for event in again:
        second.acknowledge(event.path, event.end_offset)
    second.close()
    third = log.collector()
    assert events(third) == []
    log.write(xid_line(94))
    assert codes(events(third)) == [94]
    third.close()


def test_after_a_start_of_the_machine_numbers_begin_anew_and_all_of_its_log_counts(log: Log) -> None:
    log.write("a", "b", xid_line(13))
    first = log.collector()
    (event,) = events(first)
    first.acknowledge(event.path, event.end_offset)
    first.close()
    log.boot("second")
    log.path.write_text(f"4,0,1000,-;{xid_line(48)}\n")
    second = log.collector()
    (again,) = events(second)
    assert (codes([again]), again.path) == ([48], "kmsg:second")
    second.acknowledge("kmsg:first", again.end_offset)  # a word about the other log
    second.close()
    third = log.collector()
    assert codes(events(third)) == [48]
    third.close()


def test_a_storm_of_one_error_is_counted_and_hides_no_other(log: Log) -> None:
    log.write(*[xid_line(31)] * (REPETITIONS + 5), xid_line(48))
    collector = log.collector()
    assert codes(events(collector)) == [31] * REPETITIONS + [48]
    log.write(xid_line(31))
    later = Clock(AT.wall_ns + 61 * 10**9, AT.mono_ns + 61 * 10**9)
    (event,) = events(collector, now=later)
    assert event.body.endswith("(and 5 more like the last one of these)")
    collector.close()


def test_a_log_that_is_not_there_or_may_not_be_read_is_a_gap_with_its_remedy(log: Log) -> None:
    with pytest.raises(CapabilityError, match=r"--device .*/absent"):
        events(log.collector(path=log.root / "absent"))
    with pytest.raises(CapabilityError, match="CAP_SYSLOG"):
        events(log.collector(path=log.path / "below-a-file"))


def test_records_that_were_overwritten_are_counted_and_said(log: Log) -> None:
    answers: list[bytes | type[OSError]] = [
        b"4,7,1,-;a\n", BrokenPipeError, BrokenPipeError, b"4,12,1,-;b\n", BlockingIOError
    ]  # fmt: skip

    def read(descriptor: int, size: int) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, bytes):
            return answer
        raise answer

    source = KernelLog(log.path, read)
    assert [record.sequence for record in source.read(10)] == [7, 12]
    assert source.lost == 4
    collector = log.collector()
    collector._log, collector._done = source, 0
    answers.append(BlockingIOError)
    point, event = collector.collect(AT, Node())
    assert (event.name, event.attributes) == (signals.KERNEL_LOG_GAP, {signals.LOST_COUNT: 4})
    assert (point.name, point.value) == (signals.KERNEL_LOG_LOST, 4)
    answers.append(BlockingIOError)
    assert events(collector) == []
    collector.close()


# --- the real log -----------------------------------------------------------------------------------------


def until(found: Callable[[], Event | None], seconds: float = 10.0) -> Event:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        event = found()
        if event is not None:
            return event
        time.sleep(0.01)
    raise AssertionError("the line did not come")


@pytest.mark.skipif(not os.access(KERNEL_LOG, os.W_OK), reason="writing to the kernel's log needs root")
def test_a_line_in_the_real_log_is_seen_once_and_not_again_after_its_acknowledgement(tmp_path: Path) -> None:
    def clock() -> Clock:
        return Clock(time.time_ns(), time.monotonic_ns())

    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    state = tmp_path / "kernel_log.json"
    first = KernelLogCollector(state_file=state, accept_user_records=True)

    def mine(collector: KernelLogCollector) -> list[Event]:
        return [event for event in events(collector, now=clock()) if marker in event.body]

    assert mine(first) == []
    line = f"NVRM: Xid (PCI:0000:3b:00): 79, pid={os.getpid()}, name={marker}, GPU has fallen off the bus."
    KERNEL_LOG.write_text(f"<4>{line}\n")
    event = until(lambda: next(iter(mine(first)), None))
    assert event.body == line
    assert event.attributes[signals.XID_CODE] == 79
    assert event.attributes[signals.KERNEL_FACILITY] == "user"
    assert abs(event.time_ns - time.time_ns()) < 60 * 10**9
    assert mine(first) == []
    first.close()
    second = KernelLogCollector(state_file=state, accept_user_records=True)
    told = events(second, now=clock())  # with what others of this machine caused meanwhile
    assert [again.end_offset for again in told if marker in again.body] == [event.end_offset]
    for again in told:
        second.acknowledge(again.path, again.end_offset)
    second.close()
    third = KernelLogCollector(state_file=state, accept_user_records=True)
    assert mine(third) == []
    third.close()
