"""The operations on schedules."""

from __future__ import annotations

from urllib.parse import quote

from kaos.names import check_definition, check_workspace
from kaos.schema.schedule import ScheduleDeleted, ScheduleList, ScheduleRow, ScheduleSet
from kaos_cli.client import Client, Connection


class SchedulesClient(Client):
    """The schedules of one workspace."""

    def __init__(self, connection: Connection, workspace: str) -> None:
        super().__init__(connection)
        self._at = f"/workspaces/{check_workspace(workspace)}/schedules"

    def list(self) -> ScheduleList:
        """Return them, by name."""
        return self._get(ScheduleList, self._at)

    def set(self, name: str, schedule: ScheduleSet) -> ScheduleRow:
        """Make one, or change the one of that name."""
        return self._call(ScheduleRow, "PUT", self._one(name), body=schedule)

    def pause(self, name: str) -> ScheduleRow:
        """Let one start no more jobs."""
        return self._call(ScheduleRow, "POST", f"{self._one(name)}/pause")

    def resume(self, name: str) -> ScheduleRow:
        """Let one start jobs again."""
        return self._call(ScheduleRow, "POST", f"{self._one(name)}/resume")

    def answer(self, name: str, *, approved: bool) -> ScheduleRow:
        """Say whether the model that waits shall be deployed."""
        return self._call(ScheduleRow, "POST", f"{self._one(name)}/answer", query={"approved": approved})

    def delete(self, name: str) -> ScheduleDeleted:
        """Remove one, and end what runs of it."""
        return self._call(ScheduleDeleted, "DELETE", self._one(name))

    def _one(self, name: str) -> str:
        return f"{self._at}/{quote(check_definition(name), safe='')}"
