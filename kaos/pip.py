"""The options of ``pip install`` in a Dockerfile: what they ask for, what is harmless, what is refused."""

from __future__ import annotations

from typing import Final

from kaos.dockerfile import Instruction
from kaos.layout import Layout
from kaos.requirements import INDEX_OPTIONS, index_option, requirement, requirements_of

_FILE: Final = ("-r", "--requirement")
_HARMLESS: Final = (
    *("--upgrade", "-U", "--no-cache-dir", "--no-cache", "--quiet", "-q", "-qq", "--verbose", "-v", "--user"),
    *("--disable-pip-version-check", "--no-input", "--no-warn-script-location", "--prefer-binary"),
    *("--require-hashes", "--compile", "--no-compile", "--break-system-packages", "--no-color"),
)
_HARMLESS_WITH_VALUE: Final = (
    *("--timeout", "--default-timeout", "--retries", "--progress-bar", "--root-user-action", "--cache-dir"),
)


def pip_requirements(instruction: Instruction, arguments: list[str], layout: Layout) -> list[str]:
    """Return the requirements and index options that a call of pip names, files read.

    :param arguments: all that follows ``pip``
    :raises UnsupportedImageError: another command than ``install``, an option that cannot be honoured
    :raises InvalidBundleError: a requirements file that is not there
    """
    where = f"Dockerfile line {instruction.line}"
    found: list[str] = []
    words: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            words.append(argument)
            continue
        name, value = _split(argument)
        if value is None and name in (*_FILE, *INDEX_OPTIONS, *_HARMLESS_WITH_VALUE):
            value = next(rest, "")
        if name in _FILE:
            found += requirements_of(layout.source_of(instruction, value or ""), layout.files, where)
        elif name in INDEX_OPTIONS:
            found.append(index_option(name, value or "", where))
        elif name == "--no-index":
            found.append(name)
        elif name not in (*_HARMLESS, *_HARMLESS_WITH_VALUE):
            instruction.refuse(f"pip's option {name} is not supported")
    if words[:1] != ["install"]:
        instruction.refuse("of pip, only `pip install` is supported")
    return found + [requirement(word, where) for word in words[1:]]


def _split(argument: str) -> tuple[str, str | None]:
    """Return an option's name and the value that is written together with it, None without one."""
    if argument.startswith("--"):
        name, separator, value = argument.partition("=")
        return name, value if separator else None
    if argument[:2] in ("-r", "-i", "-f") and len(argument) > 2:
        return argument[:2], argument[2:]
    return argument, None
