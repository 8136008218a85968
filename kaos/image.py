"""What the process runtime makes of a Dockerfile: a Python, packages, variables; the rest is refused by name.

``docs/process-runtime.md`` has the table of what is honoured. Nothing is skipped in silence: an instruction either has
no effect on a run by its nature (``LABEL``, ``EXPOSE``), or is honoured, or is refused.
"""

from __future__ import annotations

import json
import posixpath
import re
import sysconfig
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from kaos.digest import digest_bytes
from kaos.dockerfile import Dockerfile, Instruction, words
from kaos.errors import InvalidBundleError
from kaos.requirements import INDEX_OPTIONS, canonical, index_option, requirement, requirements_of
from kaos.value import Value

PATH_HOLE: Final = "${PATH}"
"""Stands in a variable's value for the search path that the runtime gives."""

PROGRAM_HOLE: Final = "${KAOS_PROGRAM}"
"""Stands in a variable's value for the directory that the code is in at run time."""

_IMAGE: Final = re.compile(
    r"(?:docker\.io/)?(?:library/)?python"
    r"(?::(?:(?P<version>3(?:\.\d{1,2}){0,2})(?:-slim)?(?:-(?:trixie|bookworm|bullseye|buster))?|latest|slim))?"
    r"(?:\s+as\s+\S+)?",
    re.IGNORECASE,
)
_NAME: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PIP: Final = re.compile(r"(?:(?:python[\d.]*\s+-m\s+)?pip[\d.]*)")
_EXECUTABLE_MODE: Final = re.compile(r"[ugoa]*\+r?w?x|0?[57][0-7]{2}")
_ARCHIVES: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz")
_WITHOUT_EFFECT: Final = ("LABEL", "MAINTAINER", "EXPOSE", "USER", "ENTRYPOINT", "CMD")
_HARMLESS: Final = (
    *("--upgrade", "-U", "--no-cache-dir", "--no-cache", "--quiet", "-q", "-qq", "--verbose", "-v", "--user"),
    *("--disable-pip-version-check", "--no-input", "--no-warn-script-location", "--prefer-binary"),
    *("--require-hashes", "--compile", "--no-compile", "--break-system-packages", "--no-color"),
)
_HARMLESS_WITH_VALUE: Final = (
    *("--timeout", "--default-timeout", "--retries", "--progress-bar", "--root-user-action", "--cache-dir"),
)
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
    env: dict[str, str] = {}
    executables: tuple[str, ...] = ()
    platform: str = sysconfig.get_platform()

    @property
    def digest(self) -> str:
        """Return the SHA-256 over what decides on the packages: Python, requirements and platform, nothing else."""
        return digest_bytes(
            json.dumps(["kaos-environment", 1, self.python, self.requirements, self.platform]).encode()
        )


def environment(dockerfile: Dockerfile, files: Mapping[str, bytes]) -> EnvironmentSpec:
    """Return what a Dockerfile asks of the process runtime.

    :param files: the build context, the content of the bundle's folder ``model/`` by path
    :raises UnsupportedImageError: an instruction that only a container can honour, with its line
    :raises InvalidBundleError: a file that the Dockerfile names is not in the build context
    """
    reader = _Reader(files)
    for instruction in dockerfile.instructions:
        reader.read(instruction)
    return reader.spec()


class _Copy(NamedTuple):
    """One source of a COPY: a path of the build context and where it is in the image."""

    instruction: Instruction
    source: str
    target: str


class _Reader:
    """Follow a Dockerfile from top to bottom, as a build would."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.based = False
        self.python: str | None = None
        self.workdir = "/"
        self.workdir_by: Instruction | None = None
        self.arguments: set[str] = set()
        self.env: dict[str, str] = {}
        self.copies: list[_Copy] = []
        self.used: set[_Copy] = set()
        self.requirements: list[str] = []
        self.executables: list[str] = []

    def read(self, instruction: Instruction) -> None:
        handlers = {
            "FROM": self._from,
            "ARG": self._arg,
            "ENV": self._env,
            "WORKDIR": self._workdir,
            "COPY": self._copy,
            "ADD": self._copy,
            "RUN": self._run,
        }
        if not self.based and instruction.name not in ("FROM", "ARG"):
            instruction.refuse("the first instruction must be FROM")
        if instruction.name in handlers:
            handlers[instruction.name](instruction)
        elif instruction.name not in _WITHOUT_EFFECT:
            instruction.refuse("this instruction is not supported")

    def spec(self) -> EnvironmentSpec:
        program = self._program()
        for copy in self.copies:
            if (
                copy.target != posixpath.normpath(posixpath.join(program, copy.source))
                and copy not in self.used
            ):
                copy.instruction.refuse(
                    f"{copy.source!r} would be at {copy.target}; here the code stays as it is in the folder model/,"
                    f" which is {program}"
                )
        if self.workdir_by is not None and self.workdir != program:
            self.workdir_by.refuse(f"the script always runs in the directory of the code, here {program}")
        return EnvironmentSpec(
            python=self.python,
            requirements=canonical(self.requirements),
            env={name: _with_hole(value, program) for name, value in self.env.items()},
            executables=tuple(sorted(set(self.executables))),
        )

    def _program(self) -> str:
        whole = [copy for copy in self.copies if copy.source == "."]
        for copy in whole:
            if copy.target != whole[0].target:
                copy.instruction.refuse(f"the code is already at {whole[0].target}")
            if copy.target == "/":
                copy.instruction.refuse("copy the code into a directory of its own, such as /opt/program")
        if whole:
            return whole[0].target
        return self.workdir if self.workdir_by is not None else "/opt/program"

    def _from(self, instruction: Instruction) -> None:
        if self.based:
            instruction.refuse("a build in several stages is not supported")
        text = " ".join(self._words(instruction))
        match = _IMAGE.fullmatch(text)
        if match is None or instruction.flags:
            instruction.refuse("the base image must be `python`, such as python:3.11-slim")
        self.based = True
        self.python = None if match["version"] == "3" else match["version"]

    def _arg(self, instruction: Instruction) -> None:
        self.arguments.update(word.partition("=")[0] for word in instruction.text.split())

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
                instruction.refuse(f"{name} is given by kaos")
            if name.startswith("PIP_") and name not in _HARMLESS_PIP_VARIABLES:
                instruction.refuse("give pip's options where pip is called")
            self.env[name] = value

    def _workdir(self, instruction: Instruction) -> None:
        path = " ".join(self._words(instruction))
        self.workdir, self.workdir_by = posixpath.normpath(posixpath.join(self.workdir, path)), instruction

    def _copy(self, instruction: Instruction) -> None:
        for flag in instruction.flags:
            if not flag.startswith("--chown=") and flag != "--link":
                instruction.refuse(f"{flag} is not supported")
        *sources, target = instruction.exec_form or self._words(instruction)
        if not sources or "<<" in instruction.text:
            instruction.refuse("give the sources and the target")
        expanded = [path for source in sources for path in self._expand(instruction, source)]
        into = posixpath.normpath(posixpath.join(self.workdir, target))
        is_directory = target.endswith(("/", ".")) or len(expanded) > 1 or into == self.workdir
        is_directory = is_directory or any(
            copy.target == into and not self._is_file(copy.source) for copy in self.copies
        )
        for path in expanded:
            inside = (
                posixpath.join(into, posixpath.basename(path))
                if self._is_file(path) and is_directory
                else into
            )
            self.copies.append(_Copy(instruction, path, inside))

    def _expand(self, instruction: Instruction, source: str) -> list[str]:
        """Return the paths of the build context that a source of COPY names."""
        if "://" in source:
            instruction.refuse("an address as the source is not supported")
        path = posixpath.normpath(source.lstrip("/") or ".")
        if instruction.name == "ADD" and path.endswith(_ARCHIVES):
            instruction.refuse("archives are not unpacked")
        known = {"."} | set(self.files)
        for name in self.files:
            while name := posixpath.dirname(name):
                known.add(name)
        found = sorted(
            name
            for name in known
            if name == path or (name.count("/") == path.count("/") and fnmatchcase(name, path))
        )
        if not found:
            raise InvalidBundleError(
                f"Dockerfile line {instruction.line}: {instruction.name}: {source!r} is not in the bundle.",
                "The build context is the bundle's folder model/: name what is in it, without `model/`.",
            )
        return found

    def _is_file(self, path: str) -> bool:
        return path in self.files

    def _run(self, instruction: Instruction) -> None:
        for flag in instruction.flags:
            if not flag.startswith("--mount=type=cache"):
                instruction.refuse(f"{flag} is not supported")
        command: list[str] = []
        for word in [*(instruction.exec_form or self._words(instruction, shell=True)), "&&"]:
            if word != "&&":
                command.append(word)
            else:
                self._command(instruction, command)
                command = []

    def _command(self, instruction: Instruction, command: list[str]) -> None:
        line = " ".join(command)
        if match := _PIP.match(line):
            arguments = command[len(match[0].split()) :]
            self._pip(instruction, arguments)
        elif command[:1] == ["chmod"]:
            self._chmod(instruction, command[1:])
        else:
            instruction.refuse("only `pip install` and `chmod +x` of the code's files can be run")

    def _chmod(self, instruction: Instruction, arguments: list[str]) -> None:
        if len(arguments) < 2 or not _EXECUTABLE_MODE.fullmatch(arguments[0]):
            instruction.refuse("chmod is for making files executable: `chmod +x FILE`")
        for name in arguments[1:]:
            path = self._in_context(instruction, name)
            if not self._is_file(path):
                instruction.refuse(f"{name} is no file of the code")
            self.executables.append(path)

    def _pip(self, instruction: Instruction, arguments: list[str]) -> None:
        where = f"Dockerfile line {instruction.line}"
        command = ""
        rest = iter(arguments)
        for argument in rest:
            name, separator, value = (
                argument.partition("=") if argument.startswith("--") else (argument, "", "")
            )
            if argument.startswith("-r") and len(argument) > 2:
                name, separator, value = "-r", "=", argument[2:]
            takes_value = name in INDEX_OPTIONS or name in ("-r", "--requirement", *_HARMLESS_WITH_VALUE)
            if takes_value and not separator:
                value = next(rest, "")
            if name in ("-r", "--requirement"):
                path = self._in_context(instruction, value)
                self.requirements += requirements_of(path, self.files, where)
            elif name in INDEX_OPTIONS:
                self.requirements.append(index_option(name, value, where))
            elif name == "--no-index":
                self.requirements.append(name)
            elif argument.startswith("-"):
                if name not in (*_HARMLESS, *_HARMLESS_WITH_VALUE):
                    instruction.refuse(f"pip's option {name} is not supported")
            elif not command:
                command = argument
            else:
                self.requirements.append(requirement(argument, where))
        if command != "install":
            instruction.refuse("of pip, only `pip install` is supported")

    def _in_context(self, instruction: Instruction, name: str) -> str:
        """Return where in the build context a file of the image comes from."""
        path = posixpath.normpath(posixpath.join(self.workdir, name))
        for copy in reversed(self.copies):
            if path == copy.target or path.startswith(f"{copy.target}/"):
                self.used.add(copy)
                return posixpath.normpath(posixpath.join(copy.source, posixpath.relpath(path, copy.target)))
        raise InvalidBundleError(
            f"Dockerfile line {instruction.line}: {path} is not in the image yet.",
            f"COPY it before line {instruction.line}.",
        )

    def _words(self, instruction: Instruction, text: str | None = None, *, shell: bool = False) -> list[str]:
        def lookup(name: str) -> str:
            if name in self.env:
                return self.env[name]
            if name == "PATH" and not shell:
                return PATH_HOLE
            if name in self.arguments:
                instruction.refuse(f"it uses the build argument {name}")
            return instruction.refuse(f"it uses ${name}, which no ENV before it sets")

        return words(instruction.text if text is None else text, lookup, instruction.refuse, shell=shell)


def _with_hole(value: str, program: str) -> str:
    """Return a variable's value with the image's directory of the code replaced by the hole for the real one."""
    parts = value.split(":")
    return ":".join(
        PROGRAM_HOLE + part.removeprefix(program)
        if part == program or part.startswith(f"{program}/")
        else part
        for part in parts
    )
