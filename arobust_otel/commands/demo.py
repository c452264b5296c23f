"""`arobust demo`."""

from __future__ import annotations

from pathlib import Path

import click

from arobust_otel.commands.shown import json_option

FAULTS = ("hang", "stop", "gil", "kill", "segfault", "exception", "early_exit", "none")


@click.command(name="demo")
@click.option(
    "--fault", type=click.Choice(FAULTS), default="hang", show_default=True, help="What to do to it."
)
@click.option("--rank", type=click.IntRange(0), default=2, show_default=True, help="The rank it is done to.")
@click.option("--ranks", type=click.IntRange(2, 64), default=4, show_default=True, help="Size of the job.")
@json_option
@click.option("--keep", type=click.Path(path_type=Path), help="Keep journal and logs in this folder.")
@click.option(
    "--timeout", "timeout_seconds", type=click.FloatRange(10), default=None, help="Seconds until giving up."
)
def command(
    fault: str, rank: int, ranks: int, as_json: bool, keep: Path | None, timeout_seconds: float | None
) -> None:
    """Start a master and a real training job, break one rank, and show the verdict.

    Exits 0 only where exactly the injected rank is blamed, for the right cause.
    """
    if rank >= ranks:
        raise click.BadParameter(f"{rank} is not one of ranks 0 to {ranks - 1}", param_hint="--rank")
    from arobust_otel.demo.run import run

    raise click.exceptions.Exit(
        run(fault=fault, rank=rank, ranks=ranks, as_json=as_json, keep=keep, timeout_seconds=timeout_seconds)
    )
