"""What lineage needs of a model's record, read without the rest: a question may have to read 10,000 of them,
and thousands have the same job, build and run in Airflow.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec


class _Trial(msgspec.Struct):
    index: int
    params: dict[str, Any]


class _Run(msgspec.Struct):
    reused_from: str | None
    started_at: datetime
    ended_at: datetime

    @property
    def seconds(self) -> float:
        return (self.ended_at - self.started_at).total_seconds()


class Sketch(msgspec.Struct):
    """Some of the fields of a `kaos.model.ModelRecord`; those that others share as they are written."""

    model_id: str
    digest: str
    files: int
    size: int
    job: msgspec.Raw
    trial: _Trial
    build: msgspec.Raw
    run: _Run
    airflow: msgspec.Raw
    metrics: dict[str, Any]
    created_at: datetime

    @property
    def made_by(self) -> tuple[bytes, bytes, bytes]:
        """Return the documents of the job, the build and the run in Airflow."""
        return bytes(self.job), bytes(self.build), bytes(self.airflow)


_decoder = msgspec.json.Decoder(Sketch)


def sketch(record: bytes) -> Sketch | None:
    """Return the sketch of a record; None where only `ModelRecord.parse` can tell what it says.

    Metrics that are NaN or infinite are such a case: JSON does not have them.
    """
    try:
        return _decoder.decode(record)
    except msgspec.MsgspecError:
        return None
