"""`kaos serve`: a model behind a stable URL; replaced, turned back and ended."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from kaos.errors import AlreadyExistsError
from kaos.names import check_endpoint
from kaos.resources import Resources, parse_size
from kaos.schema.endpoint import EndpointDeploy, EndpointDeployed
from kaos_cli import serve_output
from kaos_cli.client import connect
from kaos_cli.commands.provenance import provenance_of_endpoint
from kaos_cli.config import Config, current_workspace, load_config, remember_rows
from kaos_cli.endpoints import EndpointsClient
from kaos_cli.options import EndpointOptions, RevisionOption, ServiceOptions, chosen_endpoint
from kaos_cli.output import OutputOption, done, print_json, progress_bar, say

_LIST = "kaos serve list"


@click.group()
def serve() -> None:
    """Serve models behind stable URLs."""


serve.add_command(provenance_of_endpoint)


@serve.command()
@click.option(
    "-s", "--source", type=click.Path(path_type=Path), required=True, help="Directory of the source bundle."
)
@click.option("-m", "--model-id", help="Model to lay beside the code, as kaos train info shows it.")
@click.option("-n", "--name", help="Of the endpoint; one that is there gets a new revision.")
@ServiceOptions
@OutputOption
def deploy(source: Path, model_id: str | None, name: str | None, output: str, **settings: Any) -> None:
    """Make a live endpoint of code and a model.

    \b
    Example:
        kaos serve deploy -s templates/mnist/model-serve -m e23a2_9fd9d:b82151
    """
    _deploy(EndpointDeploy(name=name, model_id=model_id), source, output, settings)


@serve.command()
@click.option("-e", "--endpoint", required=True, help="Name of the endpoint.")
@click.option("-s", "--source", type=click.Path(path_type=Path), help="Directory of other code.")
@click.option("-m", "--model-id", help="Another model.")
@ServiceOptions
@OutputOption
def update(endpoint: str, source: Path | None, model_id: str | None, output: str, **settings: Any) -> None:
    """Replace what an endpoint serves.

    What is left out stays as it is. The new revision is started beside the present one and probed; only
    then it takes the traffic.

    \b
    Example:
        kaos serve update -e serve-mnist-ae6466 -m e23a2_80a5c:592600
    """
    _deploy(EndpointDeploy(name=endpoint, model_id=model_id, update=True), source, output, settings)


@serve.command("list")
@OutputOption
def list_endpoints(output: str) -> None:
    """List the endpoints with the state of each.

    \b
    Example:
        kaos serve list
    """
    config = load_config()
    client = _client(config)
    rows = client.list().endpoints
    remember_rows(config, _listing(client), [each.name for each in rows])
    if output == "json":
        print_json(serve_output.endpoints_json(rows))
    else:
        serve_output.print_endpoints(rows)


@serve.command()
@EndpointOptions
@OutputOption
def info(ind: int | None, endpoint: str | None, output: str) -> None:
    """Show an endpoint, its traffic and its revisions.

    \b
    Example:
        kaos serve info -i 0
    """
    config = load_config()
    client = _client(config)
    found = client.get(_name(config, client, ind, endpoint))
    if output == "json":
        print_json(found.model_dump(mode="json"))
    else:
        serve_output.print_info(found, config.url)


@serve.command()
@EndpointOptions
@RevisionOption
@click.option(
    "-o",
    "--out-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Where to write; here by default.",
)
@click.option("-f", "--force", is_flag=True, help="Replace what is there.")
def get(ind: int | None, endpoint: str | None, revision: int | None, out_dir: Path, force: bool) -> None:
    """Get an endpoint's code and model back.

    The model's files are beside the code. It is written to WORKSPACE/ENDPOINT/code below the directory,
    ready to be deployed again.

    \b
    Example:
        kaos serve get -i 0
    """
    from kaos_cli.train_output import replace
    from kaos_cli.transfer import download

    config = load_config()
    client = _client(config)
    name = _name(config, client, ind, endpoint)
    content = client.content(name, revision)
    workspace = client.workspace_name
    path = out_dir / workspace / name / "code" / content.directory
    if path.exists() and not force:
        raise AlreadyExistsError(
            f"{path} is there already.", "Replace it with -f, or write elsewhere with -o DIR."
        )
    say(f"Extracting serve bundle: /{workspace}/{name}")
    with progress_bar("Extracting serve bundle", content.source.size) as progress:
        fetch = partial(download, client.workspace(workspace), content.source.digest, progress=progress)
        replace(path, fetch)
    click.echo(path)


@serve.command()
@EndpointOptions
@RevisionOption
@click.option("--follow", is_flag=True, help="Go on until the endpoint is killed.")
def logs(ind: int | None, endpoint: str | None, revision: int | None, follow: bool) -> None:
    """Print what an endpoint printed, before its last restarts too.

    \b
    Example:
        kaos serve logs -i 0 --follow
    """
    config = load_config()
    client = _client(config)
    name = _name(config, client, ind, endpoint)
    serve_output.follow_log(client, name, "logs", revision, follow=follow)


@serve.command("build-logs")
@EndpointOptions
@RevisionOption
@click.option("--follow", is_flag=True, help="Go on until the build ends.")
def build_logs(ind: int | None, endpoint: str | None, revision: int | None, follow: bool) -> None:
    """Print the log of the environment's build.

    \b
    Example:
        kaos serve build-logs -i 0
    """
    config = load_config()
    client = _client(config)
    name = _name(config, client, ind, endpoint)
    serve_output.follow_log(client, name, "build-logs", revision, follow=follow)


@serve.command()
@EndpointOptions
@OutputOption
def rollback(ind: int | None, endpoint: str | None, output: str) -> None:
    """Return to the previous revision.

    While there is a canary, its traffic is taken away.

    \b
    Example:
        kaos serve rollback -e serve-mnist-ae6466
    """
    config = load_config()
    client = _client(config)
    name = _name(config, client, ind, endpoint)
    turned = client.roll_back(name)
    if turned.waiting:
        say(f"Revision {turned.revision} does not run any more: starting it again")
        serve_output.wait_until_back(client, name, turned.revision)
    if output == "json":
        print_json({"name": name, "revision": turned.revision})
    else:
        say(f"Successfully rolled {name} back to revision {turned.revision}")


@serve.command()
@EndpointOptions
@OutputOption
def promote(ind: int | None, endpoint: str | None, output: str) -> None:
    """Give the canary all of the traffic.

    \b
    Example:
        kaos serve promote -e serve-mnist-ae6466
    """
    config = load_config()
    client = _client(config)
    name = _name(config, client, ind, endpoint)
    turned = client.promote(name)
    if output == "json":
        print_json({"name": name, "revision": turned.revision})
    else:
        say(f"Successfully promoted revision {turned.revision} of {name}")


@serve.command()
@EndpointOptions
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def kill(ind: int | None, endpoint: str | None, yes: bool) -> None:
    """End an endpoint with all its revisions; their records stay.

    \b
    Example:
        kaos serve kill -i 0
    """
    config = load_config()
    client = _client(config)
    name = _name(config, client, ind, endpoint)
    if not yes:
        click.confirm(f"Kill endpoint {name}? Its URL answers no more", abort=True, err=True)
    client.kill(name)
    say(f"Successfully killed endpoint {name}")


@serve.command()
@EndpointOptions
@click.option("-d", "--data", required=True, help="@FILE, @- for standard input, or the text itself.")
@click.option("--content-type", help="Of the data; by default what the file's suffix says.")
@click.option(
    "--token-file", type=click.Path(path_type=Path), help="File with the token; - for standard input."
)
def predict(
    ind: int | None, endpoint: str | None, data: str, content_type: str | None, token_file: Path | None
) -> None:
    """Send a request to an endpoint and print its answer.

    \b
    Example:
        kaos serve predict -i 0 -d @templates/mnist/model-serve/mnist/test_payload.jpg
    """
    from kaos_cli.predict import predict as ask
    from kaos_cli.predict import read_data, read_token

    config = load_config()
    client = _client(config)
    body, kind = read_data(data)
    found = client.get(_name(config, client, ind, endpoint))
    answer = ask(found.url, body, content_type or kind, read_token(token_file))
    sys.stdout.buffer.write(answer if answer.endswith(b"\n") else answer + b"\n")


def _deploy(request: EndpointDeploy, source: Path | None, output: str, settings: dict[str, Any]) -> None:
    if request.name is not None:
        check_endpoint(request.name)
    resources = Resources.parse(settings["cpu"], settings["memory"], settings["gpu"])
    request = request.model_copy(
        update={
            "resources": resources if resources != Resources() else None,
            "workers": settings["workers"],
            "canary": settings["canary"],
            "limits": _limits(settings),
            "runtime": settings["runtime"],
            "no_cache": settings["no_cache"],
            "auth": settings["auth"],
        }
    )
    config = load_config()
    client = _client(config)
    deployed = _submit(client, source, request)
    if output == "json":
        print_json(deployed.model_dump(mode="json"))
    else:
        click.echo(f"Endpoint {deployed.name}, revision {deployed.revision}: {deployed.url}")
        if deployed.token is not None:
            click.echo(f"  token     {deployed.token}")
            say("This is shown only once. Send it as: Authorization: Bearer TOKEN")
    if settings["wait"]:
        revision = serve_output.wait_for_revision(client, deployed.name, deployed.revision)
        say(f"{revision.state}: {deployed.url}")
    elif output != "json":
        say(f"Watch it: {_LIST}, kaos serve logs -e {deployed.name} --follow")


def _limits(settings: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {
        name: settings[name]
        for name in ("timeout", "start_timeout", "keep_warm")
        if settings[name] is not None
    }
    if settings["max_body"] is not None:
        found["max_body"] = parse_size(settings["max_body"], "--max-body")
    return found


def _submit(client: EndpointsClient, source: Path | None, request: EndpointDeploy) -> EndpointDeployed:
    from kaos.source import SERVE_SCRIPT, check_source
    from kaos.transfer.scan import walk
    from kaos_cli.transfer import scan_directory, submit, target_of

    workspace = client.workspace(client.workspace_name)
    digest, size = None, 0
    if source is not None:
        walked = walk(source)
        check_source(walked.outline, SERVE_SCRIPT)
        target = target_of(workspace)
        say(f"Submitting source bundle: {source}")
        with progress_bar("Compressing source bundle", walked.size) as progress:
            scanned = scan_directory(walked, target, progress)
            bundle = submit(workspace, "source", scanned, target, lambda _: None, purpose="serve")
        for warning in scanned.warnings:
            say(f"Warning: {warning}")
        digest, size = bundle.pin.digest, walked.size
    request = request.model_copy(update={"source": digest})
    if request.model_id is None:
        deployed = client.deploy(request)
    else:
        # The server lays the model's files beside the code; nothing of them travels.
        deployed = client.deploy(request)
        done(f"Adding trained model_id: {request.model_id}")
        with progress_bar(" Compressing Source Bundle", size):
            pass
    done(f"Setting source bundle: {deployed.shown}")
    say()
    return deployed


def _client(config: Config) -> EndpointsClient:
    return EndpointsClient(connect(config).connection, current_workspace(config))


def _name(config: Config, client: EndpointsClient, ind: int | None, endpoint: str | None) -> str:
    return chosen_endpoint(config, client.workspace_name, ind, endpoint)


def _listing(client: EndpointsClient) -> str:
    return f"{client.workspace_name} serve"
