"""What begins a scheduled run: take the workspace's inputs as they are, or look whether its data is new."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from kaos import __version__
from kaos.catalog import Catalog
from kaos.errors import KaosError, UnknownNameError
from kaos.job import BundlePin, Definition, Inputs, JobDocument, Stage, new_job_id
from kaos.lineage import PinRecord, ResolvedManifest, small
from kaos.openlineage import Traced
from kaos.schedule import Schedule
from kaos.schedules import Schedules, Tick, Told, Unless
from kaos_operators.base import KaosOperator
from kaos_operators.hook import configured_store, network_by_default, runtimes
from kaos_operators.manifest import Fetch

if TYPE_CHECKING:
    from airflow.sdk import Context

    from kaos.catalog import WorkspaceCatalog

_RETRIES = 2
"""How often a manifest is tried again whose servers do not answer."""

_LOOKED_AT = 100
"""Jobs, the newest, that are looked at for what a manifest gave."""


class PinInputsOperator(KaosOperator):
    """Take a workspace's current inputs and pin them in a new job, whose document it names as `job_digest`.

    A manifest's files are asked for what has changed, and their data is pinned too. Run again, by whomever,
    for the same Airflow run, it returns the same job. Where nothing has changed since the schedule's last
    success it is skipped, with all that follows.

    :param workspace: name of the workspace
    :param schedule: name of the schedule
    """

    template_fields: Sequence[str] = ("workspace", "schedule")
    stage: ClassVar[Stage] = Stage.INGESTING

    def __init__(self, *, workspace: str, schedule: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.workspace = workspace
        self.schedule = schedule
        self._fetch: Fetch | None = None

    def open(self, context: Context) -> tuple[JobDocument, WorkspaceCatalog]:
        """Return the job of this run, made if it is not there yet."""
        self._start = time.monotonic()
        workspace = Catalog(configured_store()).workspace(self.workspace)
        schedules, run_id = Schedules(workspace), str(context["ti"].run_id)
        now = datetime.now(UTC)
        pinned = schedules.pinned(self.schedule, run_id)
        if pinned is None:
            try:
                workspace.check_alive()
                tick = self._tick(workspace, schedules, context, now)
            except KaosError as error:
                schedules.note(
                    self.schedule, Tick(run_id=run_id, at=now, failed=True, reason=_line(error.message))
                )
                raise
            if tick.job_id is None:
                raise AirflowSkipException(tick.reason)
            pinned = schedules.pinned(self.schedule, run_id)
            if pinned is None:
                raise UnknownNameError("job of the run", run_id)
        self.job = pinned.job
        return workspace.job(pinned.job_id)[0], workspace

    def work(self, document: JobDocument, workspace: WorkspaceCatalog, context: Context) -> dict[str, Any]:
        """Return a `PinRecord`."""
        self.log.info("Job %s: code %s", document.job_id, workspace.shown(document.source))
        self.log.info("Data %s", workspace.shown(document.pinned_data))
        return small(
            PinRecord(
                job_digest=self.job,
                job_id=document.job_id,
                source=document.source.digest,
                data=document.pinned_data.digest,
                manifest=document.manifest.digest if document.manifest else None,
                params=document.params.digest if document.params else None,
                schedule=self.schedule,
                author=document.author,
                seconds=round(time.monotonic() - self._start, 3),
            )
        )

    def trace(self) -> Traced:
        """Return the inputs that were taken; none before, or where the run is skipped."""
        return super().trace() if self.job else Traced([])

    def on_kill(self) -> None:
        """End a download; what arrived is kept."""
        if self._fetch is not None:
            self._fetch.kill()

    def _tick(
        self, workspace: WorkspaceCatalog, schedules: Schedules, context: Context, now: datetime
    ) -> Tick:
        definition, schedule = self._definition(schedules)
        run_id, inputs = str(context["ti"].run_id), workspace.inputs()
        if inputs.source is None or inputs.lacking:
            reason = f"There is no {' and no '.join(inputs.lacking)} yet: kaos train deploy brings it."
            tick = Tick(run_id=run_id, at=now, reason=reason)
            schedules.note(self.schedule, tick)
            return tick
        resolved = self._resolved(workspace, inputs, run_id)
        data = resolved.data if resolved is not None else inputs.data
        document = self._document(context, schedule, inputs, inputs.source, data, now)
        tick = schedules.pin(definition.name, document, self._unless(schedule, context), now)
        if tick.job_id is not None and resolved is not None:
            workspace.resolve_manifest(tick.job_id, resolved)
        return tick

    def _definition(self, schedules: Schedules) -> tuple[Definition, Schedule]:
        for each in schedules.definitions():
            if each.name == self.schedule and each.schedule is not None:
                return each, each.schedule
        known = [each.name for each in schedules.definitions()]
        raise UnknownNameError("schedule", self.schedule, known, "See kaos train schedule list.")

    def _resolved(self, workspace: WorkspaceCatalog, inputs: Inputs, run_id: str) -> ResolvedManifest | None:
        """Return what the workspace's manifest gives now, or None if its data comes from a directory."""
        if inputs.manifest is None:
            return None
        self._fetch = Fetch(workspace, inputs.manifest, run=run_id, retries=_RETRIES, say=self.log.info)
        return self._fetch.fetch()[0]

    def _unless(self, schedule: Schedule, context: Context) -> Unless:
        """Return what keeps this run from becoming a job; an event that comes twice starts one, even if that
        failed."""
        if schedule.always:
            return Unless.NEVER
        by_event = context["dag_run"].run_type == "asset_triggered"
        return Unless.PINNED if by_event else Unless.SUCCEEDED

    def _document(
        self,
        context: Context,
        schedule: Schedule,
        inputs: Inputs,
        source: BundlePin,
        data: BundlePin | None,
        now: datetime,
    ) -> JobDocument:
        settings = schedule.job
        return JobDocument(
            job_id=new_job_id(),
            workspace=self.workspace,
            definition=self.schedule,
            dag_id=context["ti"].dag_id,
            run_id=context["ti"].run_id,
            source=source,
            data=data,
            manifest=inputs.manifest,
            params=inputs.params,
            parallelism=settings.parallelism,
            max_failed=settings.max_failed,
            retries=settings.retries,
            retry_errors=settings.retry_errors,
            reuse=settings.reuse,
            schedule=self.schedule,
            resources=settings.resources,
            runtime=settings.runtime or runtimes()[0],
            network=network_by_default() if settings.network is None else settings.network,
            author=schedule.author,
            submitted_at=now,
            kaos_version=__version__,
        )


class WatchDataOperator(BaseOperator):
    """Look whether the data of a workspace is other than what its asset has had an event for.

    A manifest's files are asked for what has changed. The outlet assets get an event where it is new data;
    else the task is skipped.

    :param workspace: name of the workspace (templated)
    """

    template_fields: Sequence[str] = ("workspace",)
    ui_color = "#e8f4f0"

    def __init__(self, *, workspace: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.workspace = workspace
        self._fetch: Fetch | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Return which data it is."""
        try:
            told = self._look(str(context["ti"].run_id))
        except KaosError as error:
            raise AirflowFailException(str(error)) from error
        for asset in self.outlets:
            context["outlet_events"][asset].extra = {"data": told.data}
        return {"data": told.data, "manifest": told.manifest}

    def on_kill(self) -> None:
        """End a download; what arrived is kept."""
        if self._fetch is not None:
            self._fetch.kill()

    def _look(self, run_id: str) -> Told:
        workspace = Catalog(configured_store()).workspace(self.workspace)
        workspace.check_alive()
        schedules, inputs = Schedules(workspace), workspace.inputs()
        if inputs.data is None and inputs.manifest is None:
            raise AirflowSkipException("There is no data yet.")
        found = Told.of(inputs).model_copy(update={"by": run_id})
        if inputs.manifest is not None:
            self._fetch = Fetch(workspace, inputs.manifest, run=run_id, retries=_RETRIES, say=self.log.info)
            found = found.model_copy(update={"data": self._fetch.fetch()[0].data.digest})
        before = schedules.told()
        if before is not None and before.same(found) and before.by != run_id:
            raise AirflowSkipException("The data has not changed.")
        schedules.tell(found)
        known = before is not None and before.data is None and before.manifest == found.manifest
        if known and found.data == last_given(workspace, found.manifest):
            raise AirflowSkipException("The data is what the last job of the manifest had.")
        return found


def last_given(workspace: WorkspaceCatalog, manifest: str | None) -> str | None:
    """Return the data that the newest job with this manifest had, or None if there is none yet."""
    for job_id in workspace.job_ids()[: -_LOOKED_AT - 1 : -1]:
        resolved = workspace.resolved(job_id)
        if resolved is not None and resolved.manifest == manifest:
            return resolved.data.digest
    return None


def _line(text: str) -> str:
    return text.partition("\n")[0]
