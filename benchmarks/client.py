"""What reporting costs: MasterClient beside the bare exporters, against a real master, in one run.

Ways: MasterClient; the SDK's batch processor (log lines) and gauges with a periodic reader (points) over the
bare exporters; one synchronous export for each report, as the predecessor's client did. Each over OTLP/HTTP
and OTLP/gRPC, each in a process of its own. Loss and delay are read from the master's journal. Prints a table
with ratios to MasterClient over HTTP and keeps everything in ``benchmarks/results/client.json``.

    python benchmarks/client.py [--out FILE]

Processor time is the whole process's for one report, building it included, less that of the same loop
without reports (``cpu_us_of_the_loop``). P99 is what a caller waited, ``report_p99_undisturbed_ms`` the same
without reports that the kernel interrupted for others, above all for the master on the same machine.

Honest limits: ten minutes without a master are ten minutes of an agent's load (8 ranks: 20 lines and 60
points a second, 12,000 lines and 36,000 points) handed over in 15 seconds, so nothing expires and few retries
happen. Gauges of the SDK keep the newest value only: what they superseded is lost, and cost nothing to send.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client_ways import POINTS_IN_A_REPORT

from arobust_otel.journal import Kind, Reader
from arobust_otel.master.layout import Layout
from arobust_otel.otlp.messages import LOGS, METRICS, REQUESTS

HERE = Path(__file__).parent
RESULT = HERE / "results" / "client.json"
WAYS = ("master_client", "batch", "one_call")
SHOWN = {
    "master_client": "MasterClient",
    "batch": "SDK batch / gauges",
    "one_call": "one export a report",
}
PROTOCOLS = ("http", "grpc")
KINDS = ("lines", "points")
JOB_ID = "arobust.job.id"
COLUMNS = (
    ("reports_per_second", "reports/s"),
    ("report_p50_ms", "P50 ms"),
    ("report_p99_ms", "P99 ms"),
    ("report_p99_undisturbed_ms", "undisturbed ms"),
    ("cpu_us_per_report", "CPU us"),
    ("journal_p50_ms", "to journal P50 ms"),
    ("lost", "lost"),
)


@contextmanager
def master(folder: Path, port: int = 0) -> Iterator[dict[str, Any]]:
    """A real master; yields what it says of itself in ``master.json``."""
    command = [sys.executable, "-m", "arobust_otel.cli", "master", "--data-dir", str(folder)]
    command += ["--otlp-http", f"127.0.0.1:{port}", "--otlp-grpc", "127.0.0.1:0", "--api", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield _information(folder, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _information(folder: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            found: dict[str, Any] = json.loads((folder / "master.json").read_bytes())
            if found.get("pid") == process.pid:
                return found
        except (OSError, ValueError):
            pass
        time.sleep(0.1)
    raise SystemExit("the master did not start")


@dataclass(slots=True)
class Arrival:
    """What the journal holds of one report."""

    first_ns: int
    items: int = 0


Arrivals = dict[tuple[str, str], dict[int, Arrival]]


def arrivals(folder: Path) -> Arrivals:
    """By run and kind of report: the reports by their numbers."""
    found: Arrivals = {}
    with Reader(Layout(folder).journal) as reader:
        while records := reader.read():
            for record in records:
                if record.kind is Kind.REQUEST and record.signal in _ENTRIES:
                    _note(record, found)
    return found


def _note(record: Any, found: Arrivals) -> None:
    request: Any = REQUESTS[record.signal].FromString(record.payload)
    entries, kind, numbers = _ENTRIES[record.signal]
    for resource in getattr(request, entries):
        attributes = {item.key: item.value.string_value for item in resource.resource.attributes}
        seen = found.setdefault((attributes.get(JOB_ID, ""), kind), {})
        for number in numbers(resource):
            seen.setdefault(number, Arrival(record.received_ns)).items += 1


def _line_numbers(resource: Any) -> Iterator[int]:
    for scope in resource.scope_logs:
        for record in scope.log_records:
            yield int(record.body.string_value.split()[0])


def _point_numbers(resource: Any) -> Iterator[int]:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            for point in metric.gauge.data_points or metric.sum.data_points:
                yield int(point.as_int or point.as_double)


# signal -> field of the request, kind of report, what finds the numbers
_ENTRIES: dict[str, tuple[str, str, Callable[[Any], Iterator[int]]]] = {
    LOGS: ("resource_logs", "lines", _line_numbers),
    METRICS: ("resource_metrics", "points", _point_numbers),
}


def missing(seen: dict[int, Arrival], reports: int, items: int) -> tuple[int, int]:
    """Reports that are not there in full, and items that are there twice."""
    whole = sum(arrival.items >= items for arrival in seen.values())
    return reports - whole, sum(max(0, arrival.items - items) for arrival in seen.values())


def worker(mode: str, *arguments: str) -> subprocess.Popen[str]:
    """A process that measures one way."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = [sys.executable, str(HERE / "client_ways.py"), mode, *arguments]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environ,
    )


def measure_load(folder: Path) -> dict[str, dict[str, Any]]:
    """Every way, protocol and kind of report, one after the other, against one master."""
    found: dict[str, dict[str, Any]] = {}
    loop_us = json.loads(worker("loop").communicate(timeout=200)[0])
    with master(folder) as information:
        for kind in KINDS:
            for name in WAYS:
                for protocol in PROTOCOLS:
                    run = f"{kind}.{name}.{protocol}"
                    address = str(information[f"otlp_{protocol}"])
                    process = worker("load", name, protocol, kind, run, address)
                    output, _ = process.communicate(timeout=200)
                    found[run] = _less_loop(json.loads(output.splitlines()[-1]), loop_us)
                    _progress(run, found[run])
    seen = arrivals(folder)
    for run, values in found.items():
        _judge(values, seen.get((run, run.split(".")[0]), {}))
    return found


def _less_loop(values: dict[str, Any], loop_us: float) -> dict[str, Any]:
    net = round(values.pop("cpu_us_with_loop") - loop_us, 1)
    return values | {
        "cpu_us_per_report": net,
        "cpu_us_per_1000_reports": round(1000 * net),
        "cpu_us_of_the_loop": loop_us,
    }


def _judge(values: dict[str, Any], seen: dict[int, Arrival]) -> None:
    """Loss and delay from what the journal holds."""
    values["lost"], values["repeated_items"] = missing(seen, values["reports"], values["items_in_a_report"])
    for name, key in (("journal", "times_ns"), ("fact_to_journal", "facts_ns")):
        times_ns = {int(number): at for number, at in values.pop(key).items()}
        delays = sorted(
            (seen[number].first_ns - at) / 1e6 for number, at in times_ns.items() if number in seen
        )
        if times_ns and len(delays) > len(times_ns) // 2:  # of superseded gauges only the newest arrive
            values[f"{name}_p50_ms"] = round(delays[len(delays) // 2], 1)
            values[f"{name}_p99_ms"] = round(delays[int(len(delays) * 0.99)], 1)


def measure_away(folder: Path) -> dict[str, dict[str, Any]]:
    """Ten minutes of load without a master, which then comes."""
    found = {}
    for name in WAYS:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        run, place = f"away.{name}", folder / name
        process = worker("away", name, "http", "lines", run, f"http://127.0.0.1:{port}")
        assert process.stdout is not None
        process.stdout.readline()
        with master(place, port):
            output, _ = process.communicate("back\n", timeout=150)
        found[run] = json.loads(output.splitlines()[-1])
        seen = arrivals(place)
        for kind, items in (("lines", 1), ("points", POINTS_IN_A_REPORT)):
            lost = missing(seen.get((run, kind), {}), found[run][f"{kind}_reports"], items)[0]
            found[run][f"{kind}_lost"] = lost * items
        _progress(run, found[run])
    return found


def _progress(run: str, values: dict[str, Any]) -> None:
    shown = {name: value for name, value in values.items() if not name.endswith("_ns")}
    sys.stderr.write(f"{run}: {json.dumps(shown)}\n")


def table(load: dict[str, dict[str, Any]]) -> str:
    """Rows of figures, each with its ratio to MasterClient over HTTP."""
    rows = []
    for kind in KINDS:
        base = load[f"{kind}.master_client.http"]
        unit = "one log line" if kind == "lines" else "20 points"
        rows.append(f"\n{f'a report is {unit}':32}" + "".join(f"{title:>20}" for _, title in COLUMNS))
        for name in WAYS:
            for protocol in PROTOCOLS:
                values = load[f"{kind}.{name}.{protocol}"]
                cells = "".join(f"{_cell(values.get(key), base.get(key)):>20}" for key, _ in COLUMNS)
                rows.append(f"{SHOWN[name] + ', ' + protocol:32}{cells}")
    return "\n".join(rows)


def _cell(value: float | None, base: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:g} ({value / base:.2g}x)" if base else f"{value:g}"


def away_table(away: dict[str, dict[str, Any]]) -> str:
    """Memory and loss after ten minutes without a master."""
    titles = ("memory MiB", "grown", "P99 of a report ms", "lines lost", "points lost")
    widths = (12, 9, 22, 18, 18)
    heads = "".join(title.rjust(width) for title, width in zip(titles, widths, strict=True))
    rows = [f"\n{'ten minutes without a master':32}{heads}"]
    for name in WAYS:
        values = away[f"away.{name}"]
        lost = "".join(
            f"{values[f'{kind}_lost']} of {values[f'{kind}_reports'] * items}".rjust(18)
            for kind, items in (("lines", 1), ("points", POINTS_IN_A_REPORT))
        )
        rows.append(
            f"{SHOWN[name] + ', http':32}{values['memory_mib']:>12}{values['memory_grown_mib']:>9}"
            f"{values['report_p99_ms']:>22}{lost}"
        )
    return "\n".join(rows)


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="arobust-bench-"))
    try:
        load = measure_load(folder / "load")
        away = measure_away(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ours = load["points.master_client.http"]
    result = {
        "machine": {"python": platform.python_version(), "processors": os.cpu_count()},
        "load_average": os.getloadavg()[0],
        "report_p99_ms": ours["report_p99_ms"],
        "cpu_us_per_report": ours["cpu_us_per_report"],
        "lost": sum(
            load[f"{kind}.master_client.{protocol}"]["lost"] for kind in KINDS for protocol in PROTOCOLS
        )
        + sum(away["away.master_client"][f"{kind}_lost"] for kind in KINDS),
        "memory_mib_master_away": away["away.master_client"]["memory_mib"],
        "load": load,
        "away": away,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{table(load)}\n{away_table(away)}\n\nkept in {options.out}\n")


if __name__ == "__main__":
    main()
