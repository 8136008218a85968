"""What a revision of an endpoint consists of, whoever deploys it."""

from __future__ import annotations

from datetime import UTC, datetime

from kaos import __version__
from kaos.catalog import WorkspaceCatalog
from kaos.endpoint import SERVE, Endpoint, Limits, ModelPin, ServeDocument, beside
from kaos.job import BundlePin
from kaos.names import dag_id
from kaos.resources import Resources
from kaos.source import SERVE_SCRIPT, check_source


def lay_beside(workspace: WorkspaceCatalog, code: BundlePin, model: ModelPin | None, user: str) -> BundlePin:
    """Return the bundle that is served: the code with the model's files beside it, committed.

    :raises InvalidBundleError: the code has no `serve`
    """
    tree = workspace.given_tree(code.digest)
    check_source(tree, SERVE_SCRIPT)
    if model is None:
        return code
    return workspace.commit_bundle(
        "source", code.name, beside(tree, workspace.given_tree(model.digest)), user
    ).pin


def revision_document(
    endpoint: Endpoint,
    job_id: str,
    *,
    source: BundlePin,
    code: BundlePin,
    model: ModelPin | None,
    resources: Resources,
    workers: int | None,
    runtime: str,
    limits: Limits,
    author: str,
    no_cache: bool = False,
    canary: int | None = None,
    decision: str | None = None,
) -> ServeDocument:
    """Return the document of the revision that was reserved last.

    :param job_id: of the deploy
    """
    return ServeDocument(
        job_id=job_id,
        workspace=endpoint.workspace,
        dag_id=dag_id(endpoint.workspace, SERVE),
        run_id=job_id,
        endpoint=endpoint.name,
        revision=endpoint.revisions,
        source=source,
        code=code,
        model=model,
        resources=resources,
        workers=workers,
        runtime=runtime,
        no_cache=no_cache,
        canary=canary,
        limits=limits,
        decision=decision,
        author=author,
        submitted_at=datetime.now(UTC),
        kaos_version=__version__,
    )
