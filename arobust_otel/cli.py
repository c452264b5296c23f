"""The command `arobust`: one module of `commands/` per subcommand, imported only when it is used.

Exit codes: 0 as wished, 1 the answer is bad news (the command's help says which), 2 a wrong flag or setting,
3 no master answers. Nothing here knows what a command does.
"""

from __future__ import annotations

from importlib import import_module

import click

from arobust_otel import __version__
from arobust_otel.errors import ArobustError, ConfigurationError

# name -> module of `commands/`, and the line in `arobust --help`
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "Break a real training job and see the culprit named."),
    "master": ("master", "Receive telemetry, keep a journal, judge, forward."),
    "agent": ("agent", "Watch the ranks of one job on this node (started by itself)."),
    "status": ("status", "Jobs, ranks and agents, and what cannot be seen."),
    "incidents": ("incidents", "What is wrong, who is to blame, and why."),
    "replay": ("replay", "Compute the incidents again from a kept journal."),
    "bench": ("bench", "Measure what parts of the master cost."),
    "list": ("parts", "Collectors, rules and forwarders that are installed."),
    "explain": ("explain", "The manual page of a rule."),
    "check-config": ("check_config", "Check a configuration file and print what it means."),
}


class LazyGroup(click.Group):
    """Finds a subcommand by name, and turns errors of ours into one sentence and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module now."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"arobust_otel.commands.{COMMANDS[cmd_name][0]}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Run; a wrong setting ends with 2, another error of ours with 1."""
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            click.echo(f"{error.key} = {error.value!r}: expected {error.expected}", err=True)
            raise click.exceptions.Exit(2) from None
        except ArobustError as error:
            click.echo(f"arobust: {error}", err=True)
            raise click.exceptions.Exit(1) from None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="arobust")
def cli() -> None:
    """Find out why a distributed training job stopped, and which rank is to blame."""


def main() -> None:
    """Entry point of the console script."""
    cli(prog_name="arobust")


if __name__ == "__main__":
    main()
