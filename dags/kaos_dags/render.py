"""From a job definition to the Python source of its DAG, as Airflow's Code tab shows it."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template

from kaos import __version__
from kaos.job import Definition

_TASK = re.compile(r'^ +task_id="(\w+)",$', re.MULTILINE)

MAINTENANCE = "kaos.maintenance.py"
"""The file of the DAG `kaos.maintenance`, which is no workspace's."""


def file_name(dag_id: str) -> str:
    """Return the name of the file of a DAG."""
    return f"{dag_id}.py"


def render(definition: Definition) -> str:
    """Return the source of the definition's DAG: valid Python, ending with a line break.

    Values reach the source through the `literal` filter alone, and the definition has checked its names, so
    that nothing in it can end a string and begin a statement.
    """
    return _template(f"{definition.kind}.py.jinja2").render(definition=definition, version=__version__)


def task_ids(source: str) -> frozenset[str]:
    """Return the ids of the tasks in what `render` returned."""
    return frozenset(_TASK.findall(source))


def render_maintenance() -> str:
    """Return the source of the DAG that applies the policies of all workspaces."""
    return _template("maintenance.py.jinja2").render(version=__version__)


def literal(value: object) -> str:
    """Return `value` as a Python literal that fits on one line.

    :raises TypeError: a value that is no plain one
    """
    if value is not None and not isinstance(value, str | int | float | bool):
        raise TypeError(f"{type(value).__name__} has no literal")
    text = ascii(value)
    # Double quotes, as formatters write them, where the text has none.
    return f'"{text[1:-1]}"' if text.startswith("'") and '"' not in text else text


@cache
def _template(name: str) -> Template:
    folder = files("kaos_templates") / "dag"
    environment = Environment(
        loader=FunctionLoader(lambda asked: (folder / asked).read_text()),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 (this is Python; everything goes through `literal`)
    )
    environment.filters["literal"] = literal
    return environment.get_template(name)
