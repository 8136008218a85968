"""The `kaos` command: a group that imports a command's module only when that command is used."""

from __future__ import annotations

import importlib
import sys

import click

from kaos import __version__
from kaos.errors import KaosError

COMMANDS = {
    "up": ("server", "Start the local server."),
    "down": ("server", "Stop the local server."),
    "status": ("server", "Show the processes of the local server."),
    "logs": ("server", "Show the logs of the local server."),
    "user": ("server", "Manage the users of the local server."),
    "init": ("connect", "Connect to a running kaos server."),
    "workspace": ("workspace", "Create, choose, show and remove workspaces."),
    "template": ("template", "Get a working example to start from."),
    "train": ("train", "Train models, watch them, and get everything back."),
    "serve": ("serve", "Serve models behind stable URLs."),
    "model": ("model", "List and tag models, and bring some from elsewhere."),
    "lineage": ("lineage", "Ask where models come from, and what came of a file."),
    "bundle": ("bundle", "Show a bundle's digest, and check the store."),
    "gc": ("gc", "Remove what no kept model, endpoint or job needs."),
}
"""Each command with its module in `kaos_cli.commands` and its line in `kaos --help`; a test compares."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for: `kaos --help` imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a first session."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module and return the command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"kaos_cli.commands.{COMMANDS[cmd_name][0]}")
        command = getattr(module, cmd_name)
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which ones are near."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from kaos.errors import UnknownNameError

            raise UnknownNameError("command", args[0], COMMANDS, "See kaos --help.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="kaos")
def cli() -> None:
    """Train, trace and reproduce machine learning models on Apache Airflow.

    \b
    A first session:
        kaos up
        kaos init
        kaos workspace create -n mnist
        kaos template get --name mnist
        kaos train deploy -s templates/mnist/model-train -d templates/mnist/data --wait
        kaos train list
    """


def main() -> None:
    """Run the command line: errors of kaos in words, never as a traceback."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("Stopped.", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KaosError as error:
        click.echo(f"Error: {error.message}", err=True)
        if error.next_step:
            click.echo(error.next_step, err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:  # a full disk, a directory that may not be written
        click.echo(f"Error: {error.filename or 'kaos'}: {error.strerror or error}.", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
