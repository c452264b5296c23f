"""`arobust replay`."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command(name="replay")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Canonical JSON, one incident a line.")
def command(folder: Path, as_json: bool) -> None:
    """Compute the incidents again from the journal in FOLDER (a journal, a data folder or a kept demo).

    Same journal, same configuration, same versions: the same incidents, byte for byte. Stored incidents are
    never read.
    """
    from arobust_otel.master.replay import replay

    journal = next(
        (path for path in (folder / "journal", folder / "data" / "journal") if path.is_dir()), folder
    )
    raise click.exceptions.Exit(replay(journal, sys.stdout, as_json=as_json) or 0)
