"""A lineage graph as OpenLineage events: one for each job and each revision, with what it read and made.

The names are those that the operators give the openlineage provider (`kaos.openlineage`), so that a collector
which has both knows that they are one.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from kaos.graph import Graph, Node
from kaos.openlineage import (
    EVENT,
    FACET,
    FILE,
    MODEL,
    MOST,
    PRODUCER,
    SERVICE,
    Dataset,
    KaosRunFacet,
    TrialFacet,
    facet,
    models,
)

NAMESPACE = "default"
"""The namespace of Airflow's jobs, unless `[openlineage] namespace` says another."""

_TYPES = {"JOB_FAILURE": "FAIL", "failed": "FAIL", "JOB_KILLED": "ABORT"}
_BUNDLES = ("source", "data", "manifest")


def events(graph: Graph, namespace: str = NAMESPACE) -> list[dict[str, Any]]:
    """Return a run event for each job and each revision of the graph, as plain JSON values.

    :param namespace: of the jobs
    """
    return [_event(graph, node, namespace) for node in graph.nodes if node.kind in ("job", "revision")]


def _event(graph: Graph, node: Node, namespace: str) -> dict[str, Any]:
    known = node.attributes
    inputs = {(each.name, each.version): each for each in _inputs(graph, node)}
    return {
        "eventType": _TYPES.get(str(known.get("state")), "COMPLETE"),
        "eventTime": _ended(graph, node),
        "producer": PRODUCER,
        "schemaURL": EVENT,
        "run": {
            "runId": _run_id(node),
            "facets": {"kaos": facet(FACET, **_about(graph, node).plain())},
        },
        "job": {
            "namespace": namespace,
            "name": str(known.get("dag") or f"kaos.{_workspace(node)}"),
            "facets": {},
        },
        "inputs": [each.plain(made=False) for each in inputs.values()],
        "outputs": [each.plain(made=True) for each in _outputs(graph, node)],
    }


def _inputs(graph: Graph, node: Node) -> Iterator[Dataset]:
    """Iterate over what a job or a revision is made of: code with a model beside it as code and model."""
    for cause in graph.causes(node.id):
        parts = graph.causes(cause.id)
        if cause.kind == "source" and parts:
            yield from (_dataset(graph, part) for part in parts if part.kind in ("source", "model"))
            continue
        if cause.kind in (*_BUNDLES, "hyperparams", "image", "model"):
            yield _dataset(graph, cause)
        if cause.kind == "data":  # and the manifest that it came of
            yield from (_dataset(graph, part) for part in parts if part.kind == "manifest")


def _outputs(graph: Graph, node: Node) -> list[Dataset]:
    if node.kind == "revision":
        name, _, _ = node.label.rpartition("@")
        number = str(node.attributes["revision"])
        return [Dataset(_workspace(node), f"endpoint/{name}", SERVICE, number)]
    made = [_dataset(graph, model) for model in _models(graph, node)]
    return models(_workspace(node), [(each.version or "", each.files or 0, each.size or 0) for each in made])


def _models(graph: Graph, node: Node) -> list[Node]:
    return [effect for effect in graph.effects(node.id) if effect.kind == "model"]


def _dataset(graph: Graph, node: Node) -> Dataset:
    """Return a node as a dataset: its name is what stays the same, its digest the version."""
    known, at = node.attributes, _workspace(node)
    content = (known.get("files"), known.get("size"))
    if node.kind in _BUNDLES:
        name = node.label.removeprefix("/").rpartition(":")[0]
        return Dataset(at, f"{node.kind}/{name}", FILE, known["digest"], *content)
    if node.kind == "hyperparams":
        return Dataset(at, f"hyperparams/{node.label}", FILE, known["digest"])
    if node.kind == "model":
        return Dataset(at, "model", MODEL, known.get("digest"), *content)
    of = next((cause.label for cause in graph.causes(node.id) if cause.kind == "source"), "/:")
    name = of.removeprefix("/").rpartition(":")[0]
    return Dataset(at, f"environment/{name}", FILE, known.get("environment") or known.get("id"))


def _about(graph: Graph, node: Node) -> KaosRunFacet:
    known = node.attributes
    image = next((each.attributes for each in graph.causes(node.id) if each.kind == "image"), {})
    made = _models(graph, node)
    revision = node.kind == "revision"
    return KaosRunFacet(
        workspace=_workspace(node),
        job=str(known.get("job_id") or known.get("run") or node.id),
        author=known.get("by"),
        runtime=known.get("runtime"),
        kaos=str(known.get("kaos") or ""),
        environment=image.get("environment") or image.get("id"),
        python=image.get("python"),
        lock=image.get("lock"),
        image=image.get("pinned"),
        trials=[
            TrialFacet(
                index=model.attributes.get("trial", 0),
                name=model.label,
                model=model.attributes.get("digest"),
                params=model.attributes.get("params", {}),
                metrics=model.attributes.get("metrics", {}),
            )
            for model in made[:MOST]
        ],
        models=[model.label for model in made[:MOST]],
        reproduces=known.get("reproduces"),
        endpoint=node.label.rpartition("@")[0] if revision else None,
        revision=known.get("revision") if revision else None,
    )


def _workspace(node: Node) -> str:
    """Return the workspace in a node's id, ``job:mnist/01a1fc…``."""
    return node.id.partition(":")[2].partition("/")[0]


def _run_id(node: Node) -> str:
    """Return the job's id, which is a UUID; of what has none one that is always the same."""
    try:
        return str(uuid.UUID(hex=str(node.attributes.get("job_id"))))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:kaos:{node.id}"))


def _ended(graph: Graph, node: Node) -> str:
    """Return when the last of its models was there, or else when it was submitted."""
    made = [
        str(model.attributes["created"]) for model in _models(graph, node) if "created" in model.attributes
    ]
    text = max(made, default=str(node.attributes.get("submitted", "1970-01-01 00:00:00 UTC")))
    return datetime.fromisoformat(text.replace(" UTC", "+00:00")).isoformat()
