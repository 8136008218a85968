"""`kaos train reproduce`: make a model again, and say whether the same came out."""

from __future__ import annotations

import re

import click

from kaos.errors import InvalidInputError, JobFailedError, KaosError, NotReproducedError, UnknownNameError
from kaos.reproduction import Reproduction, Verdict
from kaos.schema.reproduction import ReproductionRequest
from kaos_cli import reproduction_output
from kaos_cli.client import connect
from kaos_cli.config import current_workspace, load_config
from kaos_cli.output import OutputOption, print_json, say
from kaos_cli.reproductions import ReproductionsClient
from kaos_cli.train_watch import wait_for_job


@click.command()
@click.option("-m", "--model-id", required=True, help="Id of the model, or a tag.")
@click.option("-j", "--job-id", help="Job that made it, if several did.  [default: the first one]")
@click.option("--tolerance", type=float, default=0.0, help="Metrics may differ by as much.  [default: 0]")
@click.option("--rebuild", is_flag=True, help="Build the environment anew, where the pinned one is gone.")
@click.option("--wait/--no-wait", default=True, help="Wait for the verdict, or only start.  [default: wait]")
@OutputOption
def reproduce(
    model_id: str, job_id: str | None, tolerance: float, rebuild: bool, wait: bool, output: str
) -> None:
    """Make a model again, of exactly what made it, and compare.

    Code, data, parameters and environment are those that the model's record pins; the workspace's current
    inputs stay what they are. Exit code 0: the same bytes, or metrics equal within the tolerance; 8: a
    different model came out.

    \b
    Example:
        kaos train reproduce -m e23a2_9fd9d:b82151
    """
    if not 0 <= tolerance < float("inf"):
        raise InvalidInputError(f"--tolerance is {tolerance}.", "Give a number from 0, such as 0.001.")
    if job_id is not None and not re.fullmatch("[0-9a-f]+", job_id):
        raise UnknownNameError("job", job_id, next_step="See kaos train list.")
    config = load_config()
    client = ReproductionsClient(connect(config).connection, current_workspace(config))
    request = ReproductionRequest(model=model_id, job_id=job_id, tolerance=tolerance, rebuild=rebuild)
    started = client.start(request)
    say(f"Reproducing {started.model_id} of job {started.original_job}, trial {started.trial}")
    say(f"Environment: {started.environment}")
    say(f"Job {started.job_id} started.")
    if not wait:
        if output == "json":
            print_json(started.model_dump(mode="json"))
        else:
            say(f"Its verdict will be in: kaos train info -j {started.job_id}")
        return
    failed = _wait(client, started.job_id)
    found = _verdict(client, started.job_id, failed)
    if output == "json":
        print_json(found.model_dump(mode="json"))
    else:
        reproduction_output.print_verdict(found)
    if found.verdict is Verdict.FAILED:
        raise failed or JobFailedError(f"Job {found.job_id} made no model: {found.reason}")
    if not found.verdict.reproduced:
        raise NotReproducedError(
            f"The model {found.model_id} was not reproduced.",
            f"What came out: {found.made_id}, kaos train get -j {found.job_id} -m",
        )


def _wait(client: ReproductionsClient, job_id: str) -> JobFailedError | None:
    """Wait for the end of the job; return why it failed."""
    try:
        wait_for_job(client, job_id)
    except JobFailedError as error:
        return error
    return None


def _verdict(client: ReproductionsClient, job_id: str, failed: JobFailedError | None) -> Reproduction:
    """Return the verdict; of a job that Airflow ended there may be none, and its failure says why."""
    try:
        return client.of_job(job_id)
    except KaosError as error:
        if failed is not None:
            raise failed from error
        raise
