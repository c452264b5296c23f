"""`arobust agent`."""

from __future__ import annotations

import click


@click.command(
    name="agent",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Watch the ranks of one job on this node; the launcher starts it by itself."""
    from arobust_otel.agent.__main__ import main

    raise click.exceptions.Exit(main(list(arguments)))
