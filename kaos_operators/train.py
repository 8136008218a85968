"""Plan the trials of a job, and run one of them."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import ResumableJobMixin, get_current_context
from airflow.sdk.exceptions import AirflowFailException

from kaos import openlineage
from kaos.digest import digest_bytes
from kaos.errors import InvalidInputError, KaosError, TrainingFailedError
from kaos.history import last_metrics, live_files
from kaos.job import Batch, JobState, Trial, batches, trials
from kaos.lineage import BuildRecord, ImageRecord, TrialRecord, small
from kaos.model import METRICS, numeric, read_metrics
from kaos.runtime.base import RunSpec, RunState, RunStatus
from kaos.runtime.process import many_runs
from kaos.source import MODEL
from kaos.transfer.checkout import SharedCheckouts, checkout
from kaos.transfer.push import store_directory
from kaos_operators.base import KaosOperator
from kaos_operators.containers import images
from kaos_operators.environment import PROCESS, environment_of, find_run, runtime, runtime_of
from kaos_operators.hook import open_job, work_directory
from kaos_operators.live import LiveMetrics

if TYPE_CHECKING:
    from airflow.sdk import Context

    from kaos.bundle import Tree
    from kaos.catalog import WorkspaceCatalog
    from kaos.image import EnvironmentSpec
    from kaos.job import JobDocument
    from kaos.openlineage import Traced
    from kaos.runtime.base import Environment
    from kaos.store import Objects

script_log = logging.getLogger("kaos.script")

_SHOWN = 100
_ENDING = 8


class PlanTrialsOperator(KaosOperator):
    """Return how a job's trials are spread over mapped training tasks."""

    def work(
        self, document: JobDocument, workspace: WorkspaceCatalog, context: Context
    ) -> list[dict[str, Any]]:
        """Return the batches as plain values: up to 200 trials have a task each, more share tasks."""
        planned = trials(workspace.space(document.params), document.only)
        return [small(batch) for batch in batches(planned, document.parallelism)]


class TrainOperator(ResumableJobMixin, KaosOperator):
    """Run a batch of trials one after the other, and put what each wrote into the store as a model.

    A run outlives a worker that dies: a retry finds it and goes on following it, and trials that have ended
    are not run again. A trial that fails does not keep the others from running.

    :param environment: what `ImageBuildOperator` returned (templated)
    :param batch: one of what `PlanTrialsOperator` returned (templated)
    """

    template_fields: Sequence[str] = ("job", "environment", "batch")

    def __init__(self, *, environment: Any, batch: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.environment = environment
        self.batch = batch
        self._handle = ""
        self._live: LiveMetrics | None = None
        self._killed = False

    def work(self, document: JobDocument, workspace: WorkspaceCatalog, context: Context) -> dict[str, Any]:
        """Run the trials; return the `TrialRecord` of the only one, or how many there were."""
        batch = Batch.model_validate(self.batch)
        get_current_context()["trial_name"] = batch.name  # type: ignore[typeddict-unknown-key]
        self._document, self._workspace = document, workspace
        planned = trials(workspace.space(document.params), document.only)[
            batch.start : batch.start + batch.count
        ]
        here = document.runtime == PROCESS and len(planned) > 1
        with many_runs() if here else nullcontext():
            records = [self._attempt(trial, context) for trial in planned]
        failed = [record for record in records if not record.succeeded]
        if failed:
            more = f", and {len(failed) - 1} more of {len(records)} failed" if len(failed) > 1 else ""
            raise TrainingFailedError(f"{failed[0].name}: {failed[0].reason}{more}.")
        if len(records) == 1:
            return small(records[0])
        return {"trials": len(records), "models": [record.model for record in records[:_SHOWN]]}

    def _attempt(self, trial: Trial, context: Context) -> TrialRecord:
        """Return the trial's record, made now unless an earlier try of this task got that far."""
        self._trial, self._handle, self._live = trial, "", None
        self.external_id_key = f"kaos_run_{trial.index}"
        record = self._recorded()
        if record is not None:
            return record
        self._stop_if_too_many_failed()
        record = self._reused()
        if record is None:
            try:
                record = self._run(context)
            except KaosError as error:  # of this trial alone: its output cannot be kept, say
                record = self._failure(str(error))
        self._workspace.set_trial(self._document.job_id, record)
        if self._live is not None:
            self._live.forget()
        if not record.succeeded:
            self._workspace.add_failure(self._document.job_id, trial.index)
        return record

    def _stop_if_killed(self) -> None:
        outcome = self._workspace.outcome(self._document.job_id)
        if self._killed or (outcome is not None and outcome.state is JobState.KILLED):
            raise AirflowFailException("The job was killed: no other trial is started.")

    def _stop_if_too_many_failed(self) -> None:
        most = self._document.max_failed
        if most is not None and self._workspace.failures(self._document.job_id) > most:
            raise TrainingFailedError(f"More than {most} trials failed: the others are not started.")

    def _recorded(self) -> TrialRecord | None:
        """Return the record of an earlier try that got to its end and died before Airflow knew."""
        record = self._workspace.trial(self._document.job_id, self._trial.index)
        return record if record is not None and record.succeeded else None

    def _run(self, context: Context) -> TrialRecord:
        """Run the trial, again if it was lost or ran out of memory and the job allows it."""
        document = self._document
        for attempt in range(document.retries + 1):
            self.execute_resumable(self._resumable(context))
            status = runtime_of(self._handle).observe(self._handle)
            final = status.state is RunState.FAILED and not (status.out_of_memory or document.retry_errors)
            if (
                status.state is RunState.SUCCEEDED
                or status.terminated
                or final
                or attempt == document.retries
            ):
                break
            self.log.warning(
                "%s: %s. Try %d of %d", self._trial.name, status.reason, attempt + 2, document.retries + 1
            )
            self._forget(context)
        record = self._record(status)
        if record.succeeded:
            self._workspace.remember_trial(self._memo_key, document.job_id, record)
            shutil.rmtree(self._run_directory, ignore_errors=True)
            shutil.rmtree(self._checkpoint, ignore_errors=True)
        return record

    def _forget(self, context: Context) -> None:
        """Let the next attempt start the script anew."""
        store = self._resumable(context).get("task_state_store")
        if store is not None:
            store.delete(self.external_id_key)
        shutil.rmtree(self._run_directory, ignore_errors=True)

    def _resumable(self, context: Context) -> Context:
        """Return the context in which a trial's handle is kept for later tries.

        Of batched trials the run's own records keep it: a run of a process is of use to its own machine only,
        and Airflow's API server would have two more requests to answer for each of 10,000 trials.
        """
        if Batch.model_validate(self.batch).count == 1:
            return context
        return cast("Context", {**context, "task_state_store": RunRecords(self._run_directory / "run")})

    def _reused(self) -> TrialRecord | None:
        """Return what an earlier job made of the same environment, code, data and parameters."""
        made = self._workspace.made(self._memo_key) if self._document.reuse else None
        # Retention may have removed it: what is found here now stays until the job ends.
        if made is None or not self._workspace.is_whole(made.record.model or "", made.record.log):
            return None
        self.log.info("%s: the model of job %s is taken over", self._trial.name, made.job_id)
        source = made.record.reused_from or made.job_id
        return made.record.model_copy(
            update={"index": self._trial.index, "name": self._trial.name, "reused_from": source}
        )

    @property
    def _memo_key(self) -> str:
        document, build = self._document, BuildRecord.model_validate(self.environment)
        made_of = [build.environment, document.source.digest, document.pinned_data.digest, self._trial.params]
        return digest_bytes(json.dumps(made_of, sort_keys=True).encode())

    def trace(self) -> Traced:
        """Return the job's inputs, and the models of the batch's trials that have ended."""
        document, workspace = open_job(self.job)
        batch = Batch.model_validate(self.batch)
        planned = trials(workspace.space(document.params), document.only)
        mine = planned[batch.start : batch.start + batch.count][: openlineage.MOST]
        found = [workspace.trial(document.job_id, trial.index) for trial in mine]
        ended = [record for record in found if record is not None]
        trees = [workspace.output_tree(record.model) for record in ended if record.model is not None]
        made = [(tree.digest, len(list(tree.files)), tree.size) for tree in trees]
        return openlineage.traced(
            document,
            self.job,
            BuildRecord.model_validate(self.environment),
            *openlineage.models(document.workspace, made),
            trials=[openlineage.trial(record) for record in ended],
        )

    # -- what ResumableJobMixin asks for -----------------------------------------------------------------

    def submit_job(self, context: Context) -> str:
        """Lay out code, data and parameters, and start the script."""
        document, workspace, run = self._document, self._workspace, self._run_directory
        objects = workspace.store.objects
        # A worker that died right after the launch could not tell Airflow of it.
        before = find_run(run / "run")
        if before is not None and runtime_of(before).observe(before).state is RunState.RUNNING:
            self._handle = before
            return before
        build = BuildRecord.model_validate(self.environment)
        tree = workspace.needed_tree(document.pinned_data.digest)
        data = SharedCheckouts(work_directory() / "trees").get(objects, tree)
        shutil.rmtree(run, ignore_errors=True)  # what an earlier, failed try of this trial left
        run.mkdir(parents=True)
        (run / "params.json").write_text(json.dumps(self._trial.params))
        self._checkpoint.mkdir(parents=True, exist_ok=True)
        spec = RunSpec(
            run_id=f"{document.job_id}-{self._trial.index}",
            job_id=document.job_id,
            data=data,
            data_name=document.pinned_data.name,
            params=run / "params.json",
            output=run / "output",
            directory=run / "run",
            checkpoint=self._checkpoint,
            resources=document.resources,
            network=document.network,
            labels={"workspace": document.workspace, "trial": str(self._trial.index)},
            **self._code(build, run / "program"),
        )
        self._stop_if_killed()
        self._handle = runtime(document.runtime).launch(spec)
        if self._killed:  # while it was launched: there was nothing to end yet
            runtime_of(self._handle).terminate(self._handle)
        return self._handle

    def _code(self, build: BuildRecord, program: Path) -> dict[str, Any]:
        """Return what a run takes its code and packages from: an image, or a directory and an environment."""
        if self._image is not None:
            return {"environment": self._image}
        environment, spec = self._environment
        code = self._workspace.needed_tree(self._document.source.digest).below(MODEL)
        checkout(self._workspace.store.objects, code, program, writable=True)
        return {
            "environment": environment,
            "program": program,
            "env": build.variables,
            "executables": spec.executables,
        }

    @cached_property
    def _image(self) -> ImageRecord | None:
        """Return the image that the script runs in, on this machine; None where it runs in an environment."""
        image = BuildRecord.model_validate(self.environment).image
        if image is not None:
            images().provide(image, self.log.info)
        return image

    @cached_property
    def _environment(self) -> tuple[Environment, EnvironmentSpec]:
        """Return what the script runs in, the same for all trials of the batch."""
        build = BuildRecord.model_validate(self.environment)
        return environment_of(self._workspace, self._document, build, self.log.info)

    def get_job_status(self, external_id: Any, context: Context) -> str:
        """Return the state of the run that an earlier try started."""
        self._handle = str(external_id)
        status = runtime_of(self._handle).observe(self._handle)
        return "terminated" if status.terminated else str(status.state)

    def is_job_active(self, status: str) -> bool:
        """Tell whether there is a run to go on following."""
        return status == RunState.RUNNING

    def is_job_succeeded(self, status: str) -> bool:
        """Tell whether the run got to its end while nobody looked; an error of the script is final too."""
        return status in (RunState.SUCCEEDED, RunState.FAILED)

    def poll_until_complete(self, external_id: Any, context: Context) -> None:
        """Pass the script's lines on as they come, until it ends."""
        output = self._run_directory / "output"
        self._live = LiveMetrics(self._workspace, self._document.job_id, self._trial, output)
        runtime_of(self._handle).follow(
            self._handle, lambda line: script_log.info("%s", line), look=self._live.look
        )

    def get_job_result(self, external_id: Any, context: Context) -> None:
        """Return nothing: what the run left is read when it has ended, however that came about."""

    def on_kill(self) -> None:
        """End the script with all that it started, and start no other."""
        self._killed = True
        if self._handle:
            runtime_of(self._handle).terminate(self._handle)

    # -- afterwards --------------------------------------------------------------------------------------

    @property
    def _run_directory(self) -> Path:
        return work_directory() / "runs" / self._document.job_id / str(self._trial.index)

    @property
    def _checkpoint(self) -> Path:
        """Return the directory that outlives the tries of a trial on this worker."""
        return work_directory() / "checkpoints" / self._document.job_id / str(self._trial.index)

    def _record(self, status: RunStatus) -> TrialRecord:
        objects = self._workspace.store.objects
        if status.terminated:
            raise AirflowFailException("The training was killed.")
        failed = self._failure(status.reason).model_copy(
            update={
                "exit_code": status.exit_code,
                "log": objects.put(b"".join(_whole_log(self._handle))),
                "limits": status.limits,
                "started_at": status.started_at or datetime.now(UTC),
                "ended_at": status.ended_at or datetime.now(UTC),
            }
        )
        if status.state is not RunState.SUCCEEDED:
            return failed
        model = store_directory(self._run_directory / "output", objects)
        self.log.info("Model %s: %d files, %d bytes", model.digest[:12], len(list(model.files)), model.size)
        metrics = numeric(model_metrics(model, objects, self.log.warning))
        return failed.model_copy(
            update={"succeeded": True, "reason": "", "model": model.digest, "metrics": metrics}
        )

    def _failure(self, reason: str) -> TrialRecord:
        now = datetime.now(UTC)
        return TrialRecord(
            index=self._trial.index,
            name=self._trial.name,
            succeeded=False,
            reason=reason,
            exit_code=None,
            model=None,
            params=self._trial.params,
            log=self._workspace.store.objects.put(b""),
            limits="",
            started_at=now,
            ended_at=now,
        )

    def fail(self, document: JobDocument, workspace: WorkspaceCatalog, error: KaosError) -> None:
        """Leave the job's outcome to the task that registers: other trials may succeed."""


class RunRecords:
    """What a run left in its directory, in the shape of Airflow's store for the state of a task."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, key: str) -> str | None:
        """Return the handle of the run that was last launched there."""
        return find_run(self._directory)

    def set(self, key: str, value: object) -> None:
        """Do nothing: the launch wrote it."""

    def delete(self, key: str) -> None:
        """Do nothing: it goes with the directory."""


def model_metrics(model: Tree, objects: Objects, warn: Callable[[str], object]) -> dict[str, Any]:
    """Return the metrics in a trial's output; none, with a warning, where there is no usable file of them.

    Without a file of them the last values of its live metrics are taken.
    """
    file = model.file(METRICS)
    if file is None and live_files(model):
        return dict(last_metrics(model, objects))
    if file is None:
        warn(f"The trial wrote no {METRICS}: the model has no metrics")
        return {}
    try:
        return read_metrics(objects.get(file.digest))
    except InvalidInputError as error:
        warn(f"The model has no metrics: {error}")
        return {}


def end_runs_here(job_id: str) -> bool:
    """End the job's scripts that run on this machine, and tell whether there were any.

    Their tasks end them too, a heartbeat later, but not those of a worker that died.
    """
    found = [find_run(run) for run in (work_directory() / "runs" / job_id).glob("*/run")]
    running = [each for each in found if each and runtime_of(each).observe(each).state is RunState.RUNNING]
    with ThreadPoolExecutor(max_workers=_ENDING) as pool:
        list(pool.map(lambda each: runtime_of(each).terminate(each), running))
    return bool(running)


def _whole_log(handle: str) -> Any:
    offset = 0
    while True:
        chunk, offset = runtime_of(handle).logs(handle, offset)
        if not chunk:
            return
        yield chunk
