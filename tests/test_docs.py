"""The documentation, the help and the packaging, held to what is there."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kaos_cli.main import COMMANDS, cli

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "commands"


def commands(command: click.Command, names: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Yield every command below `command`, groups included, by its full name."""
    if names:
        yield " ".join(names), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, name
            yield from commands(found, (*names, name))


ALL = dict(commands(cli))
LEAVES = {name: command for name, command in ALL.items() if not isinstance(command, click.Group)}


def rendered(command: click.Command) -> str:
    return command.get_help(click.Context(command, terminal_width=80))


@pytest.mark.parametrize("name", LEAVES)
def test_help_has_an_example_on_a_line_of_its_own(name: str) -> None:
    assert re.search(rf"^  Example:\n      kaos {name}( .*)?$", rendered(LEAVES[name]), re.MULTILINE)


@pytest.mark.parametrize("name", ALL)
def test_help_says_what_everything_is(name: str) -> None:
    command = ALL[name]
    if isinstance(command, click.Group):
        assert "..." not in rendered(command).partition("Commands:")[2]  # a line that was cut off
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"


def test_lines_of_the_first_help_are_those_of_the_commands() -> None:
    short = {name: ALL[name].get_short_help_str(100) for name in COMMANDS}
    assert short == {name: line for name, (_, line) in COMMANDS.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_page_that_names_all_it_has(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text()
    assert page.startswith(f"# kaos {name}\n")
    for full, command in ALL.items():
        if full != name and not full.startswith(f"{name} "):
            continue
        if full != name:
            assert f"\n## kaos {full}\n" in page
        section = page.partition(f"\n## kaos {full}\n")[2].partition("\n## ")[0] if full != name else page
        for parameter in command.params:
            words = parameter.opts if isinstance(parameter, click.Option) else [parameter.human_readable_name]
            for word in words:
                assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", section), f"{full}: {word}"


def test_every_page_is_of_a_command() -> None:
    assert {path.stem for path in PAGES.iterdir()} == set(COMMANDS)


DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(document: Path) -> set[str]:
    """Return the anchors of a page's titles, as forges make them."""
    titles = re.findall(r"^#+ (.*)$", without_code(document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def without_code(text: str) -> str:
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(document.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_index_leads_to_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for document in DOCUMENTS:
        if document.is_relative_to(ROOT / "docs") and document.name != "index.md":
            name = document.relative_to(ROOT / "docs")
            assert f"({name})" in index, f"docs/index.md has no link to {name}"


def packages() -> dict[str, Path]:
    """Return the packages of setup.cfg with their directories."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    tops = dict(re.findall(r"(\S+) = (\S+)", setup["options"]["package_dir"]))
    names = setup["options"]["packages"].split()
    return {name: ROOT.joinpath(tops[name.split(".")[0]], *name.split(".")[1:]) for name in names}


def test_packages_of_the_distribution_are_those_of_the_tree() -> None:
    listed = packages()
    tops = [directory for name, directory in listed.items() if "." not in name]
    there = {
        file.parent
        for top in tops
        for file in top.rglob("__init__.py")
        # Templates hold what a user's bundle is made of, which is data to us.
        if "bundles" not in file.relative_to(top).parts
    }
    assert set(listed.values()) == there


def modules() -> Iterator[str]:
    for package, directory in packages().items():
        for file in sorted(directory.glob("*.py")):
            if file.stem != "__main__":
                yield package if file.stem == "__init__" else f"{package}.{file.stem}"


def needs_airflow(module: str) -> bool:
    return module.split(".")[0] in ("kaos_operators", "kaos_dags", "kaos_plugin")


FORK = """
import gc, os, sys
with open(os.devnull, "w") as nothing:
    os.dup2(nothing.fileno(), 1)
# What others wrote is imported once, and each module of ours in a fork of a process that has none of ours.
for module in sys.argv[1:]:
    __import__(module)
for name in [name for name in sys.modules if name.startswith("kaos")]:
    del sys.modules[name]
gc.freeze()
for module in sys.argv[1:]:
    if not os.fork():
        try:
            __import__(module)
            os._exit(0)
        except BaseException as error:
            print(f"{module}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    if os.wait()[1]:
        sys.exit(1)
"""


def import_alone(names: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    """Import each module in a process in which no other module of ours has been imported."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return subprocess.run(
        [sys.executable, "-c", FORK, *names],
        env={**inherited, "AIRFLOW_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_modules_without_airflow_import_alone(tmp_path: Path) -> None:
    names = [name for name in modules() if not needs_airflow(name)]
    assert len(names) > 50
    done = import_alone(names, tmp_path)
    assert done.returncode == 0, done.stderr


def test_modules_with_airflow_import_alone(tmp_path: Path) -> None:
    names = [name for name in modules() if needs_airflow(name)]
    assert len(names) > 20
    done = import_alone(names, tmp_path)
    assert done.returncode == 0, done.stderr
