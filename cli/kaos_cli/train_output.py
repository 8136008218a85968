"""The tables of `kaos train`, and the same as JSON."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from kaos.curves import show
from kaos.digest import SHORT
from kaos.errors import RemovedError
from kaos.job import JobState, Stage
from kaos.resources import Resources
from kaos.schema.deploy import DeployResponse
from kaos.schema.job import JobInfo, JobList, JobModel, JobRow, ModelRow
from kaos_cli.output import narrow, print_table, say, show_seconds, show_time

_WIDE = 108
_SHOWN_VALUES = 8
_SHORT_JOB = 14
_LIVE = 2
_TITLES = (Stage.BUILDING, Stage.INGESTING, Stage.TRAINING)


def print_inputs(response: DeployResponse) -> None:
    """Print the current inputs as the reference shows them."""
    image, image_name = _image(response)
    data = response.shown.get("data") or response.shown.get("manifest", "")
    click.echo("CURRENT TRAINING INPUTS\n")
    print_table(
        ["Image", "Data", "Hyperparams"],
        [[f"{image}\n{image_name}", f"{'✔' if data else '✗'}\n{data}", _hyperparams(response)]],
    )
    if response.space:
        click.echo("\nCURRENT HYPERPARAMETERS\n")
        print_table(list(response.space), [[_values(value) for value in response.space.values()]])


def _hyperparams(response: DeployResponse) -> str:
    pin = response.inputs.params
    return f"✔\n/{pin.name}:{pin.digest[:SHORT]} ({pin.trials} trials)" if pin else "✗\n"


def _values(value: Any) -> str:
    if isinstance(value, dict):
        scale = ", logarithmic" if value["log"] else ""
        return f"{value['min']:g} to {value['max']:g}{scale}"
    shown = ", ".join(map(str, value[:_SHOWN_VALUES]))
    return f"{shown}, … ({len(value)} values)" if len(value) > _SHOWN_VALUES else shown


def deploy_json(response: DeployResponse) -> dict[str, Any]:
    """Return the current inputs for programs."""
    return {
        "job_id": response.job_id,
        "image": response.image,
        "source": response.shown.get("source"),
        "source_digest": response.inputs.source.digest if response.inputs.source else None,
        "data": response.shown.get("data"),
        "data_digest": response.inputs.data.digest if response.inputs.data else None,
        "manifest": response.shown.get("manifest"),
        "manifest_digest": response.inputs.manifest.digest if response.inputs.manifest else None,
        "hyperparams": response.space,
    }


def order(jobs: JobList) -> list[JobRow]:
    """Return the jobs in the order in which they are printed, table by table."""
    return [job for title in _TITLES for job in jobs.jobs if job.stage is title]


def print_jobs(jobs: Sequence[JobRow], total: int) -> None:
    """Print a table per stage that has jobs; rows are numbered through."""
    if not jobs:
        say("There is no job yet. Start one: kaos train deploy -s SOURCE -d DATA")
    rows = [_narrow(row) if narrow(_WIDE) else row for row in jobs_json(jobs)]
    for title in _TITLES:
        found = [row for row in rows if row["stage"] == title]
        if found:
            columns = [name for name in found[0] if name != "stage"]
            columns.remove("progress")
            print_table(columns, [[row[name] for name in columns] for row in found], title=title)
            for row in found:
                if row["progress"]:
                    click.echo(f"{row['ind']}: {row['progress']['shown']}")
    if total > len(jobs):
        say(f"{len(jobs)} of {total} jobs; more with -n.")


def _narrow(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row for 80 columns: the beginning of the id, which `-j` takes too, and a short time."""
    day = row["started"].partition(", ")[2]
    return {**row, "job_id": row["job_id"][:_SHORT_JOB], "started": f"{day[:6]} {day[12:20]}" if day else ""}


def jobs_json(jobs: Sequence[JobRow]) -> list[dict[str, Any]]:
    """Return the rows of the tables for programs."""
    return [
        {
            "ind": index,
            "duration": None if job.duration is None else round(job.duration),
            "hyperopt": job.hyperopt,
            "job_id": job.job_id,
            "started": show_time(job.started),
            "state": str(job.state),
            "stage": str(job.stage),
            "progress": job.progress.model_dump(mode="json") if job.progress else None,
        }
        for index, job in enumerate(jobs)
    ]


def print_info(job: JobInfo, metric: str | None, url: str) -> None:
    """Print a job as the reference shows it."""
    click.echo()
    click.echo(f"    Job ID: {job.job_id}")
    click.echo(f"    Process time: {show_seconds(job.process_time)}s")
    click.echo(f"    State: {job.state}")
    if job.schedule is not None:
        click.echo(f"    Triggered by: schedule {job.schedule}, which {job.author} made")
    if job.promotion:
        click.echo(f"    Promotion: {job.promotion}")
    if job.reason:
        click.echo(f"    Reason: {job.reason.replace(chr(10), ' ')}")
    if job.manifest is not None:
        click.echo(f"    Data manifest: {job.manifest_shown}, {job.manifest.digest}")
        click.echo(f"    Data: {_downloaded(job)}")
    click.echo(f"    Available metrics: {job.metrics}")
    click.echo(
        f"    Resources: {job.resources.show()}, runtime {job.runtime}"
        + (f" ({job.limits})" if job.limits and job.resources != Resources() else "")
    )
    if job.image is not None:
        name = f"build-train-{job.models[0].source.name}:{job.image.id[:SHORT]}"
        pushed = f", pushed as {job.image.digest[:19]}" if job.image.digest else ""
        click.echo(f"    Image: {name} ({job.image.engine}{pushed})")
    if job.reproduces is not None:
        verdict = job.reproduction.shown if job.reproduction else "no verdict yet"
        click.echo(f"    Reproduces: {job.reproduces}, {verdict}")
    click.echo(f"    Airflow: {url}{job.url}")
    click.echo()
    click.echo(f"    Page count: {job.pages}")
    click.echo(f"    Page ID: {job.page}")
    rows = [_info_row(index, job, model, metric) for index, model in enumerate(job.models)]
    if narrow(_WIDE):
        rows = [_narrow_info(row) for row in rows]
        if not any(model.hyperparams for model in job.models):
            rows = [{name: cell for name, cell in row.items() if name != "Hyperparams"} for row in rows]
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    for removed in sorted({model.removed for model in job.models if model.removed}):
        number = sum(model.removed == removed for model in job.models)
        say(f"{number} model{' was' if number == 1 else 's were'} {removed}.")


def _downloaded(job: JobInfo) -> str:
    if job.data is not None:
        return f"{job.data_shown}, {job.data.digest}"
    return job.progress.shown if job.progress else "not downloaded"


def info_json(job: JobInfo) -> dict[str, Any]:
    """Return a job for programs."""
    document = job.model_dump(mode="json", exclude={"models"})
    document["started"] = show_time(job.started)
    document["models"] = [
        {
            "ind": job.page * 10 + index,
            "code": model.source_shown,
            "data": model.data_shown,
            "model_id": model.model_id,
            "hyperparams": model.hyperparams,
            "score": model.score,
            "state": str(model.state),
            "reason": model.reason,
            "source_digest": model.source.digest,
            "data_digest": model.data.digest if model.data else None,
            "model_digest": model.digest,
            "metrics": model.metrics,
            "reused_from": model.reused_from,
            "removed": model.removed or None,
            "step": model.step,
            "reproductions": [each.model_dump(mode="json") for each in model.reproductions],
        }
        for index, model in enumerate(job.models)
    ]
    return document


def removed(model: JobModel) -> RemovedError:
    """Return the error for a model of a job that retention has removed."""
    return RemovedError(
        f"model {model.model_id}",
        model.removed,
        "Its records are left: kaos train info. The same training on the same inputs makes it again.",
    )


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a new directory in the place of the one that may be there."""
    if not path.exists():
        write(path)
        return
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    try:
        write(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old)


def _image(response: DeployResponse) -> tuple[str, str]:
    source = response.inputs.source
    if source is None:
        return "✗", ""
    if response.image is None:
        return "⨂", "<building>"
    return "✔", f"build-train-{source.name}:{response.image[:SHORT]}"


def _info_row(index: int, job: JobInfo, model: ModelRow, metric: str | None) -> dict[str, Any]:
    params = f"Path: {model.params_shown}" if model.params_shown else ""
    row = {
        "ind": job.page * 10 + index,
        "Code": f"Author: {model.source.author}\nPath: {model.source_shown}",
        "Data": f"Author: {_author(job, model)}\nPath: {model.data_shown}",
        "Model ID": _model(model),
        "Hyperparams": params or "None",
    }
    if metric:
        row["Score"] = "" if model.score is None else f"{model.score:.6g}"
    return row


def _author(job: JobInfo, model: ModelRow) -> str:
    pin = model.data or job.manifest
    return pin.author if pin else ""


def _model(model: ModelRow) -> str:
    """Return a model's id, or what there is to say of a trial without one."""
    if model.model_id is not None:
        taken_over = f"\nfrom job {model.reused_from[:_SHORT_JOB]}" if model.reused_from else ""
        removed = f"\nremoved {model.removed.partition(' on ')[2][5:16]}" if model.removed else ""
        return f"{model.model_id}{taken_over}{_reproduced(model)}{removed}"
    if model.state is JobState.RUNNING and model.metrics:
        return f"{model.state}\n{show(model.step, model.metrics, most=_LIVE)}"
    return f"{model.state}\n{model.reason}".strip()


def _reproduced(model: ModelRow) -> str:
    """Return how often a model was made again, with which verdicts."""
    verdicts = Counter(str(each.verdict) for each in model.reproductions)
    shown = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    return f"\nmade again: {shown}" if shown else ""


def _narrow_info(row: dict[str, Any]) -> dict[str, Any]:
    bare = {
        name: row[name].replace("Author: ", "").replace("Path: ", "")
        for name in ("Code", "Data", "Hyperparams")
    }
    return {**row, **bare}
