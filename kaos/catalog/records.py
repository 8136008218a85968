"""What the records of a workspace have in common: refs below its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kaos.schema.workspace import Workspace
from kaos.store import Store, change_ref


class Records:
    """Records of one workspace."""

    def __init__(self, store: Store, workspace: Workspace) -> None:
        self.store = store
        self.workspace = workspace
        self._at = f"workspaces/{workspace.name}"

    def _values(self, below: str) -> Iterator[tuple[str, bytes]]:
        for name in self.store.refs.names(f"{self._at}/{below}"):
            ref = self.store.refs.get(name)
            if ref is not None:
                yield name, ref.value

    def _swap(self, name: str, change: Callable[[bytes | None], bytes]) -> bytes:
        return change_ref(self.store.refs, name, change)
