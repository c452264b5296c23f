"""`arobust bench`."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import click

from arobust_otel.commands.shown import json_option, print_json


@click.group(name="bench")
def command() -> None:
    """Measure and try what this program promises, on this machine, in one run."""


def _sizes(ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.replace("_", "").split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r}: numbers divided by commas, for example 1000,10000") from None
    if any(size < 16 or size % 8 or size > 100_000 for size in sizes):
        raise click.BadParameter("each number is a multiple of 8 from 16 to 100000")
    return sizes


@command.command(name="engine")
@click.option("--ranks", callback=_sizes, default="1000,10000", show_default=True, help="Sizes of the job.")
@click.option(
    "--rounds", type=click.IntRange(3, 1000), default=18, show_default=True, help="Exports per node."
)
@json_option
def engine(ranks: tuple[int, ...], rounds: int, as_json: bool) -> None:
    """Feed serialized OTLP requests through decoder, state and rules."""
    from arobust_otel.bench.engine import bench_engine

    rows = bench_engine(ranks, rounds, say=lambda text: click.echo(text, err=True))
    if as_json:
        print_json({"rows": rows})
        return
    for row in rows:
        click.echo(_lines(row))


def _faults(ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    from arobust_otel.bench.delivery import FAULTS

    names = tuple(FAULTS) if text == "all" else tuple(part.strip() for part in text.split(","))
    for name in names:
        if name not in FAULTS:
            raise click.BadParameter(f"{name!r} is none of: {'; '.join(FAULTS)}")
    return names


@command.command(name="delivery")
@click.option(
    "--minutes",
    type=click.FloatRange(0.1, 600),
    default=3.0,
    show_default=True,
    help="Time under load in all; the faults share it.",
)
@click.option(
    "--protocol",
    type=click.Choice(["http", "grpc", "both"]),
    default="both",
    show_default=True,
    help="How the reporter speaks to the master.",
)
@click.option(
    "--faults",
    callback=_faults,
    default="all",
    metavar="NAMES",
    help="Names as in the table, divided by commas.  [default: all]",
)
@click.option(
    "--keep", type=click.Path(path_type=Path), help="New folder for all files; else they are deleted."
)
@json_option
def delivery(
    minutes: float, protocol: str, faults: tuple[str, ...], keep: Path | None, as_json: bool
) -> None:
    r"""Stop, kill, slow down and starve master and reporter, and count what became of every item.

    \b
    reported    the reporter's call came back, or the line is in the log file
    delivered   in the journal
    lost        not in the journal
    dropped     counted by the client as given up
    killed      counted by a ledger: only the memory of a killed reporter had them
    uncounted   lost, and nobody counted it
    repeated    in the journal more than once
    read again  log lines once more, since a killed reporter could not keep how far it had come
    retries     requests that were sent again, or tried to be

    Exit code 1 where anything is uncounted, repeated or still waiting at the end.
    """
    from arobust_otel.bench.delivery import PROTOCOLS, bench_delivery, table

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # everything that was started ends with us
    begun = time.monotonic()
    chosen = PROTOCOLS if protocol == "both" else (protocol,)
    results = bench_delivery(
        chosen,
        minutes * 60,
        faults,
        say=lambda text: click.echo(f"{time.monotonic() - begun:6.1f} s  {text}", err=True),
        keep=keep,
    )
    if as_json:
        print_json({"results": [result.to_json() for result in results]})
    else:
        click.echo("\n\n".join(table(result) for result in results))
    if not all(result.is_good for result in results):
        raise click.exceptions.Exit(1)


def _lines(row: dict[str, Any]) -> str:
    tick = "  {0:<8} {1:>9,.1f} ms  (max: {2:,.1f})  per tick"
    return "\n".join(
        (
            f"{row['ranks']:,} ranks: {row['requests']:,} requests of {row['points_per_request']} points",
            f"  decode   {row['decode_us_p50']:>9,.1f} us  (99 %: {row['decode_us_p99']:,.1f})  per request",
            f"  state    {row['state_us_p50']:>9,.1f} us  (99 %: {row['state_us_p99']:,.1f})  per request",
            tick.format("healthy", row["healthy_tick_ms_p50"], row["healthy_tick_ms_max"]),
            tick.format("stalled", row["stalled_tick_ms_p50"], row["stalled_tick_ms_max"]),
            f"  verdict  {row['verdict']}",
        )
    )
