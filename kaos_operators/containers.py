"""The container runtime as Airflow's configuration and connections describe it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from airflow.sdk.configuration import conf

from kaos.errors import ContainerEngineError
from kaos.lineage import BuildRecord
from kaos.runtime.container.builders import builder_named
from kaos.runtime.container.engine import find_engine
from kaos.runtime.container.images import Images
from kaos.runtime.container.leftovers import Leftovers
from kaos.runtime.container.registry import Login, Registry, host_of
from kaos.runtime.container.runtime import ContainerRuntime
from kaos.store import identity
from kaos_operators.environment import CONTAINER, image_spec
from kaos_operators.hook import configured_store, work_directory
from kaos_operators.pinned import NothingKnown, reproduced

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.sdk import Connection

    from kaos.catalog import WorkspaceCatalog
    from kaos.runtime.container.engine import ContainerEngine
    from kaos.store import Store
    from kaos_operators.environment import Document


def option(name: str) -> str:
    """Return an option of the section `[kaos]`, empty if it is not set."""
    value: str = conf.get("kaos", name, fallback="") or ""
    return value.strip()


@cache
def engine() -> ContainerEngine:
    """Return the engine of `[kaos] container_engine`, or the one that is there.

    :raises ContainerEngineError: there is none
    """
    return find_engine(option("container_engine"))


def runtime() -> ContainerRuntime:
    """Return the container runtime."""
    return ContainerRuntime(engine(), network=option("container_network"), user=option("container_user"))


def images() -> Images:
    """Return what builds, finds, pushes and pulls images on this worker."""
    directory = _directory()
    directory.mkdir(exist_ok=True, mode=0o700)
    return Images(
        engine=engine(),
        builder=builder_named(option("image_builder") or engine().name),
        directory=directory,
        network=option("container_network"),
        registry=registry(),
        store=identity(configured_store()),
    )


def leftovers(store: Store) -> Leftovers | None:
    """Return what removes images of this machine, None if there are none: it has no engine, or had none."""
    owner = identity(store)
    if not owner or not _directory().is_dir():
        return None
    try:
        found = engine()
    except ContainerEngineError:  # it was taken away: a build would say so, and here there is nothing to do
        return None
    return Leftovers(found, owner, _directory(), option("registry"))


def _directory() -> Path:
    return work_directory() / "images"


def registry() -> Registry | None:
    """Return the registry of `[kaos] registry`, None if there is none.

    Its login is the connection of `[kaos] registry_conn_id`; without one the engine's own logins count.
    """
    repository, connection = option("registry"), option("registry_conn_id")
    if not repository:
        return None
    if not host_of(repository):
        raise ContainerEngineError(
            f"[kaos] registry is {repository!r}, which names no host.",
            "Write host and repository: registry.example.com/team/kaos.",
        )
    if not connection:
        return Registry(repository)
    return Registry(repository, lambda: login(connection, host_of(repository)))


def login(conn_id: str, host: str) -> Login:
    """Return how to log in to a registry, by an Airflow connection.

    :param conn_id: of a connection of type `aws`, for ECR, whose passwords last for 12 hours and are asked
        for each time; or of any other type, such as `docker`, with login and password
    """
    from airflow.sdk import Connection

    connection: Connection = Connection.get(conn_id)
    if connection.conn_type == "aws":
        from airflow.providers.amazon.aws.hooks.ecr import EcrHook

        hook = EcrHook(aws_conn_id=conn_id)  # type: ignore[no-untyped-call]
        found = hook.get_temporary_credentials()[0]
        return Login(host, found.username, found.password)
    if not connection.login or not connection.password:
        raise ContainerEngineError(
            f"The connection {conn_id} of [kaos] registry_conn_id has no login and password.",
            "Set both, or take the option away to use the engine's own logins.",
        )
    return Login(host, connection.login, connection.password)


class ImageBuild:
    """Build for the container runtime: an image of the bundle's Dockerfile."""

    def __init__(self, workspace: WorkspaceCatalog, document: Document) -> None:
        self.workspace = workspace
        self.document = document
        self.images = images()

    def run(self, log: Callable[[str], None]) -> BuildRecord:
        """Build the image, or find it built; push it where a registry is configured."""
        start = time.monotonic()
        record, reused = self.images.build(
            image_spec(self.workspace, self.document),
            log,
            self.workspace if reproduced(self.document) is None else NothingKnown(),
            no_cache=self.document.no_cache,
        )
        return BuildRecord(
            runtime=CONTAINER,
            environment=record.id,
            log="",
            reused=reused,
            seconds=time.monotonic() - start,
            image=record,
        )

    def cancel(self) -> None:
        """End the builder with all that it started."""
        self.images.builder.cancel()
