"""What a server with a new metadata database does not have, made again from the records of its store."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from sqlalchemy.orm import Session

from kaos.catalog import WorkspaceCatalog
from kaos.endpoint import SERVE
from kaos.errors import ForbiddenError, KaosError
from kaos.job import TRAIN, Definition
from kaos.provenance.nodes import JOB, MODEL
from kaos.schema.lineage import Rebuilt
from kaos.schema.workspace import Workspace
from kaos.serving.records import Endpoints
from kaos.store import Store
from kaos_dags.publish import HEAD, head
from kaos_operators.hook import configured_store
from kaos_plugin import endpoints, lineage
from kaos_plugin.auth import may
from kaos_plugin.jobs import PAGE, publish_dags, start_forgotten_job

log = logging.getLogger(__name__)


def rebuild(user: BaseUser, db: Session) -> Rebuilt:
    """Publish the DAGs of all workspaces, start what had not ended, want the endpoints again, and count.

    A record that is damaged is named and passed over. What the user may not deploy to is neither touched nor
    named.

    :raises ForbiddenError: the user may deploy to no workspace
    """
    store = configured_store()
    found = [pair for pair in _workspaces(store) if may(user, "POST", pair[0])]
    if not found and next(_workspaces(store), None) is not None:
        raise ForbiddenError(
            f"{user.get_name()} may deploy to no workspace.", "Ask an administrator of this Airflow."
        )
    damaged = _mend_dags(store)
    parts = [_rebuild(pair[0], pair[1], db) for pair in found]
    endpoints.start_forgotten()
    return Rebuilt(
        workspaces=[name for name, _ in found],
        dags=[dag for part in parts for dag in part.dags],
        jobs=sum(part.jobs for part in parts),
        models=sum(part.models for part in parts),
        started=[job for part in parts for job in part.started],
        endpoints=[name for part in parts for name in part.endpoints],
        damaged=[*damaged, *(line for part in parts for line in part.damaged)],
    )


def _workspaces(store: Store) -> Iterator[tuple[str, WorkspaceCatalog | KaosError]]:
    """Iterate over the workspaces of a store, those with a damaged record among them."""
    for ref_name in store.refs.names("workspaces"):
        if ref_name.count("/") == 2 and ref_name.endswith("/workspace"):
            ref = store.refs.get(ref_name)
            try:
                if ref is not None:
                    yield ref_name.split("/")[1], WorkspaceCatalog(store, Workspace.parse(ref.value))
            except KaosError as error:
                yield ref_name.split("/")[1], error


def _mend_dags(store: Store) -> list[str]:
    """Let the folder of DAGs begin anew if it cannot be read: all of it can be generated."""
    try:
        for file in head(store).files:
            store.objects.get(file.digest)
    except KaosError as error:
        store.refs.delete(HEAD)
        # Each workspace's are generated again below; those of the others when they deploy.
        return [f"{HEAD}: {error.message}"]
    return []


def _rebuild(name: str, found: WorkspaceCatalog | KaosError, db: Session) -> Rebuilt:
    empty = Rebuilt(workspaces=[name], dags=[], jobs=0, models=0, started=[], endpoints=[], damaged=[])
    if isinstance(found, KaosError):
        return empty.model_copy(update={"damaged": [f"workspaces/{name}/workspace: {found.message}"]})
    read = lineage.read(found).read
    kinds = [node.kind for node in read.graph.nodes]
    counted = empty.model_copy(update={"jobs": kinds.count(JOB), "models": kinds.count(MODEL)})
    damaged = list(read.damaged)
    if found.workspace.killed_at is not None:
        return counted.model_copy(update={"damaged": damaged})
    live = list(_want_endpoints(found, damaged))
    _mend_definitions(found, damaged, serves=bool(live))
    dags = publish_dags(found, db)
    started: list[str] = []
    for job_id in found.job_ids()[-PAGE:]:
        try:
            if start_forgotten_job(found, job_id, db):
                started.append(job_id)
        except KaosError as error:
            log.warning("Job %s could not be started: %s", job_id, error)
    return counted.model_copy(
        update={"dags": dags, "started": started, "endpoints": live, "damaged": damaged}
    )


def _mend_definitions(found: WorkspaceCatalog, damaged: list[str], *, serves: bool) -> None:
    """Let the definitions be there that a workspace cannot do without; one that is damaged is made anew."""
    name = found.workspace.name
    at = f"workspaces/{name}/definitions"
    known: set[str] = set()
    for ref_name in list(found.store.refs.names(at)):
        ref = found.store.refs.get(ref_name)
        try:
            known.update([Definition.parse(ref.value).name] if ref is not None else [])
        except KaosError as error:
            damaged.append(f"{ref_name}: {error.message}")
            found.store.refs.delete(ref_name)
    if TRAIN not in known:
        found.set_definition(Definition(workspace=name))
    if serves and SERVE not in known:
        found.set_definition(Definition(workspace=name, name=SERVE, kind="serve"))


def _want_endpoints(found: WorkspaceCatalog, damaged: list[str]) -> Iterator[str]:
    """Give the endpoints that were not killed their names back, and yield these; the keeper starts them."""
    records = Endpoints(found)
    own = found.workspace.name
    for name in records.names():
        try:
            if records.get(name).killed_at is not None:
                continue
        except KaosError:  # its lineage named it
            continue
        found.store.refs.create(f"endpoints/{name}", own.encode())
        ref = found.store.refs.get(f"endpoints/{name}")
        if ref is not None and ref.value.decode() != own:
            damaged.append(f"endpoints/{name}: another workspace has the name now.")
            continue
        yield name
