"""Make model records of a job's trials."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kaos import openlineage
from kaos.errors import TrainingFailedError
from kaos.job import JobOutcome, JobState, Trial
from kaos.lineage import BuildRecord
from kaos.model import JobSummary, ModelRecord, TrialSummary
from kaos.reproductions import Reproductions
from kaos_operators.base import KaosOperator, airflow_run
from kaos_operators.hook import open_job
from kaos_operators.train import model_metrics

if TYPE_CHECKING:
    from airflow.sdk import Context

    from kaos.catalog import WorkspaceCatalog
    from kaos.job import JobDocument
    from kaos.lineage import TrialRecord
    from kaos.openlineage import Traced


_SHOWN = 5
_LOGGED = 100
_AT_ONCE = 8


class RegisterModelOperator(KaosOperator):
    """Write one immutable record per model of a job, with all that made it, and how the job ended.

    Its outlet assets get an event that names the models.

    :param environment: what `ImageBuildOperator` returned (templated); None if it failed
    """

    template_fields: Sequence[str] = ("job", "environment")

    def __init__(self, *, environment: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.environment = environment

    def work(self, document: JobDocument, workspace: WorkspaceCatalog, context: Context) -> dict[str, Any]:
        """Return the ids of the models."""
        records = workspace.trials(document.job_id)
        made = [record for record in records if record.succeeded]
        ids = workspace.next_model_ids(document, [record.model or "" for record in made])
        # Each waits for the disk: several at a time.
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            added = pool.map(lambda each: self._register(each, ids, document, workspace, context), made)
            models = {model.trial.index: model for model in added}
        for model in list(models.values())[:_LOGGED]:
            self.log.info("Model %s", model.model_id)
        workspace.drop_live(document.job_id)  # of trials whose worker was lost
        if not models:
            raise TrainingFailedError(self._why(records))
        # Before the outcome: whoever sees that the job has ended finds the verdict.
        Reproductions(workspace).conclude(document, next(iter(models.values())))
        shown = [model.model_id for model in models.values()]
        workspace.set_outcome(
            JobOutcome(
                job_id=document.job_id,
                state=JobState.SUCCESS,
                models=shown,
                summary=workspace.store.objects.put(_summary(records, models).encode()),
                started_at=min(record.started_at for record in records),
                ended_at=datetime.now(UTC),
            )
        )
        for asset in self.outlets:
            extra: dict[str, Any] = {"job": document.job_id, "models": list(shown[:100])}
            if document.reproduces is not None:
                extra["reproduces"] = document.reproduces.model_id
            context["outlet_events"][asset].extra = extra
        return {"models": shown[:1000]}

    def trace(self) -> Traced:
        """Return the job's inputs, and the models that were registered."""
        document, workspace = open_job(self.job)
        build = BuildRecord.model_validate(self.environment) if self.environment is not None else None
        outcome = workspace.outcome(document.job_id)
        ids = outcome.models[: openlineage.MOST] if outcome is not None else []
        records = workspace.job_models(document.job_id, ids)
        made = [(record.digest, record.files, record.size) for record in records]
        return openlineage.traced(
            document,
            self.job,
            build,
            *openlineage.models(document.workspace, made),
            models=ids,
            trials=[openlineage.trial(record.run) for record in records[: openlineage.MOST]],
        )

    def _register(
        self,
        record: TrialRecord,
        ids: dict[str, str],
        document: JobDocument,
        workspace: WorkspaceCatalog,
        context: Context,
    ) -> ModelRecord:
        digest = record.model or ""
        tree = workspace.output_tree(digest)
        model = ModelRecord(
            model_id=ids[digest],
            digest=digest,
            files=len(list(tree.files)),
            size=tree.size,
            job=document,
            job_digest=self.job,
            trial=Trial(index=record.index, name=record.name, params=record.params),
            build=BuildRecord.model_validate(self.environment),
            run=record,
            airflow=airflow_run(context),
            metrics=model_metrics(tree, workspace.store.objects, self.log.warning),
            created_at=record.ended_at,
        )
        workspace.add_model(model)
        return model

    def _why(self, records: list[TrialRecord]) -> str:
        if records:
            shown = "; ".join(f"{record.name}: {record.reason}" for record in records[:_SHOWN])
            return f"{shown}; and {len(records) - _SHOWN} more." if len(records) > _SHOWN else f"{shown}."
        missing = "environment" if self.environment is None else "model"
        return f"The job has no {missing}: an earlier task failed, and its log in Airflow's UI says why."


def _summary(records: list[TrialRecord], models: dict[int, ModelRecord]) -> JobSummary:
    return JobSummary(
        trials=[
            TrialSummary.of(record, models[record.index].model_id if record.succeeded else None)
            for record in records
        ],
        metrics=sorted({name for model in models.values() for name in model.metrics}),
    )
