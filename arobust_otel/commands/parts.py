"""`arobust list`."""

from __future__ import annotations

import click

from arobust_otel.commands.shown import json_option, print_json
from arobust_otel.plugins import GROUPS, Part, discover


@click.command(name="list")
@json_option
def command(as_json: bool) -> None:
    """Show installed collectors, rules and forwarders; exits with 1 where one does not load."""
    found = {group: list(discover(group).values()) for group in GROUPS}
    if as_json:
        print_json({group: [_row(part) for part in parts] for group, parts in found.items()})
    else:
        _print(found)
    if any(part.target is None for parts in found.values() for part in parts):
        raise click.exceptions.Exit(1)


def _row(part: Part) -> dict[str, object]:
    return {
        "name": part.name,
        "state": "ok" if part.target else "broken",
        "summary": part.summary,
        "origin": part.origin,
        "options": list(part.settings()),
        "error": part.error,
    }


def _print(found: dict[str, list[Part]]) -> None:
    width = max((len(part.name) for parts in found.values() for part in parts), default=0)
    for group, parts in found.items():
        click.echo(f"{group}:" if parts else f"{group}: none")
        for part in parts:
            state = "ok    " if part.target else "broken"
            click.echo(f"  {part.name:{width}}  {state}  {part.summary}")
            for line in _details(part):
                click.echo(f"  {'':{width}}          {line}")


def _details(part: Part) -> list[str]:
    """Where a part of somebody else comes from, and what its section of the configuration may say."""
    foreign = not part.origin.startswith("arobust_otel.")
    options = ", ".join(part.settings())
    return [f"from {part.origin}"] * foreign + [f"options: {options}"] * bool(options)
