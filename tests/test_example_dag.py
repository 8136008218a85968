"""The example DAG, parsed and run by Airflow itself."""

from __future__ import annotations

from airflow_example import Example

from kaos.job import JobState


def test_example_trains_a_model(example: Example) -> None:
    assert example.states[0] == "success"
    workspace = example.catalog.workspace("digits")
    (model_id,) = workspace.model_ids()
    (record,) = workspace.model_records(model_id)
    assert record.metrics == {"rows": 3}
    files = {file.path for file in workspace.tree(record.digest).files}
    assert files == {"metrics/metrics.json", "model.txt"}
    assert (record.job.author, record.job.source.name, record.job.data.name) == ("ada", "code", "table")
    assert record.airflow.dag_id == record.job.dag_id == "kaos_example"
    assert (record.job.resources.cpu, record.job.resources.memory) == (1, 2 << 30)
    assert workspace.store.objects.get(record.run.log) == b"trained on 3 rows\n"
    outcome = workspace.outcome(record.job.job_id)
    assert outcome is not None
    assert outcome.state is JobState.SUCCESS


def test_workspace_that_the_example_made_can_be_deployed_to(example: Example) -> None:
    # `kaos train deploy` generates the workspace's DAG from this.
    definitions = example.catalog.workspace("digits").definitions()
    assert [definition.dag_id for definition in definitions] == ["kaos.digits.train"]


def test_failing_script_fails_the_run_and_is_recorded(example: Example) -> None:
    assert example.states[1] == "failed"
    workspace = example.catalog.workspace("broken")
    (job_id,) = workspace.job_ids()
    outcome = workspace.outcome(job_id)
    assert outcome is not None
    assert (outcome.state, outcome.reason) == (JobState.FAILURE, "train: exit code 3.")
    assert workspace.model_ids() == []
