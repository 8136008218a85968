"""`kaos bundle`: digests, and the state of the store."""

from __future__ import annotations

from pathlib import Path

import click

from kaos.errors import CorruptObjectError
from kaos.transfer.scan import scan, walk
from kaos_cli.output import done, say


@click.group()
def bundle() -> None:
    """Show a bundle's digest, and check the store."""


@bundle.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--tree", is_flag=True, help="Print the canonical tree, whose SHA-256 the digest is.")
def digest(directory: Path, tree: bool) -> None:
    """Print the full digest of the bundle in DIRECTORY; needs no server.

    \b
    Example:
        kaos bundle digest templates/mnist/data
    """
    scanned = scan(walk(directory))
    for warning in scanned.warnings:
        say(f"Warning: {warning}")
    click.echo(scanned.tree.encoded.decode() if tree else scanned.tree.digest, nl=not tree)


@bundle.command()
def verify() -> None:
    """Read every object of the server's store, and name what is damaged.

    \b
    Example:
        kaos bundle verify
    """
    from kaos_cli.client import connect
    from kaos_cli.config import load_config

    report = connect(load_config()).verify()
    for problem in report.damaged:
        click.echo(problem)
    if report.damaged:
        number = len(report.damaged)
        raise CorruptObjectError(
            f"{number} file{' is' if number == 1 else 's are'} damaged or missing "
            f"({report.checked} objects read).",
            "Deploy the directories that have them again: what is missing is sent.",
        )
    done(f"{report.checked} objects, all as their digests say")
