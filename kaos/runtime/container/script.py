"""Why a script in an image or a container cannot be started, from the file itself."""

from __future__ import annotations

import io
import tarfile

from kaos.runtime.container.engine import ContainerEngine

_START = 200


def is_there(engine: ContainerEngine, container: str, path: str) -> bool:
    """Tell whether a container, running or not, has a file."""
    found = _member(engine.copy_out(container, path))
    return found is not None and not found[0].isdir()


def trouble(engine: ContainerEngine, container: str, path: str) -> tuple[int, str] | None:
    """Return the exit code and the reason of a script that cannot be run, None where nothing is wrong.

    Whether the interpreter that it names is there is not looked at.
    """
    name = path.rpartition("/")[2]
    found = _member(engine.copy_out(container, path))
    if found is None or found[0].isdir():
        return 127, f"./{name} is not there"
    file, start = found
    if not file.isreg():  # a link, to wherever
        return None
    if not file.mode & 0o111:
        return 126, f"./{name} is not executable: run `chmod +x` on it, or add `RUN chmod +x {name}`"
    first = start.partition(b"\n")[0]
    if first.startswith(b"#!") and first.endswith(b"\r"):
        return 127, f"the lines of ./{name} end in CR LF: save it with Unix line ends"
    if not start.startswith((b"#!", b"\x7fELF")):
        rule = "its first line must be one such as `#!/usr/bin/env python3`"
        return 126, f"./{name} does not say what runs it: {rule}"
    return None


def interpreter(engine: ContainerEngine, container: str, path: str) -> str:
    """Return the first line of a script, empty if it has none."""
    found = _member(engine.copy_out(container, path))
    return found[1].partition(b"\n")[0].decode(errors="replace") if found else ""


def _member(archive: bytes | None) -> tuple[tarfile.TarInfo, bytes] | None:
    if not archive:
        return None
    with tarfile.open(fileobj=io.BytesIO(archive)) as file:
        member = file.next()
        if member is None:
            return None
        content = file.extractfile(member) if member.isreg() else None
        return member, content.read(_START) if content else b""
