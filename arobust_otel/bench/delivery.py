"""`bench delivery`: everything between a report and the journal fails in turn, and every item is counted.

One master, one reporter, a proxy between them; under steady load each fault is made, held and mended. At the
end what was reported is compared with what the journal holds. See `delivery_count` for what counts as what.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arobust_otel.bench.delivery_count import Row, compare, read_journal, read_truth
from arobust_otel.bench.delivery_master import CannotBench, Disk, Master, ReporterProcess
from arobust_otel.bench.delivery_proxy import Mode, Proxy
from arobust_otel.bench.delivery_reporter import Orders

PROTOCOLS = ("http", "grpc")
CALL_SECONDS = 1.0
_FAULT_SHARE = 0.55  # of a fault's time; the rest is for what was kept to be delivered
_WAIT_SECONDS = 15.0


COLUMNS = (
    "reported",
    "delivered",
    "lost",
    "dropped",
    "killed",
    "uncounted",
    "repeated",
    "read_again",
    "retries",
)


@dataclass(frozen=True, slots=True)
class World:
    """What faults are made in."""

    master: Master
    disk: Disk
    proxy: Proxy
    reporter: ReporterProcess


@dataclass(frozen=True, slots=True)
class Result:
    """One protocol."""

    protocol: str
    disk: str
    rows: tuple[Row, ...]  # the last one is the total
    repeated_batches: int
    still_waiting: int
    lost_answers: int
    kills: int

    @property
    def is_good(self) -> bool:
        """Nothing was lost without being counted, nothing arrived twice, nothing was left waiting."""
        total = self.rows[-1]
        return not (total.uncounted or total.repeated or self.repeated_batches or self.still_waiting)

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "protocol": self.protocol,
            "disk": self.disk,
            "rows": [row.to_json() for row in self.rows],
            "repeated_batches": self.repeated_batches,
            "still_waiting": self.still_waiting,
            "lost_answers": self.lost_answers,
            "reporters_killed": self.kills,
            "is_good": self.is_good,
        }


Hold = Callable[[float], None]


def _stopped(world: World, hold: Hold, seconds: float) -> None:
    world.master.signal(signal.SIGSTOP)
    hold(seconds)
    world.master.signal(signal.SIGCONT)


def _killed(world: World, hold: Hold, seconds: float) -> None:
    world.master.kill()
    hold(seconds)
    world.master.start()


def _network(mode: Mode) -> Callable[[World, Hold, float], None]:
    def fail(world: World, hold: Hold, seconds: float) -> None:
        world.proxy.mode = mode
        hold(seconds)
        world.proxy.mode = Mode.PASS

    return fail


def _answers_lost_then_killed(world: World, hold: Hold, seconds: float) -> None:
    """What the master knew of batches whose answer was lost must survive it."""
    world.proxy.mode = Mode.LOSE
    hold(seconds / 2)
    world.master.kill()
    world.proxy.mode = Mode.PASS
    hold(seconds / 2)
    world.master.start()


def _disk_full(world: World, hold: Hold, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        world.disk.fill(world.master.receiver())
        hold(min(0.2, left))
    world.disk.free()


def _reporter_killed(world: World, hold: Hold, seconds: float) -> None:
    hold(seconds / 2)
    world.reporter.kill()
    world.reporter.start()
    hold(seconds / 2)


def _reporter_killed_in_outage(world: World, hold: Hold, seconds: float) -> None:
    """With parcels on its disk, some of them delivered already without an answer."""
    world.proxy.mode = Mode.LOSE
    hold(seconds / 4)
    world.proxy.mode = Mode.REFUSE
    deadline = time.monotonic() + _WAIT_SECONDS
    while not world.reporter.spooled() and time.monotonic() < deadline:
        hold(0.1)
    hold(seconds / 4)
    world.reporter.kill()
    world.reporter.start()
    hold(seconds / 4)
    world.proxy.mode = Mode.PASS


FAULTS: dict[str, Callable[[World, Hold, float], None]] = {
    "master stopped": _stopped,
    "master killed": _killed,
    "master slow": _network(Mode.SLOW),
    "master refuses": _network(Mode.REFUSE),
    "answers lost": _network(Mode.LOSE),
    "answers lost and master killed": _answers_lost_then_killed,
    "disk full": _disk_full,
    "reporter killed": _reporter_killed,
    "reporter killed in an outage": _reporter_killed_in_outage,
}


def bench_delivery(
    protocols: Sequence[str],
    seconds: float,
    faults: Sequence[str],
    say: Callable[[str], None],
    keep: Path | None = None,
) -> list[Result]:
    """Run every protocol with every fault.

    Args:
        protocols: http, grpc.
        seconds: of load in all; divided among protocols and faults.
        faults: names of `FAULTS`.
        say: hears what is done.
        keep: an empty or new folder for all files; None: a temporary one.

    Raises:
        CannotBench: a process did not start or did not end.
    """
    share = seconds / len(protocols)
    results = []
    for protocol in protocols:
        with _folder(keep, protocol) as folder, ExitStack() as ends:
            world = _build(protocol, folder, keep is not None, ends)
            results.append(_one_protocol(protocol, share, faults, world, say))
    return results


@contextmanager
def _folder(keep: Path | None, protocol: str) -> Iterator[Path]:
    if keep is not None:
        folder = keep / protocol
        folder.mkdir(parents=True, mode=0o700)
        yield folder
        return
    folder = Path(tempfile.mkdtemp(prefix="arobust-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _one_protocol(
    protocol: str, seconds: float, faults: Sequence[str], world: World, say: Callable[[str], None]
) -> Result:
    say(f"{protocol}: a master on a {world.disk.kind}, a reporter with a spool, a proxy between them")
    world.master.start()
    world.reporter.start()
    phases = [(0, "none")]
    _hold(world, 1.0)
    for name in faults:
        phases.append((time.time_ns(), name))
        say(f"{protocol}: {name}")
        _make_fault(world, name, seconds / len(faults))
        say(f"{protocol}: {name} is over, {world.reporter.waiting()} items wait")
    say(f"{protocol}: waiting until everything is delivered")
    drained = world.reporter.drain(say)
    world.master.stop()
    say(f"{protocol}: reading the journal")
    return _judge(protocol, world, phases, drained)


def _make_fault(world: World, name: str, seconds: float) -> None:
    """Make it, hold it, mend it, and leave time for what was kept to be delivered."""
    begun = time.monotonic()
    FAULTS[name](world, lambda held: _hold(world, held), _FAULT_SHARE * seconds)
    _hold(world, max(0.5, seconds - (time.monotonic() - begun)))


def _build(protocol: str, folder: Path, keep: bool, ends: ExitStack) -> World:
    disk = Disk(folder / "master", keep)
    ends.callback(disk.close)
    master = Master(disk.folder, folder / "master.output")
    ends.callback(master.stop)
    port = master.http_port if protocol == "http" else master.grpc_port
    proxy = Proxy(port, protocol, CALL_SECONDS)
    ends.callback(proxy.close)
    address = f"http://127.0.0.1:{proxy.port}" if protocol == "http" else f"127.0.0.1:{proxy.port}"
    reporter = ReporterProcess(Orders(str(folder), 0, address, CALL_SECONDS))
    ends.callback(reporter.kill)
    return World(master, disk, proxy, reporter)


def _judge(protocol: str, world: World, phases: list[tuple[int, str]], drained: bool) -> Result:
    truth = read_truth(world.disk.folder.parent, world.reporter.number)
    found, repeated_batches = read_journal(world.disk.folder / "journal")
    return Result(
        protocol,
        world.disk.kind,
        tuple(compare(truth, found, phases)),
        repeated_batches,
        0 if drained else max(1, truth.waiting),
        world.proxy.lost_answers,
        truth.kills,
    )


def _hold(world: World, seconds: float) -> None:
    """Let time pass; a reporter that ended by itself is a reason to stop."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if not world.reporter.is_alive():
            raise CannotBench("the reporter ended; see its output")
        time.sleep(min(0.2, left))


def table(result: Result) -> str:
    """For people."""
    titles = [name.replace("_", " ") for name in COLUMNS]
    width = max(len(row.fault) for row in result.rows)
    lines = [
        f"{result.protocol} (disk of the master: {result.disk})",
        f"{'fault':<{width}}" + "".join(f"{title:>11}" for title in titles),
        *(
            f"{row.fault:<{width}}" + "".join(f"{getattr(row, name):>11,}" for name in COLUMNS)
            for row in result.rows
        ),
    ]
    total = result.rows[-1]
    lines.append(
        f"{result.lost_answers} answers were lost on the way, "
        f"{result.repeated_batches} batches arrived twice, "
        f"{result.kills} reporters were killed ({total.cut_short} items in the hand), "
        f"{result.still_waiting} items still wait"
    )
    return "\n".join(lines)
