"""Workspaces with a history, written as the operators write it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from kaos.bundle import File, Tree
from kaos.catalog import Catalog, WorkspaceCatalog
from kaos.digest import digest_bytes
from kaos.endpoint import RevisionRecord, ServeDocument, beside
from kaos.gate import Condition
from kaos.job import (
    BundlePin,
    JobDocument,
    JobOutcome,
    JobState,
    ManifestPin,
    ParametersPin,
    Trial,
    new_job_id,
)
from kaos.lineage import AirflowRun, BuildRecord, ResolvedManifest, TrialRecord
from kaos.model import ModelRecord
from kaos.models import Models
from kaos.promotion import Proposal, decide
from kaos.resources import Resources
from kaos.schema.bundle import BundleKind
from kaos.serving.promotions import Promotions
from kaos.serving.records import Endpoints
from kaos.store import Store, memory_store

NOW = datetime(2026, 11, 21, 10, 24, 50, tzinfo=UTC)
LOCK = "numpy==2.1.0 \\\n    --hash=sha256:00\n    # via -r requirements.txt\nscikit-learn==1.5.2\n"


class History:
    """A workspace, and ways to let something happen in it."""

    def __init__(self, store: Store | None = None, name: str = "mnist") -> None:
        self.store = store or memory_store()
        self.workspace: WorkspaceCatalog = Catalog(self.store).create_workspace(name, "ada")
        self.name = name

    def tree(self, files: dict[str, bytes]) -> Tree:
        """Store files, and return their tree."""
        put = self.store.objects.put
        return Tree.of(File(path, len(content), put(content)) for path, content in files.items())

    def bundle(self, kind: BundleKind, files: dict[str, bytes], name: str = "mnist") -> BundlePin:
        """Commit a bundle."""
        return self.workspace.commit_bundle(kind, name, self.tree(files), "ada").pin

    def manifest(self, urls: dict[str, str]) -> ManifestPin:
        """Commit a manifest: path by URL."""
        lines = "".join(f'{{"url": "{url}", "path": "{path}"}}\n' for url, path in urls.items())
        return self.workspace.commit_manifest("features", lines.encode(), "ada")

    def job(
        self,
        source: BundlePin,
        data: BundlePin,
        trials: list[dict[str, Any]] | None = None,
        manifest: ManifestPin | None = None,
    ) -> JobDocument:
        """Record a job that has not ended."""
        job_id = new_job_id()
        params = None
        if trials is not None:
            digest = digest_bytes(repr(trials).encode())
            params = ParametersPin(name="params.json", digest=digest, trials=len(trials), author="ada")
        document = JobDocument(
            job_id=job_id,
            workspace=self.name,
            definition="train",
            dag_id=f"kaos.{self.name}.train",
            run_id=job_id,
            source=source,
            data=None if manifest else data,
            manifest=manifest,
            params=params,
            resources=Resources(cpu=1, memory=512 << 20),
            runtime="process",
            author="ada",
            submitted_at=NOW,
            kaos_version="0.1.0",
        )
        self.workspace.add_job(document)
        if manifest is not None:
            origins = self.store.objects.put(b"{}\n")
            resolved = ResolvedManifest(manifest=manifest.digest, data=data, origins=origins)
            self.workspace.resolve_manifest(job_id, resolved)
        return self.workspace.job(job_id)[0]

    def train(
        self,
        source: BundlePin,
        data: BundlePin,
        *,
        outputs: list[bytes] | None = None,
        trials: list[dict[str, Any]] | None = None,
        manifest: ManifestPin | None = None,
        lock: str = LOCK,
        metrics: dict[str, Any] | None = None,
        reused_from: str | None = None,
    ) -> tuple[str, list[str]]:
        """Let a job run to its end; return its id, and those of its models."""
        document = self.job(source, data, trials, manifest)
        job_id = document.job_id
        written = outputs or [f"model {job_id} {index}".encode() for index in range(len(trials or [{}]))]
        trees = [self.tree({"model/model.pkl": content}) for content in written]
        for tree in trees:
            self.store.objects.put(tree.encoded)
        ids = self.workspace.next_model_ids(document, [tree.digest for tree in trees])
        build = self.build(lock)
        for index, tree in enumerate(trees):
            point = (trials or [{}])[index]
            name = " ".join(f"{key}={value}" for key, value in point.items()) or "train"
            run = TrialRecord(
                index=index,
                name=name,
                succeeded=True,
                reason="",
                exit_code=0,
                model=tree.digest,
                params=point,
                log=self.store.objects.put(b""),
                limits="",
                reused_from=reused_from,
                started_at=NOW,
                ended_at=NOW + timedelta(seconds=12.5),
            )
            self.workspace.add_model(
                ModelRecord(
                    model_id=ids[tree.digest],
                    digest=tree.digest,
                    files=1,
                    size=tree.size,
                    job=document,
                    job_digest="0" * 64,
                    trial=Trial(index=index, name=name, params=point),
                    build=build,
                    run=run,
                    airflow=self.airflow(document.dag_id, job_id),
                    metrics=metrics or {"accuracy": 0.5 + index / 1000},
                    created_at=NOW,
                )
            )
        models = [ids[tree.digest] for tree in trees]
        self.workspace.set_outcome(
            JobOutcome(
                job_id=job_id,
                state=JobState.SUCCESS,
                started_at=NOW,
                ended_at=NOW + timedelta(seconds=20),
                models=models,
            )
        )
        return job_id, models

    def decide(self, job_id: str, model_id: str, endpoint: str, serving: str) -> str:
        """Promote a model that a schedule trained; return the digest of the decision."""
        proposal = Proposal(
            job_id=job_id,
            schedule="nightly",
            author="ada",
            endpoint=endpoint,
            condition="accuracy > current",
            metric="accuracy",
            model=Models(self.workspace).pin(model_id),
            trial=0,
            serving=Models(self.workspace).pin(serving),
            revision=1,
            verdict=Condition("accuracy > current").of({"accuracy": 0.9}, {"accuracy": 0.5}),
        )
        assert proposal.accepted
        decision = decide(proposal, None, self.airflow(f"kaos.{self.name}.nightly", job_id), NOW)
        return Promotions(self.workspace).add(decision)[1]

    def serve(
        self, name: str, code: BundlePin, model_id: str, *, live: bool = True, decision: str | None = None
    ) -> int:
        """Deploy a revision of an endpoint, and route it; return its number."""
        records = Endpoints(self.workspace)
        pin = Models(self.workspace).pin(model_id)
        whole = beside(self.workspace.tree(code.digest), self.workspace.tree(pin.digest))
        source = self.workspace.commit_bundle("source", code.name, whole, "ada").pin
        job_id = new_job_id()
        number = records.reserve(name, job_id, "ada").revisions
        document = ServeDocument(
            job_id=job_id,
            workspace=self.name,
            dag_id=f"kaos.{self.name}.serve",
            run_id=job_id,
            endpoint=name,
            revision=number,
            source=source,
            code=code,
            model=pin,
            decision=decision,
            runtime="process",
            author="ada",
            submitted_at=NOW,
            kaos_version="0.1.0",
        )
        digest = records.add_revision(document)
        if not live:
            records.end(document, reason="It did not answer.")
            return number
        records.add_record(
            RevisionRecord(
                document=document,
                document_digest=digest,
                build=self.build(LOCK),
                sample=None,
                limits="",
                started_seconds=1.5,
                airflow=self.airflow(document.dag_id, job_id),
                created_at=NOW,
            )
        )
        records.change(name, lambda found: found.take(document, NOW))
        records.end(document)
        return number

    def build(self, lock: str) -> BuildRecord:
        """Return the record of an environment with this lock."""
        return BuildRecord(
            runtime="process",
            environment=digest_bytes(lock.encode()),
            python="3.11.7",
            lock=self.store.objects.put(lock.encode()),
            log="",
            reused=False,
            seconds=1,
        )

    def airflow(self, dag: str, run: str) -> AirflowRun:
        """Return where in Airflow something ran."""
        return AirflowRun(
            dag_id=dag,
            run_id=run,
            task_id="train",
            map_index=0,
            try_number=1,
            bundle_version=digest_bytes(b"dags"),
            airflow_version="3.3.2",
        )
