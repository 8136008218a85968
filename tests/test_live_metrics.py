"""Live metrics: lines that a script appends, read while it runs and from the model afterwards."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.curves import LONGEST_LINE, MOST_METRICS, Latest, Sampler, Splitter, lines_of, parse_line, show
from kaos.history import curves, last_metrics
from kaos.live import MetricsTail
from kaos.store.memory import memory_store
from kaos.transfer.push import store_directory

MIB = 1 << 20


def live(output: Path, name: str = "train.jsonl") -> Path:
    """Return a file of live metrics in an output directory."""
    (output / "metrics").mkdir(exist_ok=True)
    return output / "metrics" / name


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
LINE = st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode())
METRICS = st.dictionaries(st.sampled_from("abc"), st.floats(), min_size=1).map(
    lambda value: json.dumps(value).encode()
)


@given(LINE)
def test_any_bytes_are_a_line_of_numbers_or_none(content: bytes) -> None:
    line = parse_line(content)
    if line is not None:
        assert line.metrics
        assert "step" not in line.metrics
        assert all(isinstance(value, float) for value in line.metrics.values())
        assert line.step is None or math.isfinite(line.step)


@given(st.lists(METRICS | LINE.filter(lambda line: b"\n" not in line)), st.lists(st.integers(1, 30)))
def test_lines_are_the_same_however_they_arrive(lines: list[bytes], cuts: list[int]) -> None:
    content = b"\n".join(lines)
    chunks, rest = [], content
    for cut in cuts:
        chunks.append(rest[:cut])
        rest = rest[cut:]
    together = [line for line in map(parse_line, lines) if line is not None]
    assert repr(list(lines_of([*chunks, rest]))) == repr(together)


@given(st.lists(st.binary(max_size=60)))
def test_a_file_that_grows_by_anything_is_read_to_its_last_whole_line(chunks: list[bytes]) -> None:
    splitter = Splitter()
    found = [line for chunk in chunks for line in splitter.feed(chunk)]
    assert found == b"".join(chunks).split(b"\n")[:-1]


def test_half_written_line_counts_once_it_is_whole(tmp_path: Path) -> None:
    tail = MetricsTail(tmp_path)
    assert not tail.look()
    file = live(tmp_path)
    append(file, '{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    assert tail.look()
    assert (tail.latest.step, tail.latest.metrics) == (1, {"loss": 0.5})
    assert not tail.look()
    append(file, 'ss": 0.25}\n')
    assert tail.look()
    assert (tail.latest.step, tail.latest.metrics) == (2, {"loss": 0.25})


def test_what_is_no_metric_is_passed_over(tmp_path: Path) -> None:
    tail = MetricsTail(tmp_path)
    lines = [
        "epoch 3",
        "[1]",
        '{"a": "text", "b": true, "c": null}',
        "{" * 10_000,
        '{"": 1}',
        '{"\\u001b[2J": 1}',
    ]
    append(live(tmp_path), "\n".join([*lines, '{"n": NaN, "text": "x", "many": 1' + "0" * 400 + "}", ""]))
    assert tail.look()
    assert list(tail.latest.metrics) == ["n"]
    assert math.isnan(tail.latest.metrics["n"])


def test_file_that_is_cut_or_replaced_is_read_from_its_start(tmp_path: Path) -> None:
    tail = MetricsTail(tmp_path)
    file = live(tmp_path)
    append(file, '{"a": 1}\n{"a": 2}\n')
    assert tail.look()
    file.write_text('{"a": 3}\n')
    assert tail.look()
    assert tail.latest.metrics == {"a": 3}
    other = file.with_name("new")
    other.write_text('{"a": 4}\n' + " " * 100 + "\n")
    other.replace(file)
    assert tail.look()
    assert tail.latest.metrics == {"a": 4}


def test_of_much_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    pread = os.pread

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        chunk = pread(descriptor, size, offset)
        read.append(len(chunk))
        return chunk

    monkeypatch.setattr(os, "pread", counted)
    file, tail = live(tmp_path), MetricsTail(tmp_path)
    append(file, '{"first": 1}\n' + '{"a": 1, "pad": "x"}\n' * 200_000 + '{"a": 2}\n')
    assert tail.look()
    assert tail.latest.metrics == {"a": 2}
    append(file, '{"a": 3}\n')
    assert tail.look()
    assert read == [MIB, 9]
    append(file, '{"pad": "' + "x" * (3 * LONGEST_LINE) + '"}\n{"a": 4}\n')
    assert tail.look()
    assert tail.latest.metrics == {"a": 4}


def test_links_pipes_and_directories_are_not_read(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    secret = tmp_path / "secret.jsonl"
    secret.write_text('{"secret": 1}\n')
    live(output, "link.jsonl").symlink_to(secret)
    os.mkfifo(live(output, "pipe.jsonl"))
    live(output, "directory.jsonl").mkdir()
    live(output, "notes.txt").write_text('{"notes": 1}\n')
    tail = MetricsTail(output)
    assert not tail.look()
    append(live(output), '{"a": 1}\n')
    assert tail.look()
    assert tail.latest.metrics == {"a": 1}
    (output / "metrics").rename(tmp_path / "elsewhere")
    (output / "metrics").symlink_to(tmp_path / "elsewhere")
    append(tmp_path / "elsewhere" / "train.jsonl", '{"a": 2}\n')
    assert not tail.look()


def test_thousands_of_names_are_cut_at_the_first(tmp_path: Path) -> None:
    latest = Latest()
    for line in lines_of([json.dumps({f"m{i}": i for i in range(4000)}).encode(), b'\n{"m1": 5, "new": 1}']):
        latest.add(line)
    assert list(latest.metrics) == [f"m{i}" for i in range(MOST_METRICS)]
    assert latest.metrics["m1"] == 5
    assert len(show(3, latest.metrics)) < 200


@given(st.integers(1, 5000), st.integers(1, 50))
def test_curves_keep_both_ends_and_few_points(count: int, most: int) -> None:
    sampler = Sampler(most)
    for place in range(count):
        sampler.add(None, place / 2)
    points = sampler.points
    assert points[0] == (0, 0)
    assert points[-1] == (count - 1, (count - 1) / 2)
    assert min(count, most) <= len(points) <= 2 * most + 1
    assert points == sorted(points)


def test_models_curves_and_last_values_come_from_its_files(tmp_path: Path) -> None:
    objects = memory_store().objects
    live(tmp_path, "a.jsonl").write_text(
        "".join(f'{{"step": {10 * i}, "loss": {1 / (1 + i)}}}\n' for i in range(100_000)) + '{"last": 7}'
    )
    live(tmp_path, "b.jsonl").write_text('{"val": 1}\nnothing\n{"val": NaN}\n')
    model = store_directory(tmp_path, objects)
    found = curves(model, objects, 100)
    assert found["loss"][0] == (0, 1)
    assert found["loss"][-1] == (999_990, 1 / 100_000)
    assert len(found["loss"]) <= 201
    assert [step for step, _ in found["val"]] == [0, 1]
    last = last_metrics(model, objects)
    assert (last["loss"], last["last"]) == (1 / 100_000, 7)
    assert math.isnan(last["val"])
