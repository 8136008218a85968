"""`kaos train`: deploy jobs, watch them, and get everything back."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kaos.errors import AlreadyExistsError, InvalidInputError, RemovedError, UnknownNameError
from kaos.resources import Resources
from kaos.schema.bundle import BundleKind
from kaos.schema.deploy import DeployRequest, DeployResponse, Parameters
from kaos_cli import train_compare, train_output, train_plot
from kaos_cli.client import WorkspaceClient, connect
from kaos_cli.commands.provenance import provenance_of_model
from kaos_cli.commands.reproduce import reproduce
from kaos_cli.commands.schedule import schedule
from kaos_cli.config import Config, current_workspace, load_config, remember_rows, row
from kaos_cli.options import JobOptions
from kaos_cli.output import OutputOption, done, print_json, progress_bar, say
from kaos_cli.train_watch import follow_log, wait_for_job

if TYPE_CHECKING:
    from kaos.transfer.scan import Scan

_LIST = "kaos train list"
_ATTEMPTS = 3


@click.group()
def train() -> None:
    """Train models, watch them, and get everything back."""


train.add_command(reproduce)
train.add_command(provenance_of_model)
train.add_command(schedule)


@train.command()
@click.option("-s", "--source", type=click.Path(path_type=Path), help="Directory of the source bundle.")
@click.option("-d", "--data", type=click.Path(path_type=Path), help="Directory of the data bundle.")
@click.option(
    "-m",
    "--manifest",
    type=click.Path(path_type=Path),
    help="Data manifest in the place of -d: a file, or a directory with one *.mf.",
)
@click.option("--refresh", is_flag=True, help="Download all files of the manifest, changed or not.")
@click.option(
    "-h", "--hyperparams", type=click.Path(path_type=Path), help="JSON file of values per hyperparameter."
)
@click.option("-p", "--parallelism", type=click.IntRange(1, 1000), help="Trials at a time, at most.")
@click.option("--samples", type=click.IntRange(1), help="Draw so many random trials instead of the grid.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random trials.")
@click.option("--max-failed", type=click.IntRange(0), help="Stop the job when more trials failed.")
@click.option(
    "--retries", type=click.IntRange(0, 100), default=0, help="Retry a trial that was lost or out of memory."
)
@click.option("--retry-errors", is_flag=True, help="Retry after an error of the script too.")
@click.option("--reuse", is_flag=True, help="Take over models that were made of the same before.")
@click.option("--no-hyperparams", is_flag=True, help="Drop the workspace's current hyperparameters.")
@click.option("--cpu", help="Cores, such as 0.5 or 2.")
@click.option("--memory", help="Memory with an SI suffix, such as 512Mi or 2G.")
@click.option("--gpu", help="Number of GPUs.")
@click.option("--runtime", help="Where it runs: process or container.  [default: the workspace's]")
@click.option("--network/--no-network", default=None, help="Let the script use the network, or not.")
@click.option("--no-cache", is_flag=True, help="Build the image anew, every layer of it.")
@click.option("--no-run", is_flag=True, help="Start no job: the next ones, also scheduled, take this.")
@click.option("--wait", is_flag=True, help="Wait for the job to end; exit with 1 if it fails.")
@OutputOption
def deploy(
    source: Path | None,
    data: Path | None,
    manifest: Path | None,
    refresh: bool,
    hyperparams: Path | None,
    parallelism: int | None,
    samples: int | None,
    seed: int,
    max_failed: int | None,
    retries: int,
    retry_errors: bool,
    reuse: bool,
    no_hyperparams: bool,
    cpu: str | None,
    memory: str | None,
    gpu: str | None,
    runtime: str | None,
    network: bool | None,
    no_cache: bool,
    no_run: bool,
    wait: bool,
    output: str,
) -> None:
    """Submit code and data, and train.

    What is left out is taken from the workspace's current inputs.

    \b
    Example:
        kaos train deploy -s templates/mnist/model-train -d templates/mnist/data
        kaos train deploy -m templates/mnist/data_manifest_mid
    """
    if no_run and wait:
        raise InvalidInputError("--no-run starts nothing to wait for.", "Give one of --no-run and --wait.")
    if data is not None and manifest is not None:
        raise InvalidInputError("A job has one data bundle.", "Give a directory, -d, or a manifest, -m.")
    request = DeployRequest(
        refresh=refresh,
        params=_parameters(hyperparams, samples, seed),
        no_params=no_hyperparams,
        parallelism=parallelism,
        max_failed=max_failed,
        retries=retries,
        retry_errors=retry_errors,
        reuse=reuse,
        runtime=runtime,
        network=network,
        no_cache=no_cache,
        run=not no_run,
        resources=Resources.parse(cpu, memory, gpu),
    )
    client = _workspace(load_config())
    response = _submit(client, source, data, manifest, request)
    if (
        source is None
        and data is None
        and manifest is None
        and request.params is None
        and response.job_id is not None
    ):
        say("Nothing new was submitted: this trains again on the current inputs.")
    if output == "json":
        print_json(train_output.deploy_json(response))
    else:
        train_output.print_inputs(response)
    if no_run:
        say("No job started: these are the inputs of the next one.")
    elif response.job_id is None:
        say(f"No job started: there is no {' and no '.join(response.inputs.lacking)} yet.")
    elif wait:
        wait_for_job(client, response.job_id)
    else:
        say(f"Job {response.job_id} started.")
        say(f"Watch it: kaos train list, kaos train logs -j {response.job_id} --follow")


@train.command("list")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, 10_000),
    default=30,
    show_default=True,
    help="How many, the newest.",
)
@OutputOption
def list_jobs(limit: int, output: str) -> None:
    """List the jobs of the workspace, the newest first.

    \b
    Example:
        kaos train list
    """
    config = load_config()
    client = _workspace(config)
    jobs = client.jobs(limit)
    ids = train_output.order(jobs)
    remember_rows(config, _listing(client), [job.job_id for job in ids])
    if output == "json":
        print_json(train_output.jobs_json(ids))
    else:
        train_output.print_jobs(ids, jobs.total)


@train.command()
@JobOptions
@click.option("-s", "--sort", help="Show this metric as Score, the highest first.")
@click.option("--ascending", is_flag=True, help="The lowest score first.")
@click.option("-p", "--page", type=click.IntRange(0), default=0, help="Page of ten models, from 0.")
@OutputOption
def info(
    ind: int | None, job_id: str | None, sort: str | None, ascending: bool, page: int, output: str
) -> None:
    """Show a job: state, metrics, and what made its models.

    \b
    Example:
        kaos train info -i 0
    """
    config = load_config()
    client = _workspace(config)
    found = client.job(_job(config, client, ind, job_id), metric=sort, ascending=ascending, page=page)
    if sort is not None and found.metrics and sort not in found.metrics:
        raise UnknownNameError("metric", sort, found.metrics, f"This job has {', '.join(found.metrics)}.")
    if page >= found.pages:
        raise InvalidInputError(f"There is no page {page}.", f"The last one is -p {found.pages - 1}.")
    if output == "json":
        print_json(train_output.info_json(found))
    else:
        train_output.print_info(found, sort, config.url)


@train.command()
@JobOptions
@click.option("--follow", is_flag=True, help="Go on until the job ends.")
def logs(ind: int | None, job_id: str | None, follow: bool) -> None:
    """Print what the script printed.

    \b
    Example:
        kaos train logs -i 0 --follow
    """
    config = load_config()
    client = _workspace(config)
    follow_log(client, _job(config, client, ind, job_id), "logs", follow=follow)


@train.command("build-logs")
@JobOptions
@click.option("--follow", is_flag=True, help="Go on until the build ends.")
def build_logs(ind: int | None, job_id: str | None, follow: bool) -> None:
    """Print the log of the environment's build.

    \b
    Example:
        kaos train build-logs -i 0
    """
    config = load_config()
    client = _workspace(config)
    follow_log(client, _job(config, client, ind, job_id), "build-logs", follow=follow)


@train.command()
@JobOptions
def kill(ind: int | None, job_id: str | None) -> None:
    """End a running job with all that it started.

    \b
    Example:
        kaos train kill -i 0
    """
    config = load_config()
    client = _workspace(config)
    killed = client.kill(_job(config, client, ind, job_id))
    say(f"Successfully killed job {killed.job_id}")


@train.command()
@JobOptions
@click.option("--failed", is_flag=True, help="Only the trials that failed.")
@click.option("--wait", is_flag=True, help="Wait for the job to end; exit with 1 if it fails.")
def rerun(ind: int | None, job_id: str | None, failed: bool, wait: bool) -> None:
    """Start a job on exactly the inputs of another.

    \b
    Example:
        kaos train rerun -i 0 --failed
    """
    config = load_config()
    client = _workspace(config)
    document = client.rerun(_job(config, client, ind, job_id), failed=failed)
    say(f"Job {document.job_id} started.")
    if wait:
        wait_for_job(client, document.job_id)


@train.command()
@click.option("-s", "--sort", required=True, help="The metric that decides.")
@click.option("--ascending", is_flag=True, help="The lowest is the best.")
@JobOptions
def best(ind: int | None, job_id: str | None, sort: str, ascending: bool) -> None:
    """Print the id of a job's best model.

    \b
    Example:
        kaos train best -i 0 -s accuracy_test
    """
    config = load_config()
    client = _workspace(config)
    summary = client.summary(_job(config, client, ind, job_id))
    click.echo(train_compare.best(summary, sort, ascending=ascending).model_id)


@train.command()
@click.option(
    "-i", "--ind", type=int, multiple=True, help="Row of the list that was printed last; repeat it."
)
@click.option("-j", "--job-id", multiple=True, help="Id of a job, or its beginning; repeat it.")
@click.option("-s", "--sort", help="Show this metric alone, the best model first.")
@click.option("--ascending", is_flag=True, help="The lowest score first.")
@click.option(
    "-o", "--output", type=click.Choice(["table", "json", "csv"]), default="table", help="How to print."
)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw instead: FILE.png, .svg or .pdf.")
def compare(
    ind: tuple[int, ...],
    job_id: tuple[str, ...],
    sort: str | None,
    ascending: bool,
    output: str,
    plot: Path | None,
) -> None:
    """Print the models of jobs side by side, or draw them.

    \b
    Example:
        kaos train compare -i 0 -i 1 -s accuracy_test
    """
    config = load_config()
    client = _workspace(config)
    ids = [_job(config, client, each, None) for each in ind] + [
        _job(config, client, None, each) for each in job_id
    ]
    if not ids:
        raise InvalidInputError("Which jobs?", "Give their rows of kaos train list, -i 0 -i 1, or their ids.")
    if plot is not None:
        train_plot.check(plot)
    jobs = [(each, client.summary(each)) for each in ids]
    if plot is not None:
        train_plot.plot(client, jobs, sort, plot, ascending=ascending)
        return
    train_compare.show(train_compare.rows(jobs, sort, ascending=ascending), output)


@train.command()
@JobOptions
def dag(ind: int | None, job_id: str | None) -> None:
    """Print the generated source that a job ran on.

    \b
    Example:
        kaos train dag -i 0
    """
    config = load_config()
    client = _workspace(config)
    click.echo(client.dag(_job(config, client, ind, job_id)).source, nl=False)


@train.command()
@JobOptions
@click.option("-c", "--code", is_flag=True, help="The source bundle.")
@click.option("-d", "--data", is_flag=True, help="The data bundle.")
@click.option("-m", "--model", is_flag=True, help="What the training wrote.")
@click.option(
    "-o",
    "--out-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Where to write; here by default.",
)
@click.option("-f", "--force", is_flag=True, help="Replace what is there.")
def get(
    ind: int | None, job_id: str | None, code: bool, data: bool, model: bool, out_dir: Path, force: bool
) -> None:
    """Get code, data and models of a job back.

    They are written to WORKSPACE/JOB_ID below the directory; all three unless you choose.

    \b
    Example:
        kaos train get -i 0 -c -d -m
    """
    from kaos_cli.transfer import download

    config = load_config()
    client = _workspace(config)
    job = client.job(_job(config, client, ind, job_id))
    content = client.content(job.job_id)
    top = out_dir / client.name / job.job_id
    everything = not (code or data or model)
    wanted: list[tuple[Path, str]] = []
    if code or everything:
        wanted.append((top / "code" / content.source_directory, content.source.digest))
    if content.data is not None and (data or everything):
        wanted.append((top / "data" / (content.data_directory or ""), content.data.digest))
    elif data:
        raise InvalidInputError(
            f"The data of job {job.job_id} is not downloaded ({job.state}).", "See kaos train info."
        )
    if model or everything:
        removed = [each for each in content.models if each.removed]
        if removed and len(removed) == len(content.models):
            raise train_output.removed(removed[0])
        for each in removed:
            say(f"Left out: {train_output.removed(each).message}")
        wanted += [
            (top / "models" / each.directory, each.digest) for each in content.models if not each.removed
        ]
    if model and not content.models:
        raise InvalidInputError(f"Job {job.job_id} has no model ({job.state}).", "See kaos train info.")
    for path, _ in wanted:
        if path.exists() and not force:
            raise AlreadyExistsError(
                f"{path} is there already.", "Replace it with -f, or write elsewhere with -o DIR."
            )
    say(f"Extracting train bundle: /{client.name}/{job.job_id}")
    with progress_bar(
        "Extracting train bundle", job_size(content.source.size, content.data.size if content.data else 0)
    ) as progress:
        for path, digest in wanted:
            train_output.replace(path, partial(download, client, digest, progress=progress))
    for path, _ in wanted:
        click.echo(path)


def job_size(*sizes: int) -> int:
    """Return the bytes that a bar counts to."""
    return sum(sizes)


def _parameters(path: Path | None, samples: int | None, seed: int) -> Parameters | None:
    from kaos.parameters import parse

    if path is None:
        if samples is not None:
            raise InvalidInputError("--samples needs hyperparameters.", "Give their file: -h FILE.")
        return None
    try:
        content = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}.", "Give a JSON file: -h FILE.") from error
    parse(content.encode(), samples=samples, seed=seed, most=sys.maxsize)  # before anything is sent
    return Parameters(name=path.name, content=content, samples=samples, seed=seed)


def _submit(
    client: WorkspaceClient,
    source: Path | None,
    data: Path | None,
    manifest: Path | None,
    request: DeployRequest,
) -> DeployResponse:
    from kaos.transfer.scan import walk
    from kaos_cli.transfer import check, scan_directory, submit, target_of

    read = _read_manifest(manifest)
    target = target_of(client)
    # Both directories are looked through before anything of either is sent.
    given_bundles: list[tuple[BundleKind, Path | None]] = [("source", source), ("data", data)]
    walks = [(kind, path, walk(path)) for kind, path in given_bundles if path is not None]
    for kind, _, walked in walks:
        check(walked, kind)
    digests: dict[BundleKind, str] = {}
    sent: list[tuple[BundleKind, Scan]] = []
    for kind, path, walked in walks:
        say(f"Submitting {kind} bundle: {path}")
        with progress_bar(f"Compressing {kind} bundle", walked.size) as progress:
            scanned = scan_directory(walked, target, progress)
            bundle = submit(client, kind, scanned, target, lambda _: None)
        for warning in scanned.warnings:
            say(f"Warning: {warning}")
        done(f"Setting {kind} bundle: {bundle.shown}")
        say()
        digests[kind] = bundle.pin.digest
        sent.append((kind, scanned))
    given: dict[str, str | None] = {"source": digests.get("source"), "data": digests.get("data")}
    if read is not None:
        say(f"Submitting data manifest: {manifest}")
        name, content = read
        with progress_bar("Compressing data manifest", len(content)):
            committed = client.commit_manifest(name, content)
        done(f"Setting data manifest: {committed.shown}")
        say()
        given["manifest"] = committed.pin.digest
    for _ in range(_ATTEMPTS - 1):
        try:
            return client.deploy(request.model_copy(update=given))
        except (UnknownNameError, RemovedError):
            # An old bundle that retention has removed since: nothing named it yet.
            for kind, scanned in sent:
                submit(client, kind, scanned, target, lambda _: None)
    return client.deploy(request.model_copy(update=given))


def _read_manifest(path: Path | None) -> tuple[str, bytes] | None:
    """Return the name and content of a manifest that can be used; nothing is sent of one that cannot."""
    if path is None:
        return None
    from kaos.manifest import parse
    from kaos.transfer.manifest_file import read_manifest

    name, content = read_manifest(path)
    parse(content)
    return name, content


def _workspace(config: Config) -> WorkspaceClient:
    return connect(config).workspace(current_workspace(config))


def _job(config: Config, client: WorkspaceClient, ind: int | None, job_id: str | None) -> str:
    if (ind is None) == (job_id is None):
        raise InvalidInputError("Which job?", "Give its row of kaos train list, -i 0, or its id, -j JOB_ID.")
    if job_id is not None and not re.fullmatch("[0-9a-f]+", job_id):  # "..", say, is no part of an address
        raise UnknownNameError("job", job_id, next_step="See kaos train list.")
    return job_id if job_id is not None else row(config, _listing(client), ind or 0, _LIST)


def _listing(client: WorkspaceClient) -> str:
    return f"{client.name} train"
