"""A Dockerfile as a value: its instructions, with the lines that they begin on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

from kaos.errors import UnsupportedImageError
from kaos.value import Value

_ESCAPE: Final = re.compile(r"#\s*escape\s*=\s*(\S+)", re.IGNORECASE)
_DIRECTIVE: Final = re.compile(r"#\s*[a-z]+\s*=", re.IGNORECASE)
_FLAG: Final = re.compile(r"--[a-z]+(?:=\S*)?(?:\s+|$)")
_VARIABLE: Final = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", re.ASCII)

CONTAINER_HINT: Final = "The `container` runtime honours any Dockerfile: --runtime container."


class Instruction(Value):
    """One instruction.

    :param line: where it begins, counted from 1
    :param name: in capitals
    :param flags: what stands before the arguments, such as ``--chown=app``
    :param text: the arguments, continued lines joined
    """

    line: int
    name: str
    flags: tuple[str, ...] = ()
    text: str

    @property
    def exec_form(self) -> list[str] | None:
        """Return the words of the JSON form, None for the shell form."""
        if not self.text.startswith("["):
            return None
        try:
            words = json.loads(self.text)
        except json.JSONDecodeError:
            return None
        return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None

    def refuse(self, why: str) -> NoReturn:
        """Raise :class:`UnsupportedImageError` with the line and the instruction."""
        shown = self.text if len(self.text) <= 60 else f"{self.text[:57]}..."
        raise UnsupportedImageError(
            f"Dockerfile line {self.line}: `{self.name} {shown}`: {why}.",
            f"The `process` runtime honours a part of what a Dockerfile can say. {CONTAINER_HINT}",
        )


class Dockerfile(Value):
    """The instructions of a Dockerfile, in order."""

    instructions: tuple[Instruction, ...]

    @classmethod
    def of(cls, text: str) -> Dockerfile:
        """Return the Dockerfile that a text is.

        :raises UnsupportedImageError: it is empty, or uses another escape character
        """
        instructions = tuple(_instruction(line, content) for line, content in _logical_lines(text))
        if not instructions:
            raise UnsupportedImageError("The Dockerfile is empty.", "Begin it with `FROM python:3.11-slim`.")
        return cls(instructions=instructions)


def words(
    text: str, lookup: Callable[[str], str], refuse: Callable[[str], NoReturn], *, as_shell: bool = False
) -> list[str]:
    """Return the words of a text as Docker, or for ``as_shell`` a shell, splits it, variables in their place.

    :param lookup: returns the value of a variable
    :param refuse: called with what cannot be honoured
    :param as_shell: keep ``&&`` as a word of its own, refuse everything else that only a shell can do
    """
    found: list[str] = []
    word: str | None = None
    quote = ""
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if quote == "'" and character != "'":
            word = (word or "") + character
        elif character in "'\"" and quote in ("", character):
            quote, word = "" if quote else character, word or ""
        elif character == "\\" and position < len(text):
            if text[position] == "$":
                refuse("a literal `$` is not supported")
            keep = quote and text[position] not in '"\\'
            word = (word or "") + ("\\" if keep else "") + text[position]
            position += 1
        elif character == "$":
            match = _VARIABLE.match(text, position - 1)
            if match is None:
                refuse("only the plain forms `$NAME` and `${NAME}` of variables are supported")
            word = (word or "") + lookup(match[1] or match[2])
            position = match.end()
        elif quote:
            word = (word or "") + character
        elif as_shell and text.startswith("&&", position - 1):
            found += [*([] if word is None else [word]), "&&"]
            word, position = None, position + 1
        elif as_shell and character in "|&;<>()`*?#":
            hint = "; put a requirement such as 'numpy>=2' in quotes" if character in "<>*" else ""
            refuse(f"`{character}` is for a shell to interpret{hint}")
        elif character.isspace():
            found += [] if word is None else [word]
            word = None
        else:
            word = (word or "") + character
    if quote:
        refuse("a quote is not closed")
    return found + ([] if word is None else [word])


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each instruction with its first line's number; comments and continuations are resolved."""
    start, parts = 0, list[str]()
    directives = True
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = raw.strip()
        if directives and (match := _ESCAPE.match(line)) and match[1] != "\\":
            raise UnsupportedImageError(
                f"Dockerfile line {number}: another escape character.", CONTAINER_HINT
            )
        directives = directives and _DIRECTIVE.match(line) is not None
        if not line or line.startswith("#"):
            continue
        start = start or number
        if line.endswith("\\"):
            parts.append(line[:-1].strip())
            continue
        yield start, " ".join([*parts, line]).strip()
        start, parts = 0, []
    if parts:
        yield start, " ".join(parts).strip()


def _instruction(line: int, content: str) -> Instruction:
    name, _, rest = content.partition(" ") if " " in content else content.partition("\t")
    flags = []
    rest = rest.strip()
    while match := _FLAG.match(rest):
        flags.append(match[0].strip())
        rest = rest[match.end() :]
    return Instruction(line=line, name=name.upper(), flags=tuple(flags), text=rest)
