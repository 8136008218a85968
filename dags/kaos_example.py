"""Train a model on directories of the worker: the operators of kaos by hand, in a DAG of apache-airflow.

Copy this file to your DAGs folder and trigger it with a workspace and two directories. A step of your own
that writes the data (a query, a download) goes before `ingest`, one that uses the model after `register`.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Asset, Param

from kaos_operators import (
    BundleIngestOperator,
    ImageBuildOperator,
    PlanTrialsOperator,
    RegisterModelOperator,
    TrainOperator,
)

JOB = "{{ ti.xcom_pull(task_ids='ingest')['job_digest'] }}"  # digest of the job document

with DAG(
    dag_id="kaos_example",
    description="Train a model on directories of the worker",
    schedule=None,
    params={
        "workspace": Param(type="string", description="Where job and model belong; made if it is not there"),
        "source": Param(type="string", description="Directory with Dockerfile and model/train"),
        "data": Param(type="string", description="Directory of the data"),
    },
    default_args={"owner": "ada"},  # the author of what this DAG makes
    tags=["kaos", "example"],
    doc_md=__doc__,
) as dag:
    # Takes the directories in as bundles and makes a job of them. From here on it is pinned what the job runs
    # on, whatever happens to the directories.
    ingest = BundleIngestOperator(
        task_id="ingest",
        workspace="{{ params.workspace }}",
        source="{{ params.source }}",
        data="{{ params.data }}",
        cpu=1,
        memory="2Gi",
    )

    # The task ids `build` and `train` are those that `kaos train logs` follows while the job runs.
    build = ImageBuildOperator(task_id="build", job=JOB)
    plan = PlanTrialsOperator(task_id="plan", job=JOB)
    train = TrainOperator.partial(
        task_id="train",
        job=JOB,
        environment=build.output,
        map_index_template="{{ trial_name }}",
        retries=1,  # for faults of a worker; an error of the script is final
        retry_delay=timedelta(seconds=1),
    ).expand(batch=plan.output)

    # Runs after a failure too: it records how the job ended.
    register = RegisterModelOperator(
        task_id="register",
        job=JOB,
        environment=build.output,
        trigger_rule="all_done",
        outlets=[Asset("kaos://example/model")],
    )

    ingest >> [build, plan]
    train >> register
