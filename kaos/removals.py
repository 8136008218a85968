"""The policies of workspaces, and what retention removed.

The refs, below ``workspaces/<workspace>/``; none of them names an object that it would keep::

    retention/<id>                  a PolicyChange; the newest holds
    removed/models/<model_id>/<id>  a Tombstone; the newest tells how the model is
    removed/jobs/<job_id>           a Note: of the job nothing but its records is left
    trees/<digest>                  a Note in the place of the empty value, once the tree is removed

and ``collections/<id>``: digest of the Report of a collection, an object that lists what it discarded.
"""

from __future__ import annotations

from datetime import UTC, datetime

from kaos.catalog import WorkspaceCatalog
from kaos.errors import CorruptObjectError, RemovedError
from kaos.job import new_job_id
from kaos.retention import Note, PolicyChange, RetentionPolicy
from kaos.store import Store

COLLECTIONS = "collections"


class Removals:
    """What one workspace keeps, and what it has lost."""

    def __init__(self, workspace: WorkspaceCatalog) -> None:
        self.workspace = workspace
        self.refs = workspace.store.refs
        self._at = f"workspaces/{workspace.workspace.name}"

    def change(self) -> PolicyChange | None:
        """Return the policy that holds, with who set it, or None if there never was one."""
        names = list(self.refs.names(f"{self._at}/retention"))
        ref = self.refs.get(names[-1]) if names else None
        return PolicyChange.parse(ref.value) if ref else None

    def policy(self) -> RetentionPolicy:
        """Return the policy that holds; one that keeps all if none was set."""
        found = self.change()
        return found.policy if found else RetentionPolicy()

    def set_policy(self, policy: RetentionPolicy, user: str) -> PolicyChange:
        """Let a policy hold from now on."""
        change = PolicyChange(policy=policy, by=user, at=datetime.now(UTC))
        self.refs.create(f"{self._at}/retention/{new_job_id()}", change.encode())
        return change

    def models(self) -> list[str]:
        """Return the ids of all models that were ever removed."""
        return sorted({name.split("/")[4] for name in self.refs.names(f"{self._at}/removed/models")})

    def jobs(self) -> list[str]:
        """Return the ids of the jobs of which nothing but the records is left."""
        return [name.rpartition("/")[2] for name in self.refs.names(f"{self._at}/removed/jobs")]

    def job(self, job_id: str) -> Note | None:
        """Return when and why a job's content was removed, or None."""
        ref = self.refs.get(f"{self._at}/removed/jobs/{job_id}")
        return Note.parse(ref.value) if ref else None

    def remove_job(self, job_id: str, note: Note) -> None:
        """Record that nothing but a job's records will be left."""
        self.refs.create(f"{self._at}/removed/jobs/{job_id}", note.encode())

    def bring_job_back(self, job_id: str) -> None:
        """Record that a job is needed after all."""
        self.refs.delete(f"{self._at}/removed/jobs/{job_id}")

    def remove_tree(self, digest: str, note: Note) -> None:
        """Record that the content of a tree is removed, if it counts as kept."""
        name = f"{self._at}/trees/{digest}"
        ref = self.refs.get(name)
        if ref is not None and not ref.value:
            self.refs.set(name, note.encode(), ref.version)

    def content(self, job_id: str, digest: str) -> bytes:
        """Return an object of a job, such as a log.

        :raises RemovedError: retention has removed it, though its bytes may be there yet, or another's
        """
        note = self.job(job_id)
        if note is None:
            try:
                return self.workspace.store.objects.get(digest)
            except CorruptObjectError:
                note = removed_object(self.workspace.store, digest)
                if note is None:
                    raise
        raise RemovedError(f"log of job {job_id}", note.shown, "Its records are left: kaos train info.")


def removed_object(store: Store, digest: str) -> Note | None:
    """Return when and why an object was discarded, None if no collection did that."""
    for name in reversed(list(store.refs.names(COLLECTIONS))):
        ref = store.refs.get(name)
        if ref is None:
            continue
        line, _, discarded = store.objects.get(ref.value.decode()).partition(b"\n")
        if digest.encode() in discarded:
            return Note.parse(line)
    return None
