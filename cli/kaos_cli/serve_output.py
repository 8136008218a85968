"""What `kaos serve` shows: tables as the reference has them, and the same as JSON."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from kaos.endpoint import EndpointState
from kaos.errors import JobFailedError
from kaos.resources import Resources, show_memory
from kaos.schema.endpoint import EndpointInfo, EndpointRow, RevisionInfo, TrafficShown
from kaos_cli.endpoints import EndpointsClient
from kaos_cli.output import done, narrow, print_table, say, show_time

_WIDE = 132
_INTERVAL = 0.2
_GONE = ("failed", "upstream_failed", "skipped")


def endpoints_json(rows: Sequence[EndpointRow]) -> list[dict[str, Any]]:
    """Return the rows of the list for programs."""
    return [
        {
            "ind": index,
            "created_at": show_time(row.created_at),
            "name": row.name,
            "state": str(row.state),
            "url": row.url,
            "user": row.user,
            "reason": row.reason,
        }
        for index, row in enumerate(rows)
    ]


def print_endpoints(rows: Sequence[EndpointRow]) -> None:
    """Print the endpoints as the reference shows them."""
    if not rows:
        say("There is no endpoint yet. Deploy one: kaos serve deploy -s SOURCE -m MODEL_ID")
        return
    columns = ["ind", "created_at", "name", "state", "url", "user"]
    if narrow(_WIDE):
        columns = ["ind", "name", "state", "user"]
    shown = [{**row, "url": short_url(str(row["url"]))} for row in endpoints_json(rows)]
    print_table(columns, [[row[name] for name in columns] for row in shown], title="RUNNING")
    if narrow(_WIDE):
        for row in shown:
            say(f"  {row['url']}")
    for each in rows:
        if each.reason:
            say(f"{each.name}: {each.reason}")


def short_url(url: str) -> str:
    """Return an address as the list shows it: ``localhost:8081/serve-mnist-ae6466/invocations``."""
    return url.removeprefix("http://").replace("127.0.0.1:", "localhost:")


def print_info(info: EndpointInfo, url: str) -> None:
    """Print an endpoint with its revisions."""
    click.echo()
    click.echo(f"    Name: {info.name}")
    click.echo(f"    State: {info.state}")
    if info.reason:
        click.echo(f"    Reason: {info.reason}")
    click.echo(f"    URL: {info.url}")
    click.echo(f"    Token: {'wanted' if info.auth else 'none'}")
    click.echo(f"    Created: {show_time(info.created_at)} by {info.created_by}")
    click.echo(f"    Traffic: {_traffic(info.traffic)}")
    serving = next((each for each in info.revisions if each.revision == info.current), None)
    if serving is not None:
        limits = serving.limits
        click.echo(
            f"    Limits: {show_memory(limits.max_body)} a request, {limits.timeout:g} s,"
            f" warm for {limits.keep_warm:g} s after a swap"
        )
        image = f", {serving.image.name}" if serving.image is not None else ""
        click.echo(f"    Runtime: {serving.runtime}{image}")
        if serving.resources != Resources():
            click.echo(f"    Resources: {serving.resources.show()} ({serving.applied})")
        click.echo(f"    Airflow: {url}{serving.url}")
    click.echo()
    columns = ["revision", "state", "share", "code", "model_id", "requests", "errors", "p50", "p99", "user"]
    if narrow(_WIDE):
        columns = ["revision", "state", "share", "model_id", "requests", "p99"]
    rows = [_revision_row(each) for each in info.revisions]
    print_table(columns, [[row[name] for name in columns] for row in rows])
    for each in info.revisions:
        if each.reason and each.reason != info.reason:
            say(f"Revision {each.revision}: {each.reason}")


def _revision_row(each: RevisionInfo) -> dict[str, Any]:
    return {
        "revision": each.revision,
        "state": str(each.state),
        "share": f"{each.share}%" if each.share else "",
        "code": each.source_shown,
        "model_id": each.model.model_id if each.model else "None",
        "requests": each.traffic.requests,
        "errors": each.traffic.errors,
        "p50": show_milliseconds(each.traffic.p50),
        "p99": show_milliseconds(each.traffic.p99),
        "user": each.author,
    }


def _traffic(traffic: TrafficShown) -> str:
    if not traffic.requests:
        return "no request yet" + (f", {traffic.refused} refused" if traffic.refused else "")
    quantiles = ", ".join(
        f"{name} {show_milliseconds(value)}"
        for name, value in (("p50", traffic.p50), ("p90", traffic.p90), ("p99", traffic.p99))
    )
    return f"{traffic.requests} requests, {traffic.errors} errors, {traffic.refused} refused; {quantiles}"


def show_milliseconds(seconds: float | None) -> str:
    """Return a duration in milliseconds."""
    return "" if seconds is None else f"{seconds * 1000:.3g} ms"


def wait_for_revision(client: EndpointsClient, name: str, number: int) -> RevisionInfo:
    """Show the stages of a deploy as they pass, until the revision is routed or has failed.

    :raises JobFailedError: it failed
    """
    shown: set[str] = set()
    while True:
        revision = client.revision(name, number)
        for stage in client.stages(name, number):
            if stage.task_id in shown:
                continue
            if stage.state == "success":
                shown.add(stage.task_id)
                done(f"{stage.task_id:<12} {stage.seconds or 0:6.1f} s")
            elif stage.state in _GONE:
                shown.add(stage.task_id)
                say(f" ✗ {stage.task_id:<12} {stage.state}")
        killed = revision.state is EndpointState.STOPPED and revision.reason
        if revision.state is EndpointState.FAILURE or killed:
            raise JobFailedError(
                f"Revision {number} of {name} takes no traffic: {revision.reason}",
                f"See kaos serve logs -e {name} -r {number}, kaos serve build-logs -e {name} -r {number}.",
            )
        if revision.state is not EndpointState.STARTING and "register" in shown:
            return revision
        time.sleep(_INTERVAL)


def wait_until_back(client: EndpointsClient, name: str, number: int) -> None:
    """Wait until a revision has the traffic again.

    :raises JobFailedError: it does not start
    """
    while (info := client.get(name)).current != number:
        revision = next((each for each in info.revisions if each.revision == number), None)
        if revision is not None and revision.state is EndpointState.FAILURE:
            raise JobFailedError(
                f"Revision {number} of {name} does not start: {revision.reason}",
                "The present one stays until it does. A new deploy ends the attempts: kaos serve update.",
            )
        time.sleep(_INTERVAL)


def follow_log(client: EndpointsClient, name: str, kind: str, number: int | None, *, follow: bool) -> None:
    """Print the lines of a log; with `follow` until nothing more comes."""
    position = "" if kind == "logs" else "0"
    while True:
        chunk = client.logs(name, kind, number, position)
        for line in chunk.lines:
            click.echo(line)
        if chunk.ended or (not follow and not chunk.lines):
            return
        position = chunk.position
        if not chunk.lines:
            time.sleep(_INTERVAL)
