"""The configuration of Airflow in a local server: what was measured, and what the rest of kaos relies on."""

from __future__ import annotations

import configparser
import io
import json
import os
import sys
from urllib.parse import quote

from kaos_cli.server.files import private_folder, write_private
from kaos_cli.server.instance import Instance
from kaos_cli.server.layout import Layout

_HEADER = "# Written anew by every `kaos up`. Write your own into ../airflow.local.cfg.\n"


def contract(layout: Layout, instance: Instance) -> dict[str, str]:
    """Return what the plugin, the DAG bundle and the operators rely on, as environment variables."""
    return {
        "KAOS_HOME": str(layout.home),
        "AIRFLOW_HOME": str(layout.airflow),
        "AIRFLOW__KAOS__STORE": layout.store.as_uri(),
        "AIRFLOW__KAOS__WORK_DIR": str(layout.work),
        "AIRFLOW__KAOS__GATEWAY_SOCKETS": str(layout.run),
        "AIRFLOW__KAOS__GATEWAY_URL": instance.gateway_url,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    }


def environment(layout: Layout, instance: Instance) -> dict[str, str]:
    """Return the environment of every process: the user's, less what leads Airflow astray, and no secret.

    A stray AIRFLOW__DATABASE__SQL_ALCHEMY_CONN of the shell would point this server at another database.
    """
    foreign = ("AIRFLOW", "KAOS_JOB", "KAOS_COMPONENT", "SUPERVISOR_", "PYTHONDONTWRITEBYTECODE")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    proxied = inherited.get("NO_PROXY") or inherited.get("no_proxy")
    direct = ",".join(filter(None, [proxied, "127.0.0.1", "localhost", instance.reachable_host]))
    return {
        **inherited,
        **contract(layout, instance),
        "KAOS_INSTANCE": instance.id,
        "NO_PROXY": direct,
        "no_proxy": direct,
        # setproctitle otherwise overwrites the memory in which /proc shows KAOS_INSTANCE and KAOS_COMPONENT.
        "SPT_NOENV": "1",
    }


def airflow_settings(layout: Layout, instance: Instance, socket_folder: str) -> dict[str, dict[str, str]]:
    """Return our settings by section; the figures behind them are in docs/decisions/local-server.md."""
    users = ",".join(f"{name}:{user.role}" for name, user in instance.users.items())
    bundles = [
        {
            "name": "kaos",
            "classpath": "kaos_dags.dag_bundle.KaosDagBundle",
            "kwargs": {"refresh_interval": 1},
        },
        {
            "name": "dags-folder",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"refresh_interval": 5},
        },
    ]
    return {
        "core": {
            "executor": "LocalExecutor",
            "parallelism": "8",
            "load_examples": "False",
            "dags_are_paused_at_creation": "False",
            "min_serialized_dag_update_interval": "0",
            "execution_api_server_url": f"{instance.url}/execution/",
            "fernet_key": instance.fernet_key,
            "simple_auth_manager_users": users,
            "simple_auth_manager_passwords_file": str(layout.passwords),
            # The default asks DNS for the machine's full name.
            "hostname_callable": "socket.gethostname",
            # Task processes die with the scheduler by a hook that runs at fork.
            **({"mp_start_method": "fork"} if sys.platform == "linux" else {}),
        },
        "database": {
            "sql_alchemy_conn": f"postgresql+psycopg2://airflow:{instance.database_password}"
            f"@/airflow?host={quote(socket_folder, safe='')}",
        },
        "api": {
            "host": instance.host,
            "port": str(instance.port),
            "base_url": instance.url,
            "workers": "1",
            "secret_key": instance.secret_key,
        },
        "api_auth": {"jwt_secret": instance.jwt_secret},
        "scheduler": {
            "scheduler_idle_sleep_time": "0.1",
            # A task whose scheduler was killed starts again 15 to 20 s later, not after 5 minutes.
            "scheduler_health_check_threshold": "15",
            "orphaned_tasks_check_interval": "5",
            "task_instance_heartbeat_timeout": "60",
        },
        "workers": {
            "min_heartbeat_interval": "1",
            # A restart of the API server must not end the running tasks.
            "max_failed_heartbeats": "60",
        },
        "triggerer": {"triggerer_health_check_threshold": "15"},
        "dag_processor": {
            "dag_bundle_config_list": json.dumps(bundles),
            "dag_bundle_storage_path": str(layout.airflow / "dag_bundles"),
            "min_file_process_interval": "600",
            "bundle_refresh_check_interval": "1",
            "print_stats_interval": "600",
        },
        "logging": {
            "base_log_folder": str(layout.airflow / "logs"),
            "file_task_handler_new_folder_permissions": "0o700",
            "file_task_handler_new_file_permissions": "0o600",
            "colored_console_log": "False",
        },
        "kaos": {
            "store": layout.store.as_uri(),
            "work_dir": str(layout.work),
            # For files served on this machine. Scripts of jobs reach these addresses anyway.
            "manifest_allowed_networks": "127.0.0.0/8, ::1/128",
            "runtimes": ",".join(runtimes()),
            "registry": instance.registry,
            "gateway_sockets": str(layout.run),
            "gateway_url": instance.gateway_url,
        },
    }


def runtimes() -> list[str]:
    """Return what jobs can run in on this machine: the first is the default."""
    from kaos.runtime.container.engine import detect

    return ["process"] if detect() is None else ["process", "container"]


def write_airflow_config(layout: Layout, instance: Instance, socket_folder: str) -> None:
    """Write airflow.cfg and the password file, both 0600; the user's own settings win over ours."""
    parser = configparser.RawConfigParser()
    for section, options in airflow_settings(layout, instance, socket_folder).items():
        # Airflow expands percent signs, in `%%` it sees one.
        parser[section] = {name: value.replace("%", "%%") for name, value in options.items()}
    parser.read(layout.own_settings)
    text = io.StringIO(_HEADER)
    text.seek(0, io.SEEK_END)
    parser.write(text)
    for folder in (
        layout.airflow,
        layout.airflow / "dags",
        layout.airflow / "logs",
        layout.store,
        layout.work,
    ):
        private_folder(folder)
    write_private(layout.airflow_config, text.getvalue())
    passwords = {name: user.password for name, user in instance.users.items()}
    write_private(layout.passwords, json.dumps(passwords) + "\n")
