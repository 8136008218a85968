"""Deploy a revision of an endpoint: build, launch, probe, route, register."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from kaos import openlineage
from kaos.catalog import Catalog
from kaos.endpoint import Endpoint, RevisionRecord, ServeDocument, sample_of
from kaos.errors import ConflictError, KaosError, ServingFailedError
from kaos.lineage import BuildRecord, small
from kaos.runtime.base import RunState, RunStatus
from kaos.serving import prepare, probe
from kaos.serving.records import Endpoints
from kaos.serving.service import last_lines
from kaos.store.base import naming
from kaos_operators import containers
from kaos_operators.base import airflow_run
from kaos_operators.hook import configured_store, gateway, work_directory
from kaos_operators.image import LoggedBuild
from kaos_operators.traced import TracedOperator

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.sdk import Context

    from kaos.openlineage import Dataset, Traced

service_log = logging.getLogger("kaos.service")


class ServeOperator(TracedOperator, BaseOperator):
    """Work on one revision of an endpoint.

    :param revision: digest of the revision's document (templated); what a run's `conf["serve"]` holds
    """

    template_fields: Sequence[str] = ("revision",)
    ui_color = "#eef0fb"

    def __init__(self, *, revision: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.revision = revision
        self._document: ServeDocument | None = None

    def execute(self, context: Context) -> Any:
        """Do the work; an error ends the deploy, and what took no traffic yet does not run on."""
        document: ServeDocument | None = None
        try:
            store = configured_store()
            document = ServeDocument.parse(store.objects.get(self.revision))
            self.records = Endpoints(Catalog(store).workspace(document.workspace))
            if self.records.get(document.endpoint).killed_at is not None:
                raise ConflictError(f"The endpoint {document.endpoint} was killed meanwhile.")
            self._document = document
            self.made = self.work(document, context)
            return self.made
        except KaosError as error:
            if document is not None:
                self._give_up(document, error)
            raise AirflowFailException(str(error)) from error

    def on_kill(self) -> None:
        """Give the revision up when somebody ends its run in Airflow."""
        if self._document is not None:
            self._give_up(self._document, ServingFailedError("Its deploy was stopped in Airflow."))

    @abstractmethod
    def work(self, document: ServeDocument, context: Context) -> Any:
        """Do what this operator is for, and return a small record of it."""

    def trace(self) -> Traced:
        """Return what the revision is made of, and what this task has made of it."""
        document = ServeDocument.parse(configured_store().objects.get(self.revision))
        found = openlineage.served(document, self.revision)
        return replace(found, outputs=self.outputs(document) if self.made is not None else [])

    def outputs(self, document: ServeDocument) -> list[Dataset]:
        """Return what the task has made, once it is done."""
        return []

    def directory(self, document: ServeDocument) -> Path:
        """Return the directory of the revision's service."""
        return prepare.directory_of(work_directory(), document.endpoint, document.revision)

    def launch(self, document: ServeDocument, build: BuildRecord) -> int:
        """Start the revision's service and return its port; one that runs, or ended by itself, is left alone.

        What another worker built is made here from the same lock, or pulled.
        """
        running, directory = prepare.services(document.runtime), self.directory(document)
        status, port = running.observe(directory), running.port(directory)
        if port is not None and status is not None and not _interrupted(status):
            return port
        if build.image is not None:
            containers.images().provide(build.image, self.log.info)
        built = prepare.build(self.records, document, build, work_directory(), self.log.info)
        return prepare.launch(
            self.records,
            document,
            built,
            work_directory(),
            network=containers.option("container_network"),
            user=containers.option("container_user"),
        )

    def _give_up(self, document: ServeDocument, error: KaosError) -> None:
        """Record why the revision failed, with what it printed, and end its service."""
        lines = prepare.record_failure(self.records, document, work_directory(), str(error))
        for line in lines[-20:]:
            service_log.info("%s", line)
        found = self.records.find(document.endpoint)
        if found is None or document.revision not in (found.current, found.canary, found.previous):
            prepare.services(document.runtime).terminate(self.directory(document), 1.0)


class BuildServeOperator(ServeOperator):
    """Build what a revision's bundle asks for, or find it built; its log and its lock go to the store.

    What is found built is started at once: the next task then finds the revision on its way.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._build: LoggedBuild | None = None

    def work(self, document: ServeDocument, context: Context) -> dict[str, Any]:
        """Return a `BuildRecord`."""
        self._build = LoggedBuild(self.records.workspace, document)
        record = self._build.run()
        if record.reused:
            self.launch(document, record)
        return small(record)

    def on_kill(self) -> None:
        """End the build with all that it started, and give the revision up."""
        if self._build is not None:
            self._build.cancel()
        super().on_kill()

    def outputs(self, document: ServeDocument) -> list[Dataset]:
        """Return the environment."""
        build = BuildRecord.model_validate(self.made)
        return [openlineage.environment(document.workspace, document.source, build)]


class LaunchOperator(ServeOperator):
    """Lay a revision out, the model's files beside its code, and start its service beside the others.

    :param environment: what `BuildServeOperator` returned (templated)
    """

    template_fields: Sequence[str] = ("revision", "environment")

    def __init__(self, *, environment: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.environment = environment

    def work(self, document: ServeDocument, context: Context) -> dict[str, Any]:
        """Return the port that the service listens on, or shall."""
        port = self.launch(document, BuildRecord.model_validate(self.environment))
        self.log.info("%s, revision %d, starts on port %d", document.endpoint, document.revision, port)
        return {"port": port, "launched_at": time.time()}


class ProbeOperator(ServeOperator):
    """Wait until a revision says that it is ready, and try its sample request."""

    def work(self, document: ServeDocument, context: Context) -> dict[str, Any]:
        """Return how long it took, and the sample that was tried."""
        running, directory = prepare.services(document.runtime), self.directory(document)
        port = running.port(directory)
        if port is None:
            raise ServingFailedError("Its service is not on this machine.", "Deploy again.")
        before = running.observe(directory)
        if before is not None and _interrupted(before):
            port = running.relaunch(directory)

        def check() -> bool:
            status = running.observe(directory)
            if status is None or status.state is not RunState.RUNNING:
                why = status.reason if status is not None and status.reason else "exit code 0"
                lines = "".join(f"\n  {line}" for line in last_lines(running, directory))
                raise ServingFailedError(f"`serve` ended before it was ready: {why}.{lines}")
            return running.listens(directory)

        seconds = probe.wait_until_ready(port, document.limits.start_timeout, check)
        self.log.info("Ready after %.1f s", seconds)
        sample = sample_of(self.records.workspace.needed_tree(document.source.digest))
        if sample is not None:
            with naming(sample.path):
                body = b"".join(self.records.store.objects.read(sample.digest))
            name = sample.path.rpartition("/")[2]
            probe.try_sample(port, name, body, document.limits.timeout)
            self.log.info("It answers the sample request %s", name)
        return {"seconds": round(seconds, 3), "sample": sample.path if sample is not None else None}


class RouteOperator(ServeOperator):
    """Give a revision its traffic, all of it or a canary's share; the one before stays, and drains."""

    def work(self, document: ServeDocument, context: Context) -> dict[str, Any]:
        """Return which revisions have traffic now."""
        routed = self.records.change(document.endpoint, lambda found: found.take(document, datetime.now(UTC)))
        gateway().sync(self.records.store, work_directory())
        self.records.note(document.endpoint, _how(routed, document), document.revision, document.author)
        return {"current": routed.current, "canary": routed.canary, "percent": routed.percent}

    def outputs(self, document: ServeDocument) -> list[Dataset]:
        """Return the endpoint, which answers by the revision now."""
        return [openlineage.endpoint(document.workspace, document.endpoint, document.revision)]


class RegisterEndpointOperator(ServeOperator):
    """Write the immutable record of a revision that was routed, and emit an event of the outlet assets.

    :param environment: what `BuildServeOperator` returned (templated)
    :param probed: what `ProbeOperator` returned (templated)
    """

    template_fields: Sequence[str] = ("revision", "environment", "probed")

    def __init__(self, *, environment: Any, probed: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.environment = environment
        self.probed = probed

    def work(self, document: ServeDocument, context: Context) -> dict[str, Any]:
        """Return the digest of the record."""
        status = prepare.services(document.runtime).observe(self.directory(document))
        digest = self.records.add_record(
            RevisionRecord(
                document=document,
                document_digest=self.revision,
                build=BuildRecord.model_validate(self.environment),
                sample=self.probed["sample"],
                limits=status.limits if status is not None else "",
                started_seconds=self.probed["seconds"],
                airflow=airflow_run(context),
                created_at=datetime.now(UTC),
            )
        )
        self.records.end(document)
        for asset in self.outlets:
            context["outlet_events"][asset].extra = {
                "endpoint": document.endpoint,
                "revision": document.revision,
            }
        return {"record": digest}

    def outputs(self, document: ServeDocument) -> list[Dataset]:
        """Return the endpoint."""
        return [openlineage.endpoint(document.workspace, document.endpoint, document.revision)]


def _interrupted(status: RunStatus) -> bool:
    """Tell whether a service ended with the server or the machine, and not by itself."""
    return status.terminated or status.state is RunState.LOST


def _how(routed: Endpoint, document: ServeDocument) -> str:
    return "canary" if routed.canary == document.revision else "route"
