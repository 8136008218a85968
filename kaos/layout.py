"""Where the files of a build context are in the image: what ``WORKDIR``, ``COPY`` and ``ADD`` say."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from kaos.dockerfile import Instruction
from kaos.errors import InvalidBundleError

_ARCHIVES: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz")


class _Copy(NamedTuple):
    """One source of a COPY: a path of the build context and where it is in the image."""

    instruction: Instruction
    source: str
    target: str


class Layout:
    """Follow the instructions that place files, and hold them to what the process runtime can honour.

    There the code stays as it is in the folder ``model/``. So it must in the image too, in one directory that
    is the working directory; only requirements may lie elsewhere.

    :param files: the content of the build context by path
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self._directories = {"."}
        for name in files:
            while name := posixpath.dirname(name):
                self._directories.add(name)
        self._workdir = "/"
        self._workdir_by: Instruction | None = None
        self._copies: list[_Copy] = []
        self._used: set[_Copy] = set()

    @property
    def program(self) -> str:
        """Return the directory of the image that the code is in."""
        whole = [copy.target for copy in self._copies if copy.source == "."]
        return whole[0] if whole else self._workdir if self._workdir_by else "/opt/program"

    def workdir(self, instruction: Instruction, path: str) -> None:
        """Change the directory that later paths begin at."""
        self._workdir, self._workdir_by = self._absolute(path), instruction

    def copy(self, instruction: Instruction, arguments: list[str]) -> None:
        """Place files: sources and, as the last one, the target.

        :raises InvalidBundleError: a source is not in the build context
        """
        for flag in instruction.flags:
            if not flag.startswith("--chown=") and flag != "--link":
                instruction.refuse(f"{flag} is not supported")
        if len(arguments) < 2 or "<<" in instruction.text:
            instruction.refuse("give the sources and the target")
        *sources, last = arguments
        found = [path for source in sources for path in self._expand(instruction, source)]
        target = self._absolute(last)
        into = last.endswith(("/", ".")) or len(found) > 1 or self._is_directory(target)
        for path in found:
            named = into and path in self.files
            placed = posixpath.join(target, posixpath.basename(path)) if named else target
            self._copies.append(_Copy(instruction, path, placed))

    def source_of(self, instruction: Instruction, name: str) -> str:
        """Return the path in the build context that a file of the image comes from.

        :raises InvalidBundleError: nothing was placed there so far
        """
        path = self._absolute(name)
        for copy in reversed(self._copies):
            if path == copy.target or path.startswith(f"{copy.target}/"):
                self._used.add(copy)
                return posixpath.normpath(posixpath.join(copy.source, posixpath.relpath(path, copy.target)))
        raise InvalidBundleError(
            f"Dockerfile line {instruction.line}: {path} is not in the image yet.",
            f"COPY it before line {instruction.line}.",
        )

    def check(self) -> None:
        """Refuse, by its instruction, what lies elsewhere than the code does in the process runtime."""
        program = self.program
        for copy in self._copies:
            if copy.target == "/" and copy.source == ".":
                copy.instruction.refuse("copy the code into a directory of its own, such as /opt/program")
            if (
                copy.target != posixpath.normpath(posixpath.join(program, copy.source))
                and copy not in self._used
            ):
                copy.instruction.refuse(
                    f"{copy.source} would be at {copy.target}, outside its place in {program};"
                    " the code stays as it is in the folder model/"
                )
        if self._workdir_by is not None and self._workdir != program:
            self._workdir_by.refuse(
                f"the script always runs in the directory of the code, which is {program}"
            )

    def _absolute(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self._workdir, path))

    def _is_directory(self, target: str) -> bool:
        known = {copy.target for copy in self._copies if copy.source in self._directories}
        return target == self._workdir or target in known

    def _expand(self, instruction: Instruction, source: str) -> list[str]:
        """Return the paths of the build context that a source names, which may be a pattern."""
        if "://" in source:
            instruction.refuse("an address as the source is not supported")
        path = posixpath.normpath(source.lstrip("/") or ".")
        if instruction.name == "ADD" and path.endswith(_ARCHIVES):
            instruction.refuse("archives are not unpacked")
        known = self._directories | set(self.files)
        depth = path.count("/")
        found = [
            name for name in known if name == path or (name.count("/") == depth and fnmatchcase(name, path))
        ]
        # `*` matches every name, but "." is no name of a file.
        found = [name for name in found if name != "." or path == "."]
        if not found:
            raise InvalidBundleError(
                f"Dockerfile line {instruction.line}: {instruction.name}: {source!r} is not in the bundle.",
                "The build context is the bundle's folder model/: name what is in it, without `model/`.",
            )
        return sorted(found)
