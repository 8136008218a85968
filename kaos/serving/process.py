"""Services as processes of this machine, each on a port of the loopback interface."""

from __future__ import annotations

from pathlib import Path

from kaos.runtime import proctree, wrapper
from kaos.runtime.base import RunSpec
from kaos.runtime.process import ProcessRuntime
from kaos.runtime.records import process_of, read
from kaos.serving.listener import holds
from kaos.serving.service import LocalServices, ServiceSpec

_CHUNK_BYTES = 1 << 20
_HOST = "127.0.0.1"


class ProcessServices(LocalServices):
    """Services as processes of this machine."""

    def __init__(self) -> None:
        super().__init__(ProcessRuntime())

    def start(self, spec: ServiceSpec, port: int) -> None:
        """Start ``serve`` in the code's directory."""
        params = spec.directory / "params.json"
        params.write_text("{}")
        self.runtime.launch(
            RunSpec(
                run_id=spec.run_id,
                job_id=spec.job_id,
                program=spec.program,
                command=("./serve",),
                params=params,
                output=spec.directory / "output",
                directory=spec.directory / "run",
                environment=spec.environment,
                env=spec.variables(port, _HOST, str(spec.model) if spec.model is not None else None),
                executables=spec.executables,
                resources=spec.resources,
            )
        )

    def listens(self, directory: Path) -> bool:
        """Tell whether a process of the service listens on its port."""
        port, record = self.port(directory), read(directory / "run" / wrapper.PROCESS)
        if port is None or record is None:
            return False
        found = {process.pid for role in ("wrapper", "script") if (process := process_of(record, role))}
        return holds(found.union(*map(proctree.descendants, found)), port)

    def read(self, directory: Path, log: Path, offset: int) -> tuple[bytes, int]:
        """Return what was printed since `offset`, at most 1 MiB, and the next offset."""
        try:
            with log.open("rb") as file:
                file.seek(offset)
                chunk = file.read(_CHUNK_BYTES)
        except FileNotFoundError:
            return b"", offset
        if len(chunk) == _CHUNK_BYTES:  # there is more: the rest of the last line comes with it
            chunk = chunk[: chunk.rfind(b"\n") + 1] or chunk
        return chunk, offset + len(chunk)
