"""`arobust bench`."""

from __future__ import annotations

from typing import Any

import click

from arobust_otel.commands.shown import json_option, print_json


@click.group(name="bench")
def command() -> None:
    """Measure what parts of the master cost, on this machine, in one run."""


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
