"""Lineage as it is asked for: pictures, questions, differences. All of it is read from the records; Airflow's
history, as long as it is there, may only confirm them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from threading import Lock
from typing import Literal

from sqlalchemy.orm import Session

from kaos.catalog import WorkspaceCatalog
from kaos.errors import UnknownNameError
from kaos.graph import Graph, Node
from kaos.models import Models
from kaos.provenance import Lineage, lineage
from kaos.provenance.cache import Cache
from kaos.provenance.lineage import Memory, Read
from kaos.provenance.nodes import ENDPOINT, KINDS, MODEL
from kaos.provenance.refs import Finder
from kaos.render import dot, openlineage
from kaos.render.lines import one_line
from kaos.schema.lineage import FoundFile, LineageAnswer, LineageRow
from kaos.serving.records import Endpoints
from kaos_operators.hook import work_directory
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

_memories: dict[tuple[str, str], Memory] = {}
_lock = Lock()


def read(workspace: WorkspaceCatalog) -> tuple[Read, Memory]:
    """Return the lineage of a workspace; what never changes is read once in the life of this process."""
    key = workspace.store.url, workspace.workspace.name
    with _lock:
        if key not in _memories:
            _memories[key] = Memory(Cache(work_directory() / "lineage", " ".join(key)))
        memory = _memories[key]
    return Lineage(workspace, memory).read(), memory


def of_model(workspace: WorkspaceCatalog, name: str) -> tuple[Graph, str]:
    """Return everything that had a part in a model, and the id of the model's node."""
    model_id = Models(workspace).pin(name).model_id
    graph = read(workspace)[0].graph
    node = f"{MODEL}:{workspace.workspace.name}/{model_id}"
    if node not in graph.by_id:
        raise UnknownNameError("readable record of model", model_id, next_step="See kaos bundle verify.")
    return lineage.of_model(graph, node), node


def of_served(workspace: WorkspaceCatalog, name: str, *, everything: bool) -> tuple[Graph, str]:
    """Return everything that had a part in an endpoint, and the id of its node."""
    Endpoints(workspace).get(name)
    graph = read(workspace)[0].graph
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


def answer(workspace: WorkspaceCatalog, ref: str, *, upstream: bool, limit: int | None) -> LineageAnswer:
    """Return what had a part in something, or what came of it; the ends of the way first."""
    found, memory = read(workspace)
    graph = found.graph
    asked = Finder(workspace, graph, memory.contents, memory.cache).find(ref)
    reached = graph.upstream(asked.nodes) if upstream else graph.downstream(asked.nodes)
    starts = set(asked.nodes)
    # A file is in bundles, and those are an answer too.
    nodes = [node for node in reached.nodes if asked.files or node.id not in starts]
    order = list(KINDS) if upstream else list(reversed(KINDS))
    nodes.sort(key=lambda node: (order.index(node.kind), not _live(node)))
    counts = Counter(node.kind for node in nodes)
    return LineageAnswer(
        what=asked.what,
        found=_rows(graph.by_id[start] for start in asked.nodes[:limit]),
        files=[
            FoundFile(kind=graph.by_id[start].kind, holder=graph.by_id[start].label, path=path)
            for start, path in asked.files[:limit]
        ],
        rows=_rows(nodes[:limit]),
        counts={kind: counts[kind] for kind in order if counts[kind]},
        damaged=list(found.damaged),
    )


def contradictions(graph: Graph, db: Session) -> list[str]:
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
        if node.attributes.get("state") == "JOB_SUCCESS" and run.state == "failed":
            found.append(
                f"The record of {node.kind} {node.label} says success, and Airflow's history failed."
            )
    return found


def _rows(nodes: Iterable[Node]) -> list[LineageRow]:
    return [
        LineageRow(
            kind=node.kind,
            name=node.label,
            digest=str(node.attributes.get("digest") or node.attributes.get("job_id") or ""),
            detail=one_line(node),
            live=_live(node),
        )
        for node in nodes
    ]


def _live(node: Node) -> bool:
    return node.kind == ENDPOINT and node.attributes.get("state") == "live"
