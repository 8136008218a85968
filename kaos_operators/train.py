"""Plan the trials of a job, and run one of them."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import ResumableJobMixin, get_current_context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from kaos.errors import TrainingFailedError
from kaos.job import Trial, trials
from kaos.lineage import BuildRecord, TrialRecord, small
from kaos.runtime.base import RunSpec, RunState, RunStatus
from kaos.source import MODEL
from kaos.transfer.checkout import SharedCheckouts, checkout
from kaos.transfer.push import store_directory
from kaos_operators.base import KaosOperator
from kaos_operators.environment import environment_builder, environment_spec, runtime
from kaos_operators.hook import work_directory

if TYPE_CHECKING:
    from airflow.sdk import Context

    from kaos.catalog import WorkspaceCatalog
    from kaos.job import JobDocument

script_log = logging.getLogger("kaos.script")


class PlanTrialsOperator(KaosOperator):
    """Return a job's trials, one mapped training task each."""

    def work(
        self, document: JobDocument, workspace: WorkspaceCatalog, context: Context
    ) -> list[dict[str, Any]]:
        """Return the trials as plain values."""
        return [small(trial) for trial in trials(document)]


class TrainOperator(ResumableJobMixin, KaosOperator):
    """Run one trial, and put what it wrote into the store as a model.

    The run outlives a worker that dies: a retry finds it and goes on following it.

    :param environment: what `ImageBuildOperator` returned (templated)
    :param trial: one of what `PlanTrialsOperator` returned (templated)
    """

    template_fields: Sequence[str] = ("job", "environment", "trial")
    external_id_key = "kaos_run"

    def __init__(self, *, environment: Any, trial: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.environment = environment
        self.trial = trial
        self._handle = ""

    def work(self, document: JobDocument, workspace: WorkspaceCatalog, context: Context) -> dict[str, Any]:
        """Run the trial and return its `TrialRecord`."""
        trial = Trial.model_validate(self.trial)
        get_current_context()["trial_name"] = trial.name  # type: ignore[typeddict-unknown-key]
        self._document, self._workspace, self._trial = document, workspace, trial
        record = self._recorded() or self._run(context)
        if not record.succeeded:
            raise TrainingFailedError(f"{trial.name}: {record.reason}.")
        return small(record)

    def _recorded(self) -> TrialRecord | None:
        """Return the record of an earlier try that got to its end and died before Airflow knew."""
        records = self._workspace.trials(self._document.job_id)
        return next((one for one in records if one.index == self._trial.index and one.succeeded), None)

    def _run(self, context: Context) -> TrialRecord:
        self.execute_resumable(context)
        record = self._record(runtime().observe(self._handle))
        self._workspace.set_trial(self._document.job_id, record)
        if record.succeeded:
            shutil.rmtree(self._run_directory, ignore_errors=True)
        return record

    # -- what ResumableJobMixin asks for -----------------------------------------------------------------

    def submit_job(self, context: Context) -> str:
        """Lay out code, data and parameters, and start the script."""
        document, workspace, run = self._document, self._workspace, self._run_directory
        objects = workspace.store.objects
        # A worker that died right after the launch could not tell Airflow of it.
        before = runtime().find(run / "run")
        if before is not None and runtime().observe(before).state is RunState.RUNNING:
            self._handle = before
            return before
        build = BuildRecord.model_validate(self.environment)
        # Built on another worker, the environment is made here from the same lock; else it is there already.
        spec = environment_spec(workspace, document)
        environment = environment_builder().build(spec, self.log.info, objects.get(build.lock).decode())
        data = SharedCheckouts(work_directory() / "trees").get(objects, workspace.tree(document.data.digest))
        shutil.rmtree(run, ignore_errors=True)  # what an earlier, failed try of this trial left
        run.mkdir(parents=True)
        checkout(objects, workspace.tree(document.source.digest).below(MODEL), run / "program", writable=True)
        (run / "params.json").write_text(json.dumps(self._trial.params))
        self._handle = runtime().launch(
            RunSpec(
                run_id=f"{document.job_id}-{self._trial.index}",
                job_id=document.job_id,
                program=run / "program",
                data=data,
                params=run / "params.json",
                output=run / "output",
                directory=run / "run",
                environment=environment,
                env=build.variables,
                executables=spec.executables,
                resources=document.resources,
            )
        )
        return self._handle

    def get_job_status(self, external_id: Any, context: Context) -> str:
        """Return the state of the run that an earlier try started."""
        self._handle = str(external_id)
        status = runtime().observe(self._handle)
        return "terminated" if status.terminated else str(status.state)

    def is_job_active(self, status: str) -> bool:
        """Tell whether there is a run to go on following."""
        return status == RunState.RUNNING

    def is_job_succeeded(self, status: str) -> bool:
        """Tell whether the run got to its end while nobody looked; an error of the script is final too."""
        return status in (RunState.SUCCEEDED, RunState.FAILED)

    def poll_until_complete(self, external_id: Any, context: Context) -> None:
        """Pass the script's lines on as they come, until it ends."""
        status = runtime().follow(self._handle, lambda line: script_log.info("%s", line))
        if status.state is RunState.LOST:
            raise AirflowException(f"The run is lost: {status.reason}")

    def get_job_result(self, external_id: Any, context: Context) -> None:
        """Return nothing: what the run left is read when it has ended, however that came about."""

    def on_kill(self) -> None:
        """End the script with all that it started."""
        if self._handle:
            runtime().terminate(self._handle)

    # -- afterwards --------------------------------------------------------------------------------------

    @property
    def _run_directory(self) -> Path:
        return work_directory() / "runs" / self._document.job_id / str(self._trial.index)

    def _record(self, status: RunStatus) -> TrialRecord:
        run, objects = self._run_directory, self._workspace.store.objects
        if status.terminated:
            raise AirflowFailException("The training was killed.")
        log = b"".join(_whole_log(self._handle))
        succeeded = status.state is RunState.SUCCEEDED
        model = store_directory(run / "output", objects) if succeeded else None
        now = datetime.now(UTC)
        record = TrialRecord(
            index=self._trial.index,
            name=self._trial.name,
            succeeded=succeeded,
            reason=status.reason,
            exit_code=status.exit_code,
            model=model.digest if model else None,
            log=objects.put(log),
            limits=status.limits,
            started_at=status.started_at or now,
            ended_at=status.ended_at or now,
        )
        if model:
            objects.put(model.encoded)
            self.log.info(
                "Model %s: %d files, %d bytes", model.digest[:12], len(list(model.files)), model.size
            )
        return record


def runs_here(job_id: str) -> bool:
    """Tell whether a script of the job runs on this machine; its task takes a moment to end it."""
    for run in (work_directory() / "runs" / job_id).glob("*/run"):
        handle = runtime().find(run)
        if handle is not None and runtime().observe(handle).state is RunState.RUNNING:
            return True
    return False


def _whole_log(handle: str) -> Any:
    offset = 0
    while True:
        chunk, offset = runtime().logs(handle, offset)
        if not chunk:
            return
        yield chunk
