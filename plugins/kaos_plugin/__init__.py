"""The Airflow plugin: kaos' HTTP API and pages in Airflow's API server, and its tabs in Airflow's UI."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

# Every process loads the plugins once and forks its workers from there: what tasks need is in memory then.
import kaos_dags.dag_bundle  # noqa: F401
import kaos_operators.warm  # noqa: F401
from kaos_plugin import listener

_UI = "/kaos/ui"


class KaosPlugin(AirflowPlugin):
    """Mount the API under ``/kaos`` and show a job's record beside its run."""

    name = "kaos"
    listeners = [listener]  # noqa: RUF012
    external_views = [  # noqa: RUF012 (Airflow removes entries in place)
        {
            "name": "kaos",
            "href": f"{_UI}/workspaces",
            "destination": "nav",
            "url_route": "kaos",
        },
        {
            "name": "kaos job",
            "href": f"{_UI}/runs/{{DAG_ID}}/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "kaos_job",
        },
    ]

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Return the app; only the API server asks, so that only it loads FastAPI."""
        from kaos_plugin.app import create_app

        return [{"app": create_app(), "url_prefix": "/kaos", "name": "kaos"}]
