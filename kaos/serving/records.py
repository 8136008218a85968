"""The records of endpoints in a store.

The refs::

    endpoints/<name>                                  the workspace that has the name: it is one for all URLs
    workspaces/<workspace>/endpoints/<name>           the Endpoint; changes by compare-and-swap
    workspaces/<workspace>/revisions/<name>/<number>  digest of the ServeDocument
    workspaces/<workspace>/served/<name>/<number>     digest of the RevisionRecord, once it was routed
    workspaces/<workspace>/ends/<name>/<number>       the RevisionOutcome of its deploy
    workspaces/<workspace>/changes/<name>/<id>        a Change
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from kaos.catalog import Catalog, WorkspaceCatalog
from kaos.endpoint import (
    Change,
    Endpoint,
    RevisionOutcome,
    RevisionRecord,
    ServeDocument,
    endpoint_name,
)
from kaos.errors import AlreadyExistsError, ConflictError, RemovedError, UnknownNameError
from kaos.job import new_job_id
from kaos.names import check_endpoint
from kaos.store import Store, change_ref


class Endpoints:
    """The endpoints of one workspace."""

    def __init__(self, workspace: WorkspaceCatalog) -> None:
        self.workspace = workspace
        self.store = workspace.store
        self._at = f"workspaces/{workspace.workspace.name}"

    # -- endpoints ---------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Return the names of all endpoints that there ever were, sorted."""
        return [name.rpartition("/")[2] for name in self.store.refs.names(f"{self._at}/endpoints")]

    def find(self, name: str) -> Endpoint | None:
        """Return an endpoint, or None."""
        ref = self.store.refs.get(f"{self._at}/endpoints/{check_endpoint(name)}")
        return Endpoint.parse(ref.value) if ref else None

    def get(self, name: str) -> Endpoint:
        """Return an endpoint.

        :raises UnknownNameError: there is none of this name
        """
        found = self.find(name)
        if found is None:
            raise UnknownNameError("endpoint", name, self.names(), "See kaos serve list.")
        return found

    def alive(self, name: str) -> Endpoint:
        """Return an endpoint that was not killed.

        :raises UnknownNameError: there is none
        """
        found = self.get(name)
        if found.killed_at is not None:
            raise UnknownNameError("running endpoint", name, next_step="It was killed. See kaos serve list.")
        return found

    def change(self, name: str, change: Callable[[Endpoint], Endpoint]) -> Endpoint:
        """Change an endpoint in one step, and return what it is now.

        :param change: called again with the newest when somebody else was quicker
        """

        def changed(value: bytes | None) -> bytes:
            if value is None:
                raise UnknownNameError("endpoint", name, self.names(), "See kaos serve list.")
            return change(Endpoint.parse(value)).encode()

        at = f"{self._at}/endpoints/{check_endpoint(name)}"
        return Endpoint.parse(change_ref(self.store.refs, at, changed, f"The endpoint {name}"))

    def reserve(self, name: str | None, job_id: str, user: str, *, update: bool = False) -> Endpoint:
        """Return the endpoint of a deploy with a new revision's number in it, made if it is not there.

        :param name: None for one that kaos makes up
        :param update: it must be there: one that was killed does not come back, without the token that it had
        :raises AlreadyExistsError: another workspace has the name
        :raises ConflictError: it was to be updated, and somebody killed it
        """
        own = self.workspace.workspace.name
        if name is None:
            name = endpoint_name(own, job_id, Names(self.store).all())
        new = Endpoint(
            name=check_endpoint(name), workspace=own, created_at=datetime.now(UTC), created_by=user
        )
        if not update:
            self._take_name(name)
            self.store.refs.create(f"{self._at}/endpoints/{name}", new.encode())

        def count(found: Endpoint) -> Endpoint:
            if found.killed_at is not None and update:
                raise ConflictError(f"The endpoint {name} was killed meanwhile.", "See kaos serve list.")
            alive = (
                found if found.killed_at is None else new.model_copy(update={"revisions": found.revisions})
            )
            return alive.model_copy(update={"revisions": found.revisions + 1})

        reserved = self.change(name, count)
        self._take_name(name)  # again: who was killing it when we began has let go of the name
        return reserved

    def _take_name(self, name: str) -> None:
        """Have an endpoint's name for this workspace.

        :raises AlreadyExistsError: another workspace has it
        """
        own = self.workspace.workspace.name
        self.store.refs.create(f"endpoints/{check_endpoint(name)}", own.encode())
        ref = self.store.refs.get(f"endpoints/{name}")
        if ref is not None and ref.value.decode() != own:
            raise AlreadyExistsError(
                f"The endpoint {name!r} is of another workspace: names are one for all URLs.",
                "Give another one: --name NAME",
            )

    def kill(self, name: str, user: str) -> Endpoint:
        """End an endpoint; its records stay, its name is free again."""
        now = datetime.now(UTC)
        killed = self.change(
            name, lambda found: found if found.killed_at else found.model_copy(update={"killed_at": now})
        )
        self.store.refs.delete(f"endpoints/{name}")
        if self.get(name).killed_at is None:  # deployed anew before we let go of its name
            self._take_name(name)
        self.note(name, "kill", None, user)
        return killed

    # -- revisions ---------------------------------------------------------------------------------------

    def add_revision(self, document: ServeDocument) -> str:
        """Record a revision before it is started, and return the digest of its document.

        :raises RemovedError: retention has removed what it should serve; nothing was recorded
        """
        name = f"{self._at}/revisions/{document.endpoint}/{document.revision:06d}"
        with self.store.uses.hold():
            digest = self.store.objects.put(document.encode())
            self.store.refs.set(name, digest.encode(), None)
            try:
                for pin in (document.source, document.code, document.model):
                    if pin is not None:
                        self.workspace.use_tree(pin.digest)
            except RemovedError:
                self.store.refs.delete(name)
                raise
        self.note(document.endpoint, "deploy", document.revision, document.author)
        return digest

    def revision_numbers(self, name: str) -> list[int]:
        """Return the numbers of an endpoint's revisions, the oldest first."""
        return [int(ref.rpartition("/")[2]) for ref in self.store.refs.names(f"{self._at}/revisions/{name}")]

    def revision(self, name: str, number: int) -> tuple[ServeDocument, str]:
        """Return a revision's document and its digest.

        :raises UnknownNameError: there is no such revision
        """
        ref = self.store.refs.get(f"{self._at}/revisions/{check_endpoint(name)}/{number:06d}")
        if ref is None:
            known = [str(each) for each in self.revision_numbers(name)]
            raise UnknownNameError(f"revision of {name}", str(number), known, "See kaos serve info.")
        digest = ref.value.decode()
        return ServeDocument.parse(self.store.objects.get(digest)), digest

    def add_record(self, record: RevisionRecord) -> str:
        """Record what a routed revision is made of."""
        digest = self.store.objects.put(record.encode())
        document = record.document
        self.store.refs.create(
            f"{self._at}/served/{document.endpoint}/{document.revision:06d}", digest.encode()
        )
        return digest

    def record(self, name: str, number: int) -> RevisionRecord | None:
        """Return the record of a routed revision, or None."""
        ref = self.store.refs.get(f"{self._at}/served/{name}/{number:06d}")
        return RevisionRecord.parse(self.store.objects.get(ref.value.decode())) if ref else None

    def end(self, document: ServeDocument, *, reason: str = "", log: str | None = None) -> RevisionOutcome:
        """Record how the deploy of a revision ended, once: the first outcome stays, and is returned."""
        new = RevisionOutcome(
            job_id=document.job_id,
            revision=document.revision,
            succeeded=not reason,
            reason=reason,
            log=log,
            ended_at=datetime.now(UTC),
        )
        self.store.refs.create(f"{self._at}/ends/{document.endpoint}/{document.revision:06d}", new.encode())
        return self.outcome(document.endpoint, document.revision) or new

    def outcome(self, name: str, number: int) -> RevisionOutcome | None:
        """Return how the deploy of a revision ended, or None."""
        ref = self.store.refs.get(f"{self._at}/ends/{name}/{number:06d}")
        return RevisionOutcome.parse(ref.value) if ref else None

    def note(self, name: str, what: str, revision: int | None, user: str) -> None:
        """Record what was done to an endpoint."""
        change = Change(what=what, revision=revision, by=user, at=datetime.now(UTC))
        self.store.refs.create(f"{self._at}/changes/{name}/{new_job_id()}", change.encode())

    def changes(self, name: str) -> list[Change]:
        """Return what was done to an endpoint, the oldest first."""
        names = self.store.refs.names(f"{self._at}/changes/{name}")
        return [Change.parse(ref.value) for each in names if (ref := self.store.refs.get(each))]


class Names:
    """The names of all endpoints of a store that were not killed."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def all(self) -> list[str]:
        """Return them, sorted."""
        return [name.partition("/")[2] for name in self.store.refs.names("endpoints")]

    def endpoints(self) -> Iterator[tuple[Endpoints, Endpoint]]:
        """Iterate over the endpoints with the records of their workspaces."""
        for name in self.all():
            ref = self.store.refs.get(f"endpoints/{name}")
            if ref is None:
                continue
            try:
                records = Endpoints(Catalog(self.store).workspace(ref.value.decode()))
                found = records.find(name)
            except UnknownNameError:  # the workspace is being killed
                continue
            if found is not None and found.killed_at is None:
                yield records, found
