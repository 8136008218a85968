"""From definitions to DAG files: nothing hostile gets into the source, and only what changed is written."""

from __future__ import annotations

import ast
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.bundle import File
from kaos.digest import digest_bytes
from kaos.errors import InvalidNameError
from kaos.job import Definition
from kaos.schedule import Promotion, Schedule
from kaos.store import Store, memory_store, open_file_store
from kaos_dags.publish import head, holds, publish
from kaos_dags.render import file_name, literal, render, task_ids

HOSTILE = [
    '"; import os; os.system("id"); "',
    "'''",
    '"""',
    "\\",
    "\n\nimport os\n",
    "{{ 7*7 }}",
    "{% raw %}",
    "${x}",
    "\u2028import os",
    "a" * 1000,
]


def test_rendered_source_is_plain_python_with_the_values_as_literals() -> None:
    source = render(Definition(workspace="mnist", parallelism=7, retries=2))
    tree = ast.parse(source)
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert {"mnist", "kaos.mnist.train", 7, 2, "{{ dag_run.conf['job'] }}"} <= strings
    assert "airflow" in source  # else Airflow's safe mode passes the file over


def statements(source: str) -> list[str]:
    return [type(node).__name__ for node in ast.walk(ast.parse(source))]


def scheduled(name: str = "nightly", kind: Literal["train", "watch"] = "train", **fields: Any) -> Definition:
    schedule = Schedule(author="ada", created_at=datetime(2026, 1, 1, tzinfo=UTC), **fields)
    return Definition(workspace="mnist", name=name, kind=kind, schedule=schedule)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_schedules_stay_values(text: str) -> None:
    plain = statements(render(scheduled(cron="@daily")))
    for fields in ({"cron": text}, {"cron": "@daily", "timezone": text}):
        source = render(scheduled(**fields))
        assert text in {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
        assert statements(source) == plain


def test_hostile_conditions_stay_values() -> None:
    def source(metric: str) -> str:
        return render(
            scheduled(every=60, promotion=Promotion(endpoint="digits", condition=f'"{metric}" > 0'))
        )

    for text in ("'); import os; os.system('id'); ('", "\\", "{{ 7*7 }}", "{% raw %}"):
        tree = ast.parse(source(text))
        assert text in {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert statements(source(text)) == statements(source("metric"))


PROMOTION = Promotion(endpoint="digits", condition="accuracy >= 0.9 and > current")


@pytest.mark.parametrize(
    ("definition", "tasks", "timetable"),
    [
        (scheduled(cron="0 3 * * *", timezone="Europe/Berlin"), [], "0 3 * * *"),
        (scheduled(every=3600), [], "1:00:00"),
        (scheduled(on_data=True), [], "Asset"),
        (scheduled(every=60, promotion=PROMOTION), ["gate", "promote"], "0:01:00"),
        (
            scheduled(every=60, promotion=PROMOTION.model_copy(update={"approve": True})),
            ["gate", "approve", "promote"],
            "0:01:00",
        ),
        (scheduled("watch", "watch", every=60), None, "0:01:00"),
    ],
)
def test_scheduled_dags_are_what_airflow_runs(
    definition: Definition, tasks: list[str] | None, timetable: str
) -> None:
    from airflow.serialization.definitions.dag import SerializedDAG
    from airflow.serialization.serialized_objects import DagSerialization

    namespace: dict[str, Any] = {"__name__": "generated", "__file__": "generated.py"}
    exec(compile(render(definition), "generated.py", "exec"), namespace)
    dag = DagSerialization.from_dict(DagSerialization.to_dict(namespace["dag"]))
    assert isinstance(dag, SerializedDAG)
    trained = ["pin", "ingest", "build", "plan", "train", "register"]
    assert set(dag.task_ids) == ({*trained, *tasks} if tasks is not None else {"watch"})
    assert task_ids(render(definition)) == set(dag.task_ids)
    assert dag.timetable.summary == timetable
    assert (dag.max_active_runs, dag.catchup) == (1, False)
    if tasks is not None:  # what is skipped with the first task is all of it
        assert dag.get_task("register").trigger_rule == "none_skipped"
        assert {task.task_id for task in dag.roots} == {"pin"}
        assert [task.task_id for task in dag.task_dict.values() if not task.downstream_task_ids] == [
            (tasks or trained)[-1]
        ]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_refused(text: str) -> None:
    with pytest.raises(InvalidNameError):
        Definition(workspace=text)
    with pytest.raises(InvalidNameError):
        Definition(workspace="mnist", name=text)


@given(
    st.one_of(
        st.text(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.none(), st.booleans()
    )
)
def test_literals_read_back(value: object) -> None:
    text = literal(value)
    assert ast.literal_eval(text) == value
    assert "\n" not in text


@pytest.mark.parametrize("value", [[], {}, object(), b"x"])
def test_other_values_have_no_literal(value: object) -> None:
    with pytest.raises(TypeError):
        literal(value)


def test_publishing_puts_and_removes_files() -> None:
    store = memory_store()
    assert head(store).entries == ()
    first = publish(store, {"a.py": "1\n", "b.py": "2\n"})
    assert publish(store, {"a.py": "1\n"}).digest == first.digest
    second = publish(store, {"a.py": None, "c.py": "3\n"})
    assert [file.path for file in second.files] == ["b.py", "c.py"]
    assert head(store) == second


def test_version_holds_a_file_that_has_not_changed_since() -> None:
    store = memory_store()
    first = publish(store, {"a.py": "a\n", "b.py": "b\n"})
    assert holds(store, first.digest, published(store, "a.py"))
    publish(store, {"b.py": "b2\n"})
    assert holds(store, first.digest, published(store, "a.py"))
    assert not holds(store, first.digest, published(store, "b.py"))
    assert not holds(store, digest_bytes(b"a version that was not kept"), published(store, "a.py"))


def published(store: Store, name: str) -> File:
    file = head(store).file(name)
    assert file is not None
    return file


def test_concurrent_publishers_lose_nothing() -> None:
    store = memory_store()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: publish(store, {f"{number}.py": "x\n"}), range(50)))
    assert len(list(head(store).files)) == 50


def test_tracking_folder_touches_only_what_changed(tmp_path: Path) -> None:
    from kaos_dags.dag_bundle import follow

    store = open_file_store(tmp_path / "store")
    folder = tmp_path / "tracking"
    mnist, other = Definition(workspace="mnist"), Definition(workspace="other")
    publish(store, {file_name(each.dag_id): render(each) for each in (mnist, other)})
    version = follow(store, folder).digest
    inodes = {path.name: path.stat().st_ino for path in folder.glob("*.py")}
    assert set(inodes) == {"kaos.mnist.train.py", "kaos.other.train.py"}
    changed = mnist.model_copy(update={"parallelism": 9})
    publish(store, {file_name(changed.dag_id): render(changed)})
    assert follow(store, folder).digest != version
    after = {path.name: path.stat().st_ino for path in folder.glob("*.py")}
    assert after["kaos.other.train.py"] == inodes["kaos.other.train.py"]
    assert after["kaos.mnist.train.py"] != inodes["kaos.mnist.train.py"]
    publish(store, {file_name(mnist.dag_id): None})
    follow(store, folder)
    assert [path.name for path in folder.glob("*.py")] == ["kaos.other.train.py"]


def test_two_versions_within_a_second_are_both_read(tmp_path: Path) -> None:
    from kaos_dags.dag_bundle import follow

    store = open_file_store(tmp_path / "store")
    for value in (1, 2, 3):  # of the same size: bytecode of the one before must not be taken for it
        publish(store, {"same.py": f"value = {value}\n"})
        follow(store, tmp_path / "tracking")
        loader = SourceFileLoader("same", str(tmp_path / "tracking" / "same.py"))
        namespace: dict[str, object] = {}
        code = loader.get_code("same")
        assert code is not None
        exec(code, namespace)
        assert namespace["value"] == value


def test_files_that_are_loaded_at_once_keep_their_tasks(tmp_path: Path) -> None:
    from kaos_dags.dag_bundle import PublishedFile
    from kaos_plugin.airflow_internals import load_dag

    def tasks(number: int) -> list[str]:
        source = (
            "import time\nfrom airflow.sdk import DAG, BaseOperator\n"
            f"with DAG('at-once-{number}') as dag:\n"
            f"    time.sleep(0.02)\n    BaseOperator(task_id='of-{number}')\n"
        )
        dag = load_dag(PublishedFile("version", tmp_path / f"{number}.py", source.encode()))
        return [each["__var"]["task_id"] for each in dag.data["dag"]["tasks"]]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(tasks, range(8))) == [[f"of-{number}"] for number in range(8)]
