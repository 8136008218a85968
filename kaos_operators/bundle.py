"""Check the bundles of a job and lay them out, or take directories in and make a job of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kaos import __version__, openlineage
from kaos.catalog import Catalog
from kaos.errors import UnknownNameError
from kaos.job import TRAIN, BundlePin, Definition, JobDocument, ManifestPin, Stage, new_job_id
from kaos.lineage import IngestRecord, small
from kaos.names import bundle_name
from kaos.openlineage import Traced, directory
from kaos.resources import Resources
from kaos.source import check_source
from kaos.store.base import naming
from kaos.transfer.checkout import SharedCheckouts
from kaos.transfer.manifest_file import read_manifest
from kaos.transfer.push import store_walk
from kaos.transfer.scan import walk
from kaos_operators.base import KaosOperator
from kaos_operators.hook import (
    configured_store,
    network_by_default,
    open_job,
    runtimes,
    work_directory,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from kaos.catalog import WorkspaceCatalog
    from kaos.schema.bundle import BundleKind


class BundleIngestOperator(KaosOperator):
    """Verify a job's bundles and lay its data out for the trials on this worker.

    In a DAG of your own give directories instead of a job: they become bundles of the workspace, and the
    record that is returned names the new job as `job_digest`, for the operators that follow.

    :param job: digest of a job document (templated); leave it out with `workspace`
    :param workspace: the workspace of the new job, made if it is not there (templated)
    :param source: directory of the source bundle on the worker (templated)
    :param data: directory of the data bundle on the worker (templated)
    :param manifest: in its place a data manifest on the worker, which `ManifestDownloadOperator` downloads
        (templated)
    :param cpu: cores that the job may use, as in `kaos train deploy`
    :param memory: its memory, such as ``2Gi``
    :param gpu: its GPUs
    :param runtime: where it runs; None for the server's default
    """

    template_fields: Sequence[str] = ("job", "workspace", "source", "data", "manifest")
    stage: ClassVar[Stage] = Stage.INGESTING

    def __init__(
        self,
        *,
        workspace: str | None = None,
        source: str | None = None,
        data: str | None = None,
        manifest: str | None = None,
        cpu: float | None = None,
        memory: str | None = None,
        gpu: int | None = None,
        runtime: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.workspace = workspace
        self.source = source
        self.data = data
        self.manifest = manifest
        # Not `resources`: Airflow's operators have one of that name, of another shape.
        self.cpu = cpu
        self.memory = memory
        self.gpu = gpu
        self.runtime = runtime

    def open(self, context: Context) -> tuple[JobDocument, WorkspaceCatalog]:
        """Return the job that was given, or make one of the directories."""
        if self.workspace is None:
            return super().open(context)
        catalog = Catalog(configured_store())
        owner = str(self.owner)
        try:
            workspace = catalog.workspace(self.workspace)
            workspace.check_alive()
        except UnknownNameError:
            workspace = catalog.create_workspace(self.workspace, owner)
            workspace.set_definition(Definition(workspace=self.workspace))  # for `kaos train deploy`
        document = JobDocument(
            job_id=new_job_id(),
            workspace=self.workspace,
            definition=TRAIN,
            dag_id=context["ti"].dag_id,
            run_id=context["ti"].run_id,
            source=self._take("source", self.source, workspace, owner),
            data=None if self.manifest else self._take("data", self.data, workspace, owner),
            manifest=self._take_manifest(self.manifest, workspace, owner) if self.manifest else None,
            resources=Resources.parse(self.cpu, self.memory, self.gpu),
            runtime=self.runtime or runtimes()[0],
            network=network_by_default(),
            author=owner,
            submitted_at=datetime.now(UTC),
            kaos_version=__version__,
        )
        self.job = workspace.add_job(document)
        return document, workspace

    def work(self, document: JobDocument, workspace: WorkspaceCatalog, context: Context) -> dict[str, Any]:
        """Read every file of both bundles, and return an `IngestRecord`."""
        start = time.monotonic()
        objects = workspace.store.objects
        source = workspace.needed_tree(document.source.digest)
        shown = workspace.shown(document.source)
        for file in source.files:
            with naming(f"Source bundle {shown}: {file.path}"):
                for _ in objects.read(file.digest):
                    pass
        self.log.info("Source %s: %d files, verified", document.source.digest[:12], document.source.files)
        pins = [document.source]
        if document.data is not None:
            pins.append(document.data)
            with naming(f"Data bundle {workspace.shown(document.data)}"):
                SharedCheckouts(work_directory() / "trees").get(
                    objects, workspace.needed_tree(document.data.digest)
                )
            self.log.info(
                "Data %s: %d files, verified and laid out", document.data.digest[:12], document.data.files
            )
        return small(
            IngestRecord(
                job_digest=self.job,
                source=source.digest,
                data=document.data.digest if document.data else None,
                files=sum(pin.files for pin in pins),
                size=sum(pin.size for pin in pins),
                seconds=round(time.monotonic() - start, 3),
            )
        )

    def trace(self) -> Traced:
        """Return the job's inputs; with directories those, and the bundles that they became."""
        if self.workspace is None:
            return super().trace()
        given = [each for each in (self.source, self.data, self.manifest) if each is not None]
        directories = [directory(each) for each in given]
        if not self.job:
            return Traced(directories)
        document, _ = open_job(self.job)
        taken = openlineage.traced(document, self.job)
        return replace(taken, inputs=directories, outputs=taken.inputs)

    def _take(
        self, kind: BundleKind, directory: str | None, workspace: WorkspaceCatalog, user: str
    ) -> BundlePin:
        if directory is None:
            raise UnknownNameError(
                "directory for the bundle", kind, next_step=f"Give {kind}= to the operator."
            )
        walked = walk(Path(directory))
        name, tree = bundle_name(walked.root.resolve()), store_walk(walked, workspace.store.objects)
        if kind == "source":
            check_source(tree)
        self.log.info("Took %s in as %s bundle %s", directory, kind, tree.digest[:12])
        return workspace.commit_bundle(kind, name, tree, user).pin

    def _take_manifest(self, file: str, workspace: WorkspaceCatalog, user: str) -> ManifestPin:
        name, content = read_manifest(Path(file))
        pin = workspace.commit_manifest(name, content, user)
        self.log.info("Took %s in as manifest %s: %d files", file, pin.digest[:12], pin.files)
        return pin
