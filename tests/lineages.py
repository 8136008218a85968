"""Workspaces with bundles, jobs and models as deploys and trainings leave them, made without Airflow."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from kaos.bundle import File, Tree
from kaos.catalog import Catalog, WorkspaceCatalog
from kaos.job import (
    TRAIN,
    BundlePin,
    Definition,
    Inputs,
    JobDocument,
    JobOutcome,
    JobState,
    Trial,
    new_job_id,
)
from kaos.lineage import AirflowRun, BuildRecord, TrialRecord
from kaos.model import JobSummary, ModelRecord, TrialSummary
from kaos.resources import Resources
from kaos.schema.bundle import BundleKind
from kaos.store import Store

NOW = datetime.now(UTC)


def tree_of(store: Store, files: dict[str, bytes]) -> Tree:
    """Bring files into the store and return their tree, which is not stored."""
    return Tree.of(File(path, len(content), store.objects.put(content)) for path, content in files.items())


class Team:
    """A workspace, and somebody who trains in it."""

    def __init__(self, store: Store, name: str = "mnist") -> None:
        self.store = store
        self.workspace: WorkspaceCatalog = Catalog(store).create_workspace(name, "ada")
        self.workspace.set_definition(Definition(workspace=name))

    @classmethod
    def of(cls, store: Store, name: str = "mnist") -> Team:
        """Return the team of a workspace that is there."""
        team = cls.__new__(cls)
        team.store, team.workspace = store, Catalog(store).workspace(name)
        return team

    def bundle(self, kind: BundleKind, content: str) -> BundlePin:
        """Commit a bundle with this content."""
        files = {"a": content.encode(), f"{kind}.txt": f"{kind} {content}".encode()}
        return self.workspace.commit_bundle(kind, kind, tree_of(self.store, files), "ada").pin

    def begin(self, source: str = "source", data: str = "data", *, days: float = 0) -> JobDocument:
        """Deploy, and return the job that runs now."""
        job_id = new_job_id()
        inputs = self.workspace.merge_inputs(
            Inputs(source=self.bundle("source", source), data=self.bundle("data", data))
        )
        assert inputs.source is not None
        document = JobDocument(
            job_id=job_id,
            workspace=self.workspace.workspace.name,
            definition=TRAIN,
            dag_id=f"kaos.{self.workspace.workspace.name}.train",
            run_id=job_id,
            source=inputs.source,
            data=inputs.data,
            resources=Resources(),
            runtime="process",
            author="ada",
            submitted_at=datetime.now(UTC) - timedelta(days=days),
            kaos_version="0",
        )
        self.workspace.add_job(document)
        return document

    def run(self, document: JobDocument, outputs: list[str]) -> list[TrialRecord]:
        """Run the trials of a job, each of which writes one output."""
        records = self.write(document, outputs)
        self.record(document, records)
        return records

    def write(self, document: JobDocument, outputs: list[str]) -> list[TrialRecord]:
        """Bring what trials wrote into the store; nothing names it yet."""
        records = []
        for index, output in enumerate(outputs):
            tree = tree_of(self.store, {"model/weights": output.encode(), "metrics/metrics.json": b"{}"})
            record = TrialRecord(
                index=index,
                name=f"trial {index}",
                succeeded=True,
                reason="",
                exit_code=0,
                model=self.store.objects.put(tree.encoded),
                log=self.store.objects.put(f"log of {document.job_id} {index}".encode()),
                limits="",
                started_at=document.submitted_at,
                ended_at=document.submitted_at,
            )
            records.append(record)
        return records

    def record(self, document: JobDocument, records: list[TrialRecord]) -> None:
        """Record how trials ended."""
        for record in records:
            self.workspace.set_trial(document.job_id, record)
            key = hashlib.sha256(f"{document.source.digest} {record.model}".encode()).hexdigest()
            self.workspace.remember_trial(key, document.job_id, record)

    def end(
        self, document: JobDocument, records: list[TrialRecord], environment: str = "0" * 64
    ) -> list[ModelRecord]:
        """Register a job's models, made in an environment, or in an image with this id."""
        put = self.store.objects.put
        build = BuildRecord(
            runtime="process",
            environment=environment,
            lock=put(b"numpy==2 --hash=sha256:" + b"1" * 64),
            log=put(f"build of {document.job_id}".encode()),
            reused=False,
            seconds=0,
        )
        self.workspace.set_build_log(document.job_id, build.log)
        ids = self.workspace.next_model_ids(document, [record.model or "" for record in records])
        models = []
        for record in records:
            digest = record.model or ""
            tree = self.workspace.output_tree(digest)
            model = ModelRecord(
                model_id=ids[digest],
                digest=digest,
                files=len(list(tree.files)),
                size=tree.size,
                job=document,
                job_digest=put(document.encode()),
                trial=Trial(index=record.index, name=record.name),
                build=build,
                run=record,
                airflow=AirflowRun(
                    dag_id="d",
                    run_id="r",
                    task_id="t",
                    map_index=-1,
                    try_number=1,
                    bundle_version=None,
                    airflow_version="3",
                ),
                created_at=document.submitted_at,
            )
            self.workspace.add_model(model)
            models.append(model)
        trials = [TrialSummary.of(each.run, each.model_id) for each in models]
        self.workspace.set_outcome(
            JobOutcome(
                job_id=document.job_id,
                state=JobState.SUCCESS,
                models=[each.model_id for each in models],
                summary=put(JobSummary.of(trials).encode()),
                ended_at=document.submitted_at,
            )
        )
        return models

    def train(
        self,
        output: str,
        *,
        source: str = "source",
        data: str = "data",
        days: float = 0,
        environment: str = "0" * 64,
    ) -> ModelRecord:
        """Deploy, train and register one model."""
        document = self.begin(source, data, days=days)
        return self.end(document, self.run(document, [output]), environment)[0]

    def whole(self, model: ModelRecord) -> bool:
        """Tell whether everything is there that gives a model back and makes it again."""
        assert model.job.data is not None
        objects = self.store.objects
        trees = (model.digest, model.job.source.digest, model.job.data.digest)
        single = (model.job_digest, model.build.lock, model.build.log, model.run.log)
        return all(self.workspace.is_complete(tree) for tree in trees) and all(
            objects.size(digest) is not None for digest in single
        )
