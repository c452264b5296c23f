"""`arobust explain`."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import click

from arobust_otel.checked import one_of
from arobust_otel.commands.shown import json_option, print_json
from arobust_otel.errors import ConfigurationError
from arobust_otel.manual import page
from arobust_otel.plugins import Part, discover


@click.command(name="explain")
@click.argument("rule")
@json_option
def command(rule: str, as_json: bool) -> None:
    """Show what RULE sees, what its verdicts mean, what to do, and when it is silent."""
    rules = discover("rules")
    name = rule.replace("-", "_")
    if name not in rules or rules[name].target is None:
        raise ConfigurationError("RULE", rule, one_of(name, tuple(rules), "a rule"))
    part = rules[name]
    if as_json:
        summary, sections = page(inspect.getdoc(part.target) or "")
        print_json({"rule": name, "summary": summary, "sections": sections, "settings": _settings(part)})
        return
    click.echo(f"{name}\n{'=' * len(name)}\n\n{inspect.getdoc(part.target)}\n")
    click.echo(f"Settings ([rules.{name}] in the configuration file):")
    for key, value in _settings(part).items():
        click.echo(f"    {key} = {value}")


def _settings(part: Part) -> dict[str, Any]:
    assert part.target is not None
    if not is_dataclass(part.target):
        return {}
    return {item.name: item.default for item in fields(part.target) if item.default is not MISSING}
