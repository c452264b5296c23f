"""`arobust incidents`."""

from __future__ import annotations

import click

from arobust_otel.commands.shown import api_option, ask, is_terminal, json_option, print_json, rows
from arobust_otel.model.incident import OPEN, STATUSES
from arobust_otel.screen import print_rich, render_incident


@click.command(name="incidents")
@api_option
@click.option("--job", "job_id", help="Only this job.")
@click.option("--status", type=click.Choice(STATUSES), help="Only these.")
@click.option("--check", is_flag=True, help="Exit with 1 where an incident is open.")
@json_option
def command(api: str, job_id: str | None, status: str | None, check: bool, as_json: bool) -> None:
    """Show what is wrong, who is to blame, why, and what to do."""
    incidents = rows(ask(api, "incidents", {"job_id": job_id, "status": status}), "incidents")
    if as_json:
        print_json(incidents)
    elif not incidents:
        click.echo("No incident.")
    for incident in () if as_json else incidents:
        if is_terminal():
            print_rich(incident)
        else:
            click.echo(render_incident(incident) + "\n")
    if check and any(incident.get("status") == OPEN for incident in incidents):
        raise click.exceptions.Exit(1)
