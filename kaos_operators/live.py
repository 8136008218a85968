"""Bring the live metrics of a trial into the workspace's records, where the API server finds them."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kaos.curves import LiveTrial
from kaos.errors import KaosError
from kaos.live import MetricsTail

if TYPE_CHECKING:
    from kaos.catalog import WorkspaceCatalog
    from kaos.job import Trial

log = logging.getLogger(__name__)

_SECONDS = 1.0


class LiveMetrics:
    """The metrics of one trial while it runs.

    :param output: the script's output directory
    """

    def __init__(self, workspace: WorkspaceCatalog, job_id: str, trial: Trial, output: Path) -> None:
        self._workspace = workspace
        self._job_id = job_id
        self._trial = trial
        self._tail = MetricsTail(output)
        self._next = time.monotonic() + _SECONDS
        self._warned = False
        self._recorded = False

    def look(self) -> None:
        """Record what is new, once a second at most; a store that fails must not fail the training."""
        if time.monotonic() < self._next:
            return
        if self._tail.look():
            try:
                self._record()
            except (KaosError, OSError) as error:
                if not self._warned:
                    log.warning("The live metrics of %s cannot be recorded: %s", self._trial.name, error)
                self._warned = True
        self._next = time.monotonic() + _SECONDS

    def forget(self) -> None:
        """Take the metrics of a trial that has ended out of the records."""
        if self._recorded:
            self._workspace.drop_live(self._job_id, self._trial.index)

    def _record(self) -> None:
        latest = self._tail.latest
        live = LiveTrial(
            index=self._trial.index,
            name=self._trial.name,
            params=self._trial.params,
            step=latest.step,
            metrics=latest.metrics,
            at=datetime.now(UTC),
        )
        self._recorded = True
        self._workspace.set_live(self._job_id, live)
