"""Workspaces, and all that has a name in one."""

from __future__ import annotations

from datetime import UTC, datetime

from kaos.catalog.builds import Builds
from kaos.catalog.jobs import Jobs
from kaos.catalog.models import ModelRecords
from kaos.catalog.trials import Trials
from kaos.errors import AlreadyExistsError, InvalidInputError, UnknownNameError
from kaos.job import Definition
from kaos.names import check_workspace
from kaos.schema.workspace import Workspace
from kaos.store import Store


class Catalog:
    """The names of one store, across workspaces."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def workspaces(self) -> list[Workspace]:
        """Return all workspaces, sorted by name."""
        return [
            Workspace.parse(ref.value)
            for name in self.store.refs.names("workspaces")
            if name.count("/") == 2 and name.endswith("/workspace") and (ref := self.store.refs.get(name))
        ]

    def create_workspace(self, name: str, user: str) -> WorkspaceCatalog:
        """Make a workspace; one that was killed comes back, with the models that were kept.

        :raises InvalidNameError: the name cannot be used
        :raises AlreadyExistsError: it is there
        """
        ref_name = f"workspaces/{check_workspace(name)}/workspace"
        current = self.store.refs.get(ref_name)
        if current is not None and Workspace.parse(current.value).killed_at is None:
            raise AlreadyExistsError(
                f"The workspace {name!r} exists.", f"Use it: kaos workspace set -n {name}"
            )
        value = Workspace(name=name, created_at=datetime.now(UTC), created_by=user)
        self.store.refs.set(ref_name, value.encode(), current.version if current else None)
        return WorkspaceCatalog(self.store, value)

    def workspace(self, name: str) -> WorkspaceCatalog:
        """Return what is in a workspace.

        :raises UnknownNameError: there is none of this name
        """
        ref = self.store.refs.get(f"workspaces/{check_workspace(name)}/workspace")
        if ref is None:
            raise UnknownNameError(
                "workspace", name, (known.name for known in self.workspaces()), "See kaos workspace list."
            )
        return WorkspaceCatalog(self.store, Workspace.parse(ref.value))


class WorkspaceCatalog(Jobs, Trials, Builds, ModelRecords):
    """The names of one workspace."""

    def check_alive(self) -> None:
        """Check that the workspace takes jobs.

        :raises InvalidInputError: it was killed, with its models kept
        """
        if self.workspace.killed_at is not None:
            name = self.workspace.name
            raise InvalidInputError(
                f"The workspace {name!r} was killed; its models are still there.",
                f"Bring it back: kaos workspace create -n {name}",
            )

    def set_definition(self, definition: Definition) -> None:
        """Record a definition in place of the one with its name."""
        name = f"{self._at}/definitions/{definition.name}"
        self._swap(name, lambda _: definition.encode())

    def remove_definition(self, name: str) -> None:
        """Forget a definition; one that is not there is no error."""
        self.store.refs.delete(f"{self._at}/definitions/{name}")

    def definitions(self) -> list[Definition]:
        """Return the definitions, sorted by name."""
        return [Definition.parse(value) for _, value in self._values("definitions")]

    def kill(self, *, keep_models: bool) -> None:
        """Forget the workspace; with `keep_models` its jobs and models stay readable."""
        if keep_models:
            killed = self.workspace.model_copy(update={"killed_at": datetime.now(UTC)})
            self._swap(f"{self._at}/workspace", lambda _: killed.encode())
            self.store.refs.delete(f"{self._at}/inputs")
            for below in ("definitions", "schedules", "told"):
                for name in list(self.store.refs.names(f"{self._at}/{below}")):
                    self.store.refs.delete(name)
            return
        # The workspace itself last: a kill cut short can be repeated.
        for name in [*self.store.refs.names(self._at)]:
            if name != f"{self._at}/workspace":
                self.store.refs.delete(name)
        self.store.refs.delete(f"{self._at}/workspace")
