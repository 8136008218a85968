"""Make jobs that have ended: their documents and outcomes in the store, their runs in Airflow's database.

Run as a program of its own, with AIRFLOW_HOME of the server: python bench/seed.py STORE WORKSPACE COUNT
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.models.dag_version import DagVersion
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import insert, select

from kaos.catalog import Catalog
from kaos.digest import digest_bytes
from kaos.job import TRAIN, BundlePin, JobDocument, JobOutcome, JobState
from kaos.names import dag_id
from kaos.resources import Resources
from kaos.store import open_file_store


def main(store: Path, name: str, count: int) -> None:
    """Make the jobs, a minute apart, every tenth one failed."""
    workspace = Catalog(open_file_store(store)).workspace(name)
    dag = dag_id(name, TRAIN)
    pins = {
        kind: BundlePin(name=kind, digest=digest_bytes(kind.encode()), files=3, size=1000, author="bench")
        for kind in ("source", "data")
    }
    begin = datetime.now(UTC) - timedelta(minutes=count + 60)
    rows: list[dict[str, object]] = []
    for number in range(count):
        submitted = begin + timedelta(minutes=number)
        job = _job_id(submitted)
        state = JobState.FAILURE if number % 10 == 0 else JobState.SUCCESS
        document = JobDocument(
            job_id=job,
            workspace=name,
            definition=TRAIN,
            dag_id=dag,
            run_id=job,
            source=pins["source"],
            data=pins["data"],
            resources=Resources(),
            runtime="process",
            author="bench",
            submitted_at=submitted,
            kaos_version="0",
        )
        digest = workspace.add_job(document)
        ended = submitted + timedelta(seconds=30)
        workspace.set_outcome(JobOutcome(job_id=job, state=state, started_at=submitted, ended_at=ended))
        rows.append(_row(dag, job, digest, state, submitted, ended))
    with create_session() as session:
        version = session.scalar(select(DagVersion.id).where(DagVersion.dag_id == dag).limit(1))
        session.execute(
            insert(DagRun.__table__), [{**row, "created_dag_version_id": version} for row in rows]
        )


def _job_id(moment: datetime) -> str:
    milliseconds = int(moment.timestamp() * 1000)
    return f"{milliseconds:012x}7{digest_bytes(str(milliseconds).encode())[:19]}"


def _row(
    dag: str, run: str, digest: str, state: JobState, submitted: datetime, ended: datetime
) -> dict[str, object]:
    return {
        "dag_id": dag,
        "run_id": run,
        "queued_at": submitted,
        "start_date": submitted,
        "end_date": ended,
        "run_after": submitted,
        "last_scheduling_decision": ended,
        "state": DagRunState.SUCCESS if state is JobState.SUCCESS else DagRunState.FAILED,
        "run_type": DagRunType.MANUAL,
        "triggered_by": DagRunTriggeredByType.REST_API,
        "triggering_user_name": "bench",
        "conf": {"job": digest, "workspace": dag.split(".")[1], "author": "bench"},
        "clear_number": 0,
        "updated_at": ended,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
