"""What each record says of the lineage: nodes and edges. A new kind of record needs a function here, and its
place in `kaos.provenance.lineage`.

A node's identity holds what it was made of where content alone would lie: two source bundles with the same
requirements have the same environment, and neither made the other's models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from kaos.digest import SHORT
from kaos.endpoint import Endpoint, RevisionOutcome, RevisionRecord, ServeDocument
from kaos.graph import Edge, Node
from kaos.job import BundlePin, JobDocument, JobOutcome, ManifestPin
from kaos.lineage import AirflowRun, BuildRecord, ResolvedManifest
from kaos.model import ImportRecord, ModelRecord, TagMove, numeric
from kaos.promotion import Decision
from kaos.provenance.sketch import Sketch
from kaos.reproduction import Reproduction
from kaos.resources import Resources, show_memory
from kaos.retention import Tombstone
from kaos.schema.bundle import Bundle

SOURCE, DATA, MANIFEST, PARAMS = "source", "data", "manifest", "hyperparams"
IMAGE, JOB, MODEL, TAG = "image", "job", "model", "tag"
DECISION, REVISION, ENDPOINT = "decision", "revision", "endpoint"
REPRODUCED = "made_again_"
"""How the attributes of a model begin that name the jobs which made it again."""
KINDS = (MANIFEST, SOURCE, DATA, PARAMS, IMAGE, JOB, MODEL, TAG, DECISION, REVISION, ENDPOINT)
"""The kinds of nodes, from the first causes to the last effects."""


class Part(NamedTuple):
    """What one record says."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...] = ()


def job(document: JobDocument, outcome: JobOutcome | None, resolved: ResolvedManifest | None) -> Part:
    """Return a job with its inputs."""
    at = document.workspace
    data = document.data or (resolved.data if resolved else None)
    node = Node(
        job_id(document),
        JOB,
        document.job_id[:12],
        _known(
            {
                "job_id": document.job_id,
                "by": document.author,
                "submitted": _time(document.submitted_at),
                "state": str(outcome.state) if outcome else None,
                "seconds": _seconds(outcome.started_at, outcome.ended_at) if outcome else None,
                "runtime": document.runtime,
                "resources": _resources(document.resources),
                "definition": document.definition,
                "rerun_of": document.rerun_of,
                "dag": document.dag_id,
                "run": document.run_id,
                "kaos": document.kaos_version,
            }
        ),
    )
    nodes = [_bundle(SOURCE, at, document.source)]
    edges = [Edge(nodes[0].id, node.id, "code")]
    if document.manifest is not None:
        nodes.append(_manifest(at, document.manifest))
        if data is None:
            edges.append(Edge(nodes[-1].id, node.id, "data"))
    if data is not None:
        found = _bundle(DATA, at, data, document.manifest.digest if document.manifest else "")
        if document.manifest is not None:
            origins = f"origins {resolved.origins[:12]}" if resolved else ""
            edges.append(Edge(nodes[-1].id, found.id, "downloaded", origins))
        nodes.append(found)
        edges.append(Edge(found.id, node.id, "data"))
    if document.params is not None:
        pin = document.params
        nodes.append(
            Node(
                f"{PARAMS}:{at}/{pin.digest}",
                PARAMS,
                pin.name,
                {"digest": pin.digest, "trials": pin.trials, "author": pin.author},
            )
        )
        edges.append(Edge(nodes[-1].id, node.id, "hyperparams"))
    return Part((*nodes, node), tuple(edges))


def model(record: ModelRecord | Sketch, document: JobDocument, maker: Part) -> Part:
    """Return a model that was trained.

    :param document: of its job
    :param maker: what `maker` returned of that
    """
    at = document.workspace
    node = Node(
        f"{MODEL}:{at}/{record.model_id}",
        MODEL,
        record.model_id,
        _known(
            {
                "digest": record.digest,
                "files": record.files,
                "size": record.size,
                "created": _time(record.created_at),
                "seconds": round(record.run.seconds, 3),
                "trial": record.trial.index if document.params else None,
                "params": record.trial.params or None,
                "metrics": _finite(numeric(record.metrics)) or None,
            }
        ),
    )
    trial = f"trial {record.trial.index}" if document.params else ""
    edges = [Edge(job_id(document), node.id, "took over" if record.run.reused_from else "trained", trial)]
    if record.run.reused_from:
        edges.append(Edge(f"{JOB}:{at}/{record.run.reused_from}", node.id, "trained", trial))
    return Part((*maker.nodes, node), (*maker.edges, *edges))


def maker(document: JobDocument, build: BuildRecord, airflow: AirflowRun, packages: int | None) -> Part:
    """Return what the models of a job have in common: the job, and the environment that it made them in.

    :param packages: how many the environment's lock has
    """
    at = document.workspace
    node = Node(job_id(document), JOB, document.job_id[:12], _airflow(airflow))
    image = _image(at, document.source, build, packages)
    edges = (
        Edge(bundle_id(SOURCE, at, document.source.digest), image.id, "built"),
        Edge(image.id, node.id, "environment"),
    )
    return Part((image, node), edges)


def bundle(at: str, record: Bundle) -> Part:
    """Return a bundle that was submitted."""
    return Part((_bundle(record.kind, at, record.pin),))


def reproduction(at: str, record: Reproduction) -> Part:
    """Return what came of making a model again: more to know of the model, and of the job that did it."""
    verdict = str(record.verdict)
    made = Node(
        f"{JOB}:{at}/{record.job_id}",
        JOB,
        record.job_id[:12],
        {"reproduces": record.model_id, "verdict": verdict},
    )
    model_node = Node(
        f"{MODEL}:{at}/{record.model_id}",
        MODEL,
        record.model_id,
        {f"{REPRODUCED}{record.job_id[:12]}": verdict},
    )
    return Part((made, model_node))


def imported(at: str, record: ImportRecord) -> Part:
    """Return a model that was not trained here."""
    attributes = {
        "digest": record.digest,
        "files": record.files,
        "size": record.size,
        "imported_by": record.imported_by,
        "imported": _time(record.imported_at),
    }
    return Part((Node(f"{MODEL}:{at}/{record.model_id}", MODEL, record.model_id, attributes),))


def removed(at: str, tombstone: Tombstone) -> Part:
    """Return what the newest tombstone of a model adds to it."""
    told = {"removed": tombstone.removed.shown} if tombstone.removed is not None else {}
    return Part((Node(f"{MODEL}:{at}/{tombstone.model_id}", MODEL, tombstone.model_id, told),))


def decision(at: str, digest: str, record: Decision) -> Part:
    """Return what was decided on a model that a schedule trained.

    :param digest: of the record, by which a revision names it
    """
    proposal, answer = record.proposal, record.answer
    node = Node(
        f"{DECISION}:{at}/{digest}",
        DECISION,
        record.outcome,
        _known(
            {
                "by": record.by,
                "at": _time(record.decided_at),
                "schedule": proposal.schedule,
                "endpoint": proposal.endpoint,
                "condition": proposal.condition,
                "reason": record.reason,
                "serving": proposal.serving.model_id if proposal.serving is not None else None,
                "approved": answer.approved if answer is not None else None,
                **_airflow(record.airflow),
            }
        ),
    )
    # The model that served was compared, but nothing of it went into the new revision: it is no cause.
    return Part((node,), (Edge(f"{MODEL}:{at}/{proposal.model.model_id}", node.id, "proposed"),))


def tag(at: str, move: TagMove) -> Part:
    """Return a tag, with the model that it names."""
    node = Node(
        f"{TAG}:{at}/{move.name}",
        TAG,
        move.name,
        _known({"by": move.by, "at": _time(move.at), "why": move.why or None}),
    )
    return Part((node,), (Edge(f"{MODEL}:{at}/{move.model_id}", node.id, "tagged"),))


def revision(
    document: ServeDocument,
    record: RevisionRecord | None,
    outcome: RevisionOutcome | None,
    packages: int | None,
) -> Part:
    """Return a revision of an endpoint, with its code, its model, and what it runs in."""
    at = document.workspace
    failed = outcome.reason if outcome is not None and not outcome.succeeded else None
    node = Node(
        revision_id(at, document.endpoint, document.revision),
        REVISION,
        f"{document.endpoint}@{document.revision}",
        _known(
            {
                "revision": document.revision,
                "by": document.author,
                "submitted": _time(document.submitted_at),
                "state": "failed" if failed else "routed" if record else None,
                "reason": failed,
                "seconds": round(record.started_seconds, 3) if record else None,
                "sample": record.sample if record else None,
                "runtime": document.runtime,
                "resources": _resources(document.resources),
                "dag": document.dag_id,
                "run": document.run_id,
                "kaos": document.kaos_version,
                **(_airflow(record.airflow) if record else {}),
            }
        ),
    )
    code = _bundle(SOURCE, at, document.code)
    nodes, edges = [code], []
    served = code
    if document.model is not None:
        served = _bundle(SOURCE, at, document.source, document.model.model_id)
        nodes.append(served)
        model_node = f"{MODEL}:{at}/{document.model.model_id}"
        edges += [Edge(code.id, served.id, "code"), Edge(model_node, served.id, "model")]
    if record is not None:
        image = _image(at, document.source, record.build, packages, served.id)
        nodes.append(image)
        edges += [Edge(served.id, image.id, "built"), Edge(image.id, node.id, "environment")]
    edges.append(Edge(served.id, node.id, "code"))
    if document.decision is not None:
        edges.append(Edge(f"{DECISION}:{at}/{document.decision}", node.id, "promoted"))
    return Part((*nodes, node), tuple(edges))


def endpoint(found: Endpoint, revisions: Iterable[int]) -> Part:
    """Return an endpoint as it is now, with the parts that its revisions have in it."""
    at = found.workspace
    live = found.killed_at is None and found.current is not None
    node = Node(
        f"{ENDPOINT}:{at}/{found.name}",
        ENDPOINT,
        found.name,
        _known(
            {
                "state": "live" if live else "killed" if found.killed_at else "not routed",
                "revision": found.current,
                "canary": f"{found.canary} with {found.percent} %" if found.canary else None,
                "by": found.created_by,
                "created": _time(found.created_at),
                "killed": _time(found.killed_at) if found.killed_at else None,
            }
        ),
    )
    roles = {found.current: "serves", found.canary: "canary"} if live else {}
    return Part(
        (node,),
        tuple(
            Edge(revision_id(at, found.name, number), node.id, roles.get(number, "served"))
            for number in revisions
        ),
    )


def job_id(document: JobDocument) -> str:
    """Return the id of a job's node."""
    return f"{JOB}:{document.workspace}/{document.job_id}"


def revision_id(workspace: str, name: str, number: int) -> str:
    """Return the id of a revision's node."""
    return f"{REVISION}:{workspace}/{name}/{number:06d}"


def bundle_id(kind: str, workspace: str, digest: str, made_of: str = "") -> str:
    """Return the id of a bundle's node.

    :param made_of: the manifest that it was downloaded by, or the model that was laid into it
    """
    return f"{kind}:{workspace}/{digest}" + (f"@{made_of}" if made_of else "")


def _bundle(kind: str, workspace: str, pin: BundlePin, made_of: str = "") -> Node:
    attributes = {"digest": pin.digest, "files": pin.files, "size": pin.size, "author": pin.author}
    node_id = bundle_id(kind, workspace, pin.digest, made_of)
    return Node(node_id, kind, f"/{pin.name}:{pin.digest[:SHORT]}", attributes)


def _manifest(workspace: str, pin: ManifestPin) -> Node:
    return Node(
        f"{MANIFEST}:{workspace}/{pin.digest}",
        MANIFEST,
        f"/{pin.name}:{pin.digest[:SHORT]}",
        _known(
            {
                "digest": pin.digest,
                "content": pin.content,
                "files": pin.files,
                "size": pin.size,
                "author": pin.author,
            }
        ),
    )


def _image(
    workspace: str, source: BundlePin, build: BuildRecord, packages: int | None, made_of: str = ""
) -> Node:
    identity = f"{IMAGE}:{workspace}/{build.environment}@{made_of or source.digest}"
    if build.image is not None:
        image = build.image
        return Node(
            identity,
            IMAGE,
            f"image {image.id[:12]}",
            _known(
                {
                    "id": image.id,
                    "pinned": image.pinned or None,
                    "engine": image.engine,
                    "base": [f"{base.name} {base.digest}" for base in image.bases] or None,
                    "runtime": build.runtime,
                }
            ),
        )
    return Node(
        identity,
        IMAGE,
        f"environment {build.environment[:12]}",
        _known(
            {
                "environment": build.environment,
                "python": build.python or None,
                "packages": packages,
                "lock": build.lock or None,
                "runtime": build.runtime,
            }
        ),
    )


def _airflow(run: AirflowRun) -> dict[str, Any]:
    return _known(
        {
            "dag": run.dag_id,
            "run": run.run_id,
            "dag_version": run.bundle_version,
            "airflow": run.airflow_version,
        }
    )


def _resources(resources: Resources) -> str | None:
    """Return what was asked for, in the words of the options."""
    cpu = f"{resources.cpu:g} CPU" if resources.cpu is not None else ""
    memory = show_memory(resources.memory) if resources.memory is not None else ""
    gpu = f"{resources.gpu} GPU" if resources.gpu else ""
    return ", ".join(word for word in (cpu, memory, gpu) if word) or None


def _known(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def _finite(metrics: dict[str, float]) -> dict[str, float | str]:
    """Return metrics as JSON has them: it has no infinities."""
    return {name: value if math.isfinite(value) else str(value) for name, value in metrics.items()}


def _time(moment: datetime) -> str:
    return f"{moment.isoformat(' ')[:19]} UTC"


def _seconds(started: datetime | None, ended: datetime) -> float | None:
    return round((ended - started).total_seconds(), 3) if started else None
