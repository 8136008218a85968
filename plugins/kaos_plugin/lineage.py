"""Lineage as it is asked for: pictures, questions, differences. All of it is read from the records; Airflow's
history, as long as it is there, may only confirm them.
"""

from __future__ import annotations

import json
import logging
from threading import Lock
from typing import Literal

from sqlalchemy.orm import Session

from kaos.catalog import Catalog, WorkspaceCatalog
from kaos.errors import KaosError, UnknownNameError
from kaos.graph import Graph
from kaos.job import TRAIN
from kaos.models import Models
from kaos.names import dag_id
from kaos.provenance import Lineage, lineage
from kaos.provenance.answers import Asked
from kaos.provenance.cache import Cache
from kaos.provenance.lineage import Memory
from kaos.provenance.nodes import ENDPOINT, MODEL
from kaos.render import dot, openlineage
from kaos.serving.records import Endpoints
from kaos.store.base import INSTANCE
from kaos_operators.hook import configured_store, work_directory
from kaos_plugin import airflow_internals

PictureFormat = Literal["pdf", "svg", "png", "dot", "json", "openlineage"]
MEDIA = {
    "pdf": "application/pdf",
    "svg": "image/svg+xml",
    "png": "image/png",
    "dot": "text/vnd.graphviz",
    "json": "application/json",
    "openlineage": "application/json",
}

log = logging.getLogger(__name__)

_WARM = 50_000
"""So many nodes are read at the start of a server, of the first workspaces; about 2 kB of memory each."""

_memories: dict[tuple[str, str, str], Memory] = {}
_lock = Lock()


def read(workspace: WorkspaceCatalog) -> Asked:
    """Return the lineage of a workspace; what never changes is read once in the life of this process."""
    memory = _memory(workspace)
    return Asked(workspace, Lineage(workspace, memory).read(), memory)


def keep(workspace: WorkspaceCatalog) -> None:
    """Keep what was read of a workspace for the next start of this server."""
    _memory(workspace).keep()


def warm() -> None:
    """Read the workspaces' lineage before anybody asks, up to a size; what cannot be read is logged."""
    read_so_far = 0
    try:
        store = configured_store()
        for each in Catalog(store).workspaces():
            workspace = WorkspaceCatalog(store, each)
            read_so_far += len(read(workspace).graph.nodes)
            keep(workspace)
            if read_so_far > _WARM:
                return
    except (KaosError, OSError) as error:
        log.warning("The lineage will be read when it is asked for: %s", error)


def _memory(workspace: WorkspaceCatalog) -> Memory:
    store = workspace.store
    instance = store.refs.get(INSTANCE)
    # Another store in the same directory is another store.
    key = store.url, instance.value.decode() if instance else "", workspace.workspace.name
    with _lock:
        if key not in _memories:
            _memories[key] = Memory(Cache(work_directory() / "lineage", " ".join(key)))
        return _memories[key]


def of_model(workspace: WorkspaceCatalog, name: str) -> tuple[Graph, str]:
    """Return everything that had a part in a model, a removed one too, and the id of the model's node."""
    model_id = Models(workspace).named(name)
    graph = read(workspace).graph
    node = f"{MODEL}:{workspace.workspace.name}/{model_id}"
    if node not in graph.by_id:
        raise UnknownNameError("readable record of model", model_id, next_step="See kaos bundle verify.")
    return lineage.of_model(graph, node), node


def of_served(workspace: WorkspaceCatalog, name: str, *, everything: bool) -> tuple[Graph, str]:
    """Return everything that had a part in an endpoint, and the id of its node."""
    Endpoints(workspace).get(name)
    graph = read(workspace).graph
    node = f"{ENDPOINT}:{workspace.workspace.name}/{name}"
    return lineage.of_endpoint(graph, name, everything=everything), node


def rendered(graph: Graph, focus: str, wanted: PictureFormat) -> bytes:
    """Return a graph in one of the formats."""
    if wanted == "openlineage":
        return json.dumps(openlineage.events(graph), indent=2, ensure_ascii=False).encode() + b"\n"
    return graph.encode() if wanted == "json" else dot.draw(graph, wanted, [focus])


def file_name(name: str, wanted: PictureFormat) -> str:
    """Return the name of a picture's file."""
    return f"{name}.openlineage.json" if wanted == "openlineage" else f"{name}.{wanted}"


def contradictions(workspace: str, graph: Graph, db: Session) -> list[str]:
    """Return where Airflow's history, as far as it is there, says something else than the records."""
    ran = {
        (str(node.attributes["dag"]), str(node.attributes["run"])): node
        for node in graph.nodes
        if "run" in node.attributes and "dag" in node.attributes
    }
    found: list[str] = []
    for key, run in airflow_internals.runs(list(ran), db).items():
        node = ran[key]
        version = node.attributes.get("dag_version")
        if version is not None and run.version is not None and version != run.version:
            found.append(
                f"The record of {node.kind} {node.label} has DAG version {version[:12]}…, and Airflow's"
                f" history {run.version[:12]}…."
            )
        # A run of a schedule, or of somebody's own DAG, goes on after its job, and may fail then.
        own = run.dag_id == dag_id(workspace, TRAIN)
        if own and node.attributes.get("state") == "JOB_SUCCESS" and run.state == "failed":
            found.append(
                f"The record of {node.kind} {node.label} says success, and Airflow's history failed."
            )
    return found
