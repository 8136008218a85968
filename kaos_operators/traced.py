"""What an operator tells the openlineage provider, if this Airflow has it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors.base import OperatorLineage

    from kaos.openlineage import Traced


class TracedOperator(ABC):
    """Answer the openlineage provider's questions; nothing of it is imported before it asks.

    The provider asks in a process forked from the task's, and logs an error instead of failing the task.
    """

    made: Any = None
    """What `execute` returned."""

    @abstractmethod
    def trace(self) -> Traced:
        """Return what the task reads, and what it has made so far."""

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Return what the task is going to read."""
        return self._lineage()

    def get_openlineage_facets_on_complete(self, task_instance: object) -> OperatorLineage[Any, Any]:
        """Return what the task read and made."""
        return self._lineage()

    def get_openlineage_facets_on_failure(self, task_instance: object) -> OperatorLineage[Any, Any]:
        """Return what the task read, and what it made before it failed."""
        return self._lineage()

    def _lineage(self) -> OperatorLineage[Any, Any]:
        from kaos_operators.openlineage import lineage

        return lineage(self.trace())
