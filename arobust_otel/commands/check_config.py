"""`arobust check-config`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from arobust_otel.commands.shown import json_option, print_json
from arobust_otel.config import agent_settings, config_path, load_file, master_settings
from arobust_otel.errors import ConfigurationError
from arobust_otel.plugins import close
from arobust_otel.redaction import shown as without_secrets


@click.command(name="check-config")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@json_option
def command(file: Path | None, as_json: bool) -> None:
    """Check FILE (else $AROBUST_CONFIG) and show the settings that it gives.

    Exits with 2 and names the key, the value and what would be right where something is wrong.
    """
    path = config_path(file)
    if path is None:
        raise ConfigurationError("FILE", None, "a configuration file, or AROBUST_CONFIG in the environment")
    sections = load_file(path)
    master, agent = master_settings(sections), agent_settings(sections)
    from arobust_otel.master.destinations import build_forwarder
    from arobust_otel.master.engine import EngineSettings, build_rules

    for forwarder in master.forwarders:
        close(build_forwarder(forwarder))
    engine = EngineSettings.from_table(master.engine)
    build_rules(master.rules)
    shown = {"master": asdict(master), "agent": asdict(agent)}
    shown["master"]["engine"] = asdict(engine)
    if shown["master"]["token"]:
        shown["master"]["token"] = "(set)"  # noqa: S105 - said instead of the token
    for forwarder in shown["master"]["forwarders"]:
        forwarder["options"] = without_secrets("options", forwarder["options"])
    if as_json:
        print_json(_plain(shown))
        return
    click.echo(f"{path} is right.")
    for section, values in shown.items():
        click.echo(f"\n[{section}]")
        for key, value in values.items():
            click.echo(f"{key} = {_plain(value)}")


def _plain(value: Any) -> Any:
    """The value with paths as text and addresses as host:port."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "_fields"):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
