"""Services as containers of podman or docker, each published on a port of the loopback interface alone.

An unmodified bundle of the original kaos, or for SageMaker, finds what it looks for: ``serve`` in its image,
port 8080, the model in ``/opt/ml/model``. A container is never started again by its engine: the keeper does
that.
"""

from __future__ import annotations

import os
from pathlib import Path

from kaos.errors import ContainerEngineError, KaosError
from kaos.lineage import ImageRecord
from kaos.runtime import proctree
from kaos.runtime.base import RunState, RunStatus
from kaos.runtime.container import contract, logs, records
from kaos.runtime.container.engine import Container, ContainerEngine, Mount, Podman, Port, engine_named
from kaos.runtime.container.records import Handle
from kaos.runtime.container.runtime import ContainerRuntime, workdir
from kaos.serving.listener import holds, listens_inside
from kaos.serving.service import LARGEST_LOG, LocalServices, ServiceSpec, kept
from kaos.source import MODEL

PORT = 8080
"""Where ``serve`` listens in its container."""

MODEL_PATH = "/pfs/model"
"""Where the container finds all that the training wrote."""

_HOST_NETWORK = "host"
_EVERYWHERE, _LOOPBACK = "0.0.0.0", "127.0.0.1"  # noqa: S104  of the container


class ContainerServices(LocalServices):
    """Services as containers of this machine's engines."""

    def __init__(self) -> None:
        super().__init__(ContainerRuntime(patience=0))

    def start(self, spec: ServiceSpec, port: int) -> None:
        """Start the image's ``serve``."""
        image = spec.environment
        if not isinstance(image, ImageRecord):
            raise KaosError("A service in a container needs an image.")
        runtime = ContainerRuntime(
            engine_named(image.engine), network=spec.network, user=spec.user, patience=0
        )
        runtime.start(
            spec.directory / "run",
            spec.run_id,
            image.serve,
            lambda run: runtime.dressed(run, image, _container(spec, image, run, port)),
        )

    def relaunch(self, directory: Path) -> int:
        """Start the service of a directory once more.

        :raises FileNotFoundError: none was ever launched there, or its image is not on this machine any more
        """
        found = kept(directory)
        if found is not None and isinstance(found.spec.environment, ImageRecord):
            image = found.spec.environment
            if engine_named(image.engine).image(image.id) is None:
                raise FileNotFoundError(f"The image {image.name} is not on this machine any more.")
        return super().relaunch(directory)

    def observe(self, directory: Path) -> RunStatus | None:
        """Return how the service of a directory is, None if none was ever launched there."""
        try:
            return super().observe(directory)
        except ContainerEngineError as error:  # it does not answer; who runs is seen without it
            return RunStatus(state=RunState.LOST, reason=error.message)

    def listens(self, directory: Path) -> bool:
        """Tell whether something in the container listens where requests come in."""
        found, handle = kept(directory), self.runtime.find(directory / "run")
        if found is None or handle is None:
            return False
        record = Handle.parse(handle).record(records.CONTAINER)
        if record is None:  # its process is not on this machine; the engine keeps the port for it
            status = self.observe(directory)
            return status is not None and status.state is RunState.RUNNING
        if not records.alive(record):
            return False
        pid = int(record["process"][0])
        if found.spec.network == _HOST_NETWORK:
            return holds({pid, *proctree.descendants(pid)}, found.port)
        try:
            return listens_inside(pid, PORT)
        except OSError:
            return False

    def read(self, directory: Path, log: Path, offset: int) -> tuple[bytes, int]:
        """Return what was printed since `offset` of a log as the engine wrote it, and the next offset."""
        engine = _engine(directory)
        return (b"", offset) if engine is None else logs.read_file(engine, log, offset)

    def whole_lines(self, directory: Path, log: Path, offset: int, chunk: bytes) -> tuple[bytes, int]:
        """Return the whole lines of what was read, and the offset of what comes after them."""
        if not isinstance(_engine(directory), Podman):
            return super().whole_lines(directory, log, offset, chunk)
        return logs.read_lines(log, offset)

    def trim(self, directory: Path) -> None:
        """Begin a new log if the present one is large; see to it that somebody copies docker's."""
        super().trim(directory)
        handle = self.runtime.find(directory / "run")
        if handle is not None and self.runtime.observe(handle).state is RunState.RUNNING:
            run = Handle.parse(handle)
            logs.keep(engine_named(run.engine), run)


def _container(spec: ServiceSpec, image: ImageRecord, run: Handle, port: int) -> Container:
    """Return the container of a service."""
    # In the machine's own network nothing is published, and nobody else may get at it.
    shared = spec.network == _HOST_NETWORK
    variables = contract.common_variables(spec.resources, image, run.key, os.environ)
    variables |= spec.variables(
        port if shared else PORT,
        _LOOPBACK if shared else _EVERYWHERE,
        MODEL_PATH if spec.model is not None else None,
    )
    if spec.workers is not None:
        variables["MODEL_SERVER_WORKERS"] = str(spec.workers)  # what SageMaker's scripts know
    return Container(
        name=run.container,
        image=image.id,
        command=(image.serve or "serve",),
        variables=variables | {"KAOS_JOB": spec.job_id},
        mounts=_mounts(spec),
        workdir=workdir(image, image.serve),
        labels={
            "run": spec.run_id,
            "job": spec.job_id,
            "endpoint": spec.name,
            "revision": str(spec.revision),
        },
        resources=spec.resources,
        network=spec.network,
        ports=() if shared else (Port(container=PORT, host=port),),
        log_bytes=LARGEST_LOG,
    )


def _mounts(spec: ServiceSpec) -> tuple[Mount, ...]:
    """Return the model, read-only: all of it, and what a script for SageMaker takes for the model."""
    if spec.model is None:
        return ()
    artifacts = spec.model / MODEL if (spec.model / MODEL).is_dir() else spec.model
    return (
        Mount(source=spec.model, target=MODEL_PATH),
        Mount(source=artifacts, target=contract.ML_MODEL),
    )


def _engine(directory: Path) -> ContainerEngine | None:
    found = kept(directory)
    if found is None or not isinstance(found.spec.environment, ImageRecord):
        return None
    return engine_named(found.spec.environment.engine)
