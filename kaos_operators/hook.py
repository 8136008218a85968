"""The operators' way to what Airflow's configuration names: the store and this worker's directories."""

from __future__ import annotations

from pathlib import Path

from airflow.sdk.configuration import conf

from kaos.catalog import Catalog, WorkspaceCatalog
from kaos.errors import InvalidInputError
from kaos.job import JobDocument
from kaos.serving.gateway import Gateway, gateway_of
from kaos.store import Store, open_store


def configured_store() -> Store:
    """Return the store of `[kaos] store`.

    :raises InvalidInputError: the option is missing or names none
    """
    return open_store(_option("store"))


def work_directory() -> Path:
    """Return this worker's directory of `[kaos] work_dir`, made if it is new.

    :raises InvalidInputError: the option is missing
    """
    directory = Path(_option("work_dir"))
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return directory


def runtimes() -> list[str]:
    """Return the runtimes that `[kaos] runtimes` allows; the first is the default."""
    text: str = conf.get("kaos", "runtimes", fallback="process")
    return [name.strip() for name in text.split(",") if name.strip()]


def network_by_default() -> bool:
    """Return whether jobs that do not say may use the network, `[kaos] network`."""
    value: bool = conf.getboolean("kaos", "network", fallback=True)
    return value


def gateway() -> Gateway:
    """Return the gateway of `[kaos] gateway_sockets`.

    :raises InvalidInputError: this Airflow has none
    """
    return gateway_of(work_directory(), conf.get("kaos", "gateway_sockets", fallback=None))


def gateway_url() -> str:
    """Return the address below which endpoints are, `[kaos] gateway_url`; empty without a gateway."""
    url: str = conf.get("kaos", "gateway_url", fallback="")
    return url.rstrip("/")


def max_trials() -> int:
    """Return the most trials that one job may have, `[kaos] max_trials`."""
    value: int = conf.getint("kaos", "max_trials", fallback=10_000)
    return value


def open_job(digest: str) -> tuple[JobDocument, WorkspaceCatalog]:
    """Return the job document with this digest, with its data where that came by a manifest; and its
    workspace.

    :raises CorruptObjectError: there is no such document in the store, or it was changed
    """
    store = configured_store()
    document = JobDocument.parse(store.objects.get(digest))
    workspace = Catalog(store).workspace(document.workspace)
    return workspace.with_data(document), workspace


def _option(name: str) -> str:
    value: str | None = conf.get("kaos", name, fallback=None)
    if not value:
        raise InvalidInputError(
            f"Airflow's configuration has no [kaos] {name}.",
            f"Set AIRFLOW__KAOS__{name.upper()} on every machine.",
        )
    return value
