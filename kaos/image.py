"""What the process runtime makes of a Dockerfile: a Python, packages, variables; the rest is refused by name.

``docs/process-runtime.md`` has the table of what is honoured. Nothing is skipped in silence: an instruction
is honoured, or refused, or without effect on a run by its nature (``LABEL``, ``EXPOSE``).
"""

from __future__ import annotations

import json
import re
import sysconfig
from collections.abc import Mapping
from typing import Final

from pydantic import Field

from kaos.digest import digest_bytes
from kaos.dockerfile import Dockerfile, Instruction, words
from kaos.layout import Layout
from kaos.pip import pip_requirements
from kaos.requirements import canonical
from kaos.value import Value

PATH_HOLE: Final = "${PATH}"
"""Stands in a variable's value for the search path that the runtime gives."""

PROGRAM_HOLE: Final = "${KAOS_PROGRAM}"
"""Stands in a variable's value for the directory that the code is in at run time."""

_IMAGE: Final = re.compile(
    r"(?:docker\.io/)?(?:library/)?python"
    r"(?::(?:latest|slim|(?P<version>3(?:\.\d{1,2}){0,2})(?:-slim)?(?:-(?:trixie|bookworm|bullseye|buster))?))?"
    r"(?:\s+as\s+\S+)?",
    re.IGNORECASE,
)
_NAME: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PIP: Final = re.compile(r"(?:python[\d.]*\s+-m\s+)?pip[\d.]*(?=\s|$)")
_EXECUTABLE_MODE: Final = re.compile(r"[ugoa]*\+r?w?x|0?[57][0-7]{2}")
_WITHOUT_EFFECT: Final = ("LABEL", "MAINTAINER", "EXPOSE", "USER", "ENTRYPOINT", "CMD")
_HARMLESS_PIP_VARIABLES: Final = (
    *("PIP_NO_CACHE_DIR", "PIP_DISABLE_PIP_VERSION_CHECK", "PIP_ROOT_USER_ACTION", "PIP_DEFAULT_TIMEOUT"),
    *("PIP_NO_INPUT", "PIP_PROGRESS_BAR", "PIP_TIMEOUT", "PIP_RETRIES", "PIP_NO_COLOR"),
)


class EnvironmentSpec(Value):
    """Say what a source bundle needs to run in the process runtime.

    :param python: the version asked for, such as ``3.11`` or ``3.11.7``; None for any
    :param requirements: canonical text of options and requirements, empty for none
    :param env: variables of the Dockerfile's ``ENV``, with :data:`PATH_HOLE` and :data:`PROGRAM_HOLE` in them
    :param executables: files of the code that ``RUN chmod`` makes executable
    :param platform: what packages must be built for, such as ``linux-x86_64``
    """

    python: str | None = None
    requirements: str = ""
    env: dict[str, str] = Field(default_factory=dict)
    executables: tuple[str, ...] = ()
    platform: str = Field(default_factory=sysconfig.get_platform)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of what decides on the packages: Python, requirements, platform; no more."""
        content = ["kaos-environment-spec", 1, self.python, self.requirements, self.platform]
        return digest_bytes(json.dumps(content).encode())


def environment(dockerfile: Dockerfile, files: Mapping[str, bytes]) -> EnvironmentSpec:
    """Return what a Dockerfile asks of the process runtime.

    :param files: the build context: the content of the bundle's folder ``model/`` by path
    :raises UnsupportedImageError: an instruction that only a container can honour, with its line
    :raises InvalidBundleError: a file that the Dockerfile names is not in the build context
    """
    reader = _Reader(files)
    for instruction in dockerfile.instructions:
        reader.read(instruction)
    return reader.spec()


class _Reader:
    """Follow a Dockerfile from top to bottom, as a build would."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.layout = Layout(files)
        self.based = False
        self.python: str | None = None
        self.arguments: set[str] = set()
        self.env: dict[str, str] = {}
        self.requirements: list[str] = []
        self.executables: set[str] = set()

    def read(self, instruction: Instruction) -> None:
        name = instruction.name
        if not self.based and name not in ("FROM", "ARG"):
            instruction.refuse("the first instruction must be FROM")
        if name == "FROM":
            self._from(instruction)
        elif name == "ARG":
            self.arguments.update(word.partition("=")[0] for word in instruction.text.split())
        elif name == "ENV":
            self._env(instruction)
        elif name == "WORKDIR":
            self.layout.workdir(instruction, " ".join(self._words(instruction)))
        elif name in ("COPY", "ADD"):
            self.layout.copy(instruction, instruction.exec_form or self._words(instruction))
        elif name == "RUN":
            self._run(instruction)
        elif name not in _WITHOUT_EFFECT:
            instruction.refuse("this instruction is not supported")

    def spec(self) -> EnvironmentSpec:
        self.layout.check()
        return EnvironmentSpec(
            python=self.python,
            requirements=canonical(self.requirements),
            env={name: _with_hole(value, self.layout.program) for name, value in self.env.items()},
            executables=tuple(sorted(self.executables)),
        )

    def _from(self, instruction: Instruction) -> None:
        if self.based:
            instruction.refuse("a build in several stages is not supported")
        match = _IMAGE.fullmatch(" ".join(self._words(instruction)))
        if match is None or instruction.flags:
            instruction.refuse("the base image must be `python`, such as python:3.11-slim")
        self.based = True
        self.python = None if match["version"] == "3" else match["version"]

    def _env(self, instruction: Instruction) -> None:
        first, _, rest = instruction.text.partition(" ")
        if "=" in first:
            pairs = [word.partition("=")[::2] for word in self._words(instruction)]
        else:
            pairs = [(first, " ".join(self._words(instruction, rest)))]
        for name, value in pairs:
            if not _NAME.fullmatch(name):
                instruction.refuse(f"{name!r} is not the name of a variable")
            if name.startswith("KAOS_"):
                instruction.refuse(f"{name} is for kaos to give")
            if name.startswith("PIP_") and name not in _HARMLESS_PIP_VARIABLES:
                instruction.refuse("give pip's options where pip is called")
            self.env[name] = value

    def _run(self, instruction: Instruction) -> None:
        for flag in instruction.flags:
            if not flag.startswith("--mount=type=cache"):
                instruction.refuse(f"{flag} is not supported")
        command: list[str] = []
        for word in [*(instruction.exec_form or self._words(instruction, as_shell=True)), "&&"]:
            if word != "&&":
                command.append(word)
            else:
                self._command(instruction, command)
                command = []

    def _command(self, instruction: Instruction, command: list[str]) -> None:
        if match := _PIP.match(" ".join(command)):
            arguments = command[len(match[0].split()) :]
            self.requirements += pip_requirements(instruction, arguments, self.layout)
        elif command[:1] == ["chmod"] and len(command) > 2 and _EXECUTABLE_MODE.fullmatch(command[1]):
            for name in command[2:]:
                path = self.layout.source_of(instruction, name)
                if path not in self.layout.files:
                    instruction.refuse(f"{name} is no file of the code")
                self.executables.add(path)
        else:
            instruction.refuse("only `pip install` and `chmod +x` of the code's files are supported")

    def _words(
        self, instruction: Instruction, text: str | None = None, *, as_shell: bool = False
    ) -> list[str]:
        def lookup(name: str) -> str:
            if name in self.env:
                return self.env[name]
            if name == "PATH" and not as_shell:
                return PATH_HOLE
            if name in self.arguments:
                instruction.refuse(f"it uses the build argument {name}")
            return instruction.refuse(f"it uses ${name}, which no ENV before it sets")

        return words(
            instruction.text if text is None else text, lookup, instruction.refuse, as_shell=as_shell
        )


def _with_hole(value: str, program: str) -> str:
    """Return a value with the image's directory of the code replaced by the hole for the real one."""
    return ":".join(
        PROGRAM_HOLE + part.removeprefix(program)
        if part == program or part.startswith(f"{program}/")
        else part
        for part in value.split(":")
    )
