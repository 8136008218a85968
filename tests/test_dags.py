"""From definitions to DAG files: nothing hostile gets into the source, and only what changed is written."""

from __future__ import annotations

import ast
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.errors import InvalidNameError
from kaos.job import Definition
from kaos.store import memory_store, open_file_store
from kaos_dags.publish import head, publish
from kaos_dags.render import file_name, literal, render

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
    source = render(Definition(workspace="mnist", schedule="0 3 * * *", parallelism=7, retries=2))
    tree = ast.parse(source)
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert {"mnist", "kaos.mnist.train", "0 3 * * *", 7, 2, "{{ dag_run.conf['job'] }}"} <= strings
    assert "airflow" in source  # else Airflow's safe mode passes the file over


def statements(source: str) -> list[str]:
    return [type(node).__name__ for node in ast.walk(ast.parse(source))]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_schedules_stay_values(text: str) -> None:
    source = render(Definition(workspace="mnist", schedule=text))
    assert text in {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    assert statements(source) == statements(render(Definition(workspace="mnist", schedule="@daily")))


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
    publish(store, {file_name(each): render(each) for each in (mnist, other)})
    version = follow(store, folder).digest
    inodes = {path.name: path.stat().st_ino for path in folder.glob("*.py")}
    assert set(inodes) == {"kaos.mnist.train.py", "kaos.other.train.py"}
    changed = mnist.model_copy(update={"parallelism": 9})
    publish(store, {file_name(changed): render(changed)})
    assert follow(store, folder).digest != version
    after = {path.name: path.stat().st_ino for path in folder.glob("*.py")}
    assert after["kaos.other.train.py"] == inodes["kaos.other.train.py"]
    assert after["kaos.mnist.train.py"] != inodes["kaos.mnist.train.py"]
    publish(store, {file_name(mnist): None})
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
