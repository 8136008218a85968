"""What any Dockerfile says before it is built: the images that it begins from, and how it is run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from kaos.value import Value

_HEREDOC: Final = re.compile(r"<<-?\s*([\"']?)(\w+)\1")
_INSTRUCTION: Final = re.compile(r"\s*([A-Za-z]+)\s+(.*)", re.DOTALL)
_ESCAPE: Final = re.compile(r"#\s*escape\s*=\s*`", re.IGNORECASE)
_FROM: Final = re.compile(r"(?:--\S+\s+)*(?P<image>\S+)(?:\s+as\s+(?P<stage>\S+))?", re.IGNORECASE)
_VARIABLE: Final = re.compile(r"\$(?:\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}|(?P<bare>\w+))")


class Outline(Value):
    """What is known of an image before it is built.

    :param bases: the images that its stages begin from, as they are written, build arguments in their place
    :param entrypoint: whether its last stage sets an entry point of its own
    """

    bases: tuple[str, ...]
    entrypoint: bool


def outline(dockerfile: str) -> Outline:
    """Return the outline of a Dockerfile; what cannot be told from its text is left out."""
    arguments: dict[str, str] = {}
    stages: set[str] = set()
    bases: list[str] = []
    entrypoint = begun = False
    for name, text in _instructions(dockerfile):
        if name == "ARG" and not begun:
            for word in text.split():
                key, found, value = word.partition("=")
                if found:
                    arguments[key] = value.strip("\"'")
        elif name == "FROM" and (match := _FROM.fullmatch(text.strip())):
            begun, entrypoint = True, False
            image = _VARIABLE.sub(lambda variable: _value(variable, arguments), match["image"])
            if image and "$" not in image and image.lower() != "scratch" and image.lower() not in stages:
                bases.append(image)
            stages.add((match["stage"] or "").lower())
        elif name == "ENTRYPOINT":
            entrypoint = text.strip() not in ("[]", "")
    return Outline(bases=tuple(dict.fromkeys(bases)), entrypoint=entrypoint)


def _value(variable: re.Match[str], arguments: dict[str, str]) -> str:
    return arguments.get(variable["name"] or variable["bare"]) or variable["default"] or ""


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield name and arguments of each instruction; comments, continuations and heredocs are passed over."""
    lines = iter(text.removeprefix("\ufeff").splitlines())
    escape = "`" if _ESCAPE.match(text.lstrip()) else "\\"
    for line in lines:
        whole = line.rstrip()
        if not whole.strip() or whole.lstrip().startswith("#"):
            continue
        while whole.endswith(escape):
            following = next(lines, None)
            if following is None:
                break
            if not following.lstrip().startswith("#"):
                whole = whole[:-1] + " " + following.strip()
        match = _INSTRUCTION.fullmatch(whole)
        if match is None:
            continue
        name = match[1].upper()
        if name in ("RUN", "COPY", "ADD"):
            for document in _HEREDOC.finditer(match[2]):
                for inside in lines:
                    if inside.strip() == document[2]:
                        break
        yield name, match[2]
