"""Resources: what is accepted, what is refused and how, and what a machine can give."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kaos.errors import InvalidResourceError
from kaos.resources import Capacity, Resources, show_memory
from kaos.runtime import capacity
from kaos.runtime.cgroup import Mounts


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1k", 1000),
        ("512Mi", 512 * 2**20),
        ("2G", 2 * 10**9),
        ("1.5Gi", 3 * 2**29),
        ("0.1T", 10**11),
        ("1Ki", 1024),
        ("1M", 10**6),
        ("1Ti", 2**40),
    ],
)
def test_memory_is_read_exactly(text: str, size: int) -> None:
    assert Resources.parse(memory=text).memory == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0Mi",
        "512",
        "-1G",
        "nan",
        "inf",
        "1e3M",
        "1K",
        "1m",
        "1 G",
        "1GB",
        "G",
        "1G\n",
        "٣G",
        "0.0001k",
    ],
)
def test_memory_that_breaks_the_rule_is_refused_with_the_rule(text: str) -> None:
    with pytest.raises(InvalidResourceError, match="k, M, G, T, Ki, Mi, Gi, Ti") as caught:
        Resources.parse(memory=text)
    assert repr(text) in caught.value.message


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "1e2", "two", "500m", "1_0"])
def test_cpu_that_is_no_positive_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidResourceError, match="number of cores"):
        Resources.parse(cpu=text)


@pytest.mark.parametrize("text", ["-1", "1.5", "all", ""])
def test_gpu_that_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(InvalidResourceError, match="whole number"):
        Resources.parse(gpu=text)


def test_what_is_not_given_is_not_limited() -> None:
    assert Resources.parse() == Resources(cpu=None, memory=None, gpu=None)
    assert Resources.parse(cpu="0.5", memory="2G", gpu="1") == Resources(cpu=0.5, memory=2 * 10**9, gpu=1)
    assert Resources.parse(cpu=0.5).cpu == 0.5


def test_resources_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Resources().cpu = 1  # type: ignore[misc]


def test_more_than_the_machine_has_is_refused_with_both_numbers() -> None:
    machine = Capacity(cpu=2, memory=8 * 2**30)
    with pytest.raises(InvalidResourceError) as caught:
        Resources.parse(cpu="3", memory="16Gi", gpu="1").check(machine)
    assert caught.value.message == (
        "--cpu asks for 3 cores, the machine has 2 cores; --memory asks for 16Gi, the machine has 8Gi;"
        " --gpu asks for 1 GPU, the machine has no GPU."
    )


def test_as_much_as_the_machine_has_is_accepted() -> None:
    Resources.parse(cpu="2", memory="8Gi", gpu="0").check(Capacity(cpu=2, memory=8 * 2**30))
    Resources().check(Capacity(cpu=1, memory=1))


def test_resources_and_capacities_are_shown_for_people() -> None:
    assert Resources().show() == "no limits"
    assert Resources.parse(cpu="1", memory="512Mi", gpu="2").show() == "1 core, 512Mi of memory, 2 GPUs"
    assert Capacity(cpu=2, memory=25274689536).show() == "2 cores, 23.5Gi of memory and no GPU"


@given(st.integers(1, 9999), st.sampled_from(["k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"]))
def test_shown_memory_is_read_back_as_the_same(count: int, suffix: str) -> None:
    memory = Resources.parse(memory=f"{count}{suffix}").memory
    assert memory is not None
    assert Resources.parse(memory=show_memory(memory)).memory == memory


def test_the_capacity_of_this_machine_is_read() -> None:
    here = capacity.machine_capacity()
    assert here.cpu > 0
    assert here.memory > 2**26
    assert here.gpu >= 0


def test_limits_of_the_control_groups_above_us_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "slice" / "scope"
    own.mkdir(parents=True)
    for directory in (own, own.parent):
        (directory / "cgroup.procs").touch()
    (own / "cpu.max").write_text("max 100000\n")
    (own / "memory.max").write_text("max\n")
    (own.parent / "cpu.max").write_text("50000 100000\n")
    (own.parent / "memory.max").write_text("104857600\n")
    monkeypatch.setattr(capacity, "own_mounts", lambda: Mounts(own, {}))
    here = capacity.machine_capacity()
    assert (here.cpu, here.memory) == (0.5, 100 * 2**20)


def test_limits_of_version_1_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in {
        "cgroup.procs": "",
        "cpu.cfs_quota_us": "25000",
        "cpu.cfs_period_us": "100000",
        "memory.limit_in_bytes": "1048576",
    }.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(capacity, "own_mounts", lambda: Mounts(None, {"cpu": tmp_path, "memory": tmp_path}))
    here = capacity.machine_capacity()
    assert (here.cpu, here.memory) == (0.25, 2**20)
