"""`kaos up`, `down`, `status`, `logs` and `user`: the server on this machine."""

from __future__ import annotations

import click

from kaos_cli.output import OutputOption, print_table


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the UI and the API.  [default: 8080]")
@click.option("--host", help="Address to listen on; any but loopback is open to the network, without TLS.")
@click.option("--registry", help="Host and repository that images are pushed to; '' for none.")
@click.option(
    "--gateway-port",
    type=click.IntRange(1, 65535),
    help="Port of the endpoints.  [default: the next free one]",
)
def up(port: int | None, host: str | None, registry: str | None, gateway_port: int | None) -> None:
    """Start the local server.

    Airflow and PostgreSQL on this machine, kept alive. State is under KAOS_HOME (~/.kaos). A second `kaos up`
    finds the first. Later starts take the options of the last one.

    \b
    Example:
        kaos up --port 9000
    """
    from kaos_cli.server.layout import Layout
    from kaos_cli.server.postgres import Database
    from kaos_cli.server.progress import Progress
    from kaos_cli.server.start import up as start

    layout = Layout.current()
    with Progress() as progress:
        instance, was_running = start(layout, host, port, progress, registry, gateway_port)
        seconds = progress.seconds
    database = Database.of(layout, instance)
    if database.user is not None and not was_running:
        click.echo(
            f"PostgreSQL does not run as root: it runs as user {database.user.pw_name}, "
            f"its data is in {database.folder}.",
            err=True,
        )
    if instance.host not in ("127.0.0.1", "localhost", "::1"):
        click.echo("This server is open to the network, and passwords travel unencrypted.", err=True)
    name, user = instance.owner
    click.echo("kaos was running already." if was_running else f"kaos is up, after {seconds:.0f} s.")
    click.echo(f"  UI        {instance.url}")
    click.echo(f"  user      {name}")
    click.echo(f"  password  {user.password}")
    click.echo(f"  state     {layout.home}")
    click.echo(f"  endpoints {instance.gateway_url}")
    click.echo("Stop it with: kaos down")


@click.command()
@click.option("--purge", is_flag=True, help="Also delete all its state: database, bundles, models, logs.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before deleting.")
def down(purge: bool, yes: bool) -> None:
    """Stop the local server.

    Its jobs end too, and no process is left. A later `kaos up` goes on with the same state.

    \b
    Example:
        kaos down
    """
    from kaos_cli.server.instance import load
    from kaos_cli.server.layout import Layout
    from kaos_cli.server.prepare import ensure_installed
    from kaos_cli.server.progress import Progress
    from kaos_cli.server.stop import down as stop
    from kaos_cli.server.stop import purge as delete

    layout = Layout.current()
    instance = load(layout)
    if instance is None:
        click.echo("Nothing runs here.")
        return
    ensure_installed()
    if purge and not yes:
        click.confirm(f"Delete every bundle, model and run of {layout.home}?", abort=True, err=True)
    with Progress() as progress:
        stopped = stop(layout, progress)
    click.echo(f"Stopped {', '.join(stopped)}." if stopped else "Nothing runs here.")
    if purge:
        delete(layout, instance)
        click.echo(f"Deleted the state of {layout.home}.")


@click.command()
@OutputOption
def status(output: str) -> None:
    """Show the processes of the local server.

    The exit code is 0 if all of them do their work, otherwise 1.

    \b
    Example:
        kaos status -o json
    """
    import dataclasses
    import json

    from kaos_cli.server.instance import load
    from kaos_cli.server.layout import Layout
    from kaos_cli.server.prepare import ensure_installed
    from kaos_cli.server.status import observe

    layout = Layout.current()
    instance = load(layout)
    if instance is not None:
        ensure_installed()
    rows = observe(layout, instance) if instance else []
    ill = [row for row in rows if row.state != "ready"]
    healthy, running = bool(rows) and not ill, any(row.pid for row in rows)
    url = instance.url if instance and running else None
    if output == "json":
        found = {"url": url, "healthy": healthy, "home": str(layout.home)}
        click.echo(json.dumps({**found, "processes": [dataclasses.asdict(row) for row in rows]}))
    elif running:
        cells = [(row.name, row.state, row.pid, _duration(row.uptime)) for row in rows]
        print_table(["process", "state", "pid", "uptime"], cells, title=url or "")
    if not running:
        click.echo("The server does not run. Start it with: kaos up", err=True)
    else:
        for row in ill:
            click.echo(f"{row.name} is {row.state}; its log: {row.log}", err=True)
    if not healthy:
        raise SystemExit(1)


def _duration(seconds: int | None) -> str:
    if seconds is None:
        return ""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


@click.command()
@click.argument("component", required=False)
@click.option("-f", "--follow", is_flag=True, help="Show new lines as they are written.")
@click.option("-n", "--lines", type=click.IntRange(0), default=50, show_default=True, help="From the end.")
def logs(component: str | None, follow: bool, lines: int) -> None:
    """Show the logs of the local server.

    COMPONENT is postgres, api-server, scheduler, dag-processor, triggerer, gateway, keeper, guard or
    supervisord; without it, all are shown.

    \b
    Example:
        kaos logs scheduler --follow
    """
    from kaos.errors import UnknownNameError
    from kaos_cli.server.layout import LOGS, Layout
    from kaos_cli.server.logs import follow as follow_files
    from kaos_cli.server.logs import tail

    if component is not None and component not in LOGS:
        raise UnknownNameError("component", component, LOGS, f"Components: {', '.join(LOGS)}.")
    names = [component] if component else list(LOGS)
    paths = {name: Layout.current().log(name) for name in names}
    if not any(path.exists() for path in paths.values()):
        click.echo("No log yet. Start the server with: kaos up", err=True)
    width = max(map(len, names)) if len(names) > 1 else 0

    def show(name: str, line: str) -> None:
        click.echo(f"{name:{width}} | {line}" if width else line)

    for name, path in paths.items():
        for line in tail(path, lines):
            show(name, line)
    if follow:
        try:
            for name, line in follow_files(paths):
                show(name, line)
        except KeyboardInterrupt:
            return


@click.group()
def user() -> None:
    """Manage the users of the local server."""


@user.command("create")
@click.option("-n", "--name", required=True, help="Name to log in with.")
@click.option(
    "--role",
    type=click.Choice(["viewer", "user", "op", "admin"]),
    default="user",
    show_default=True,
    help="Airflow's role: read only, run jobs, also connections and variables, everything.",
)
def create(name: str, role: str) -> None:
    """Add a user; prints a random password, this once.

    A server that runs restarts its API server for it, which takes a few seconds and harms no job.

    \b
    Example:
        kaos user create -n ada --role user
    """
    from kaos_cli.server.layout import Layout
    from kaos_cli.server.prepare import ensure_installed
    from kaos_cli.server.progress import Progress
    from kaos_cli.server.users import create_user

    ensure_installed()
    with Progress() as progress:
        made = create_user(Layout.current(), name, role, progress)
    click.echo(f"  user      {name}")
    click.echo(f"  role      {role}")
    click.echo(f"  password  {made.password}")


@user.command("list")
@OutputOption
def list_users(output: str) -> None:
    """List those who may log in, with their roles.

    \b
    Example:
        kaos user list
    """
    import json

    from kaos_cli.server.instance import load
    from kaos_cli.server.layout import Layout

    instance = load(Layout.current())
    users = [{"name": name, "role": one.role} for name, one in (instance.users if instance else {}).items()]
    if output == "json":
        click.echo(json.dumps(users))
        return
    print_table(["name", "role"], [(one["name"], one["role"]) for one in users], title="USERS")
