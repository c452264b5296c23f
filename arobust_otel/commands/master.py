"""`arobust master`."""

from __future__ import annotations

from pathlib import Path

import click

from arobust_otel.commands.shown import config_option
from arobust_otel.config import config_path, load_file, master_settings


@click.command(name="master")
@config_option
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder of the journal; one master each.")
@click.option("--otlp-http", metavar="HOST:PORT", help="Where OTLP/HTTP is received.  [127.0.0.1:4318]")
@click.option("--otlp-grpc", metavar="HOST:PORT", help="Where OTLP/gRPC is received.  [127.0.0.1:4317]")
@click.option("--api", metavar="HOST:PORT", help="Where questions are answered.  [127.0.0.1:4380]")
@click.option("--sync/--no-sync", default=None, help="Acknowledge only what is on the disk.  [sync]")
def command(
    config: Path | None,
    data_dir: Path | None,
    otlp_http: str | None,
    otlp_grpc: str | None,
    api: str | None,
    sync: bool | None,
) -> None:
    """Receive telemetry and heartbeats, keep the journal, judge, forward; ends on SIGTERM or Ctrl-C."""
    flags = {"data_dir": data_dir, "otlp_http": otlp_http, "otlp_grpc": otlp_grpc, "api": api, "sync": sync}
    settings = master_settings(load_file(config_path(config)), flags)
    from arobust_otel.master.run import run

    raise click.exceptions.Exit(run(settings))
