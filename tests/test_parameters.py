from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.errors import InvalidParametersError
from kaos.parameters import Space, parse, point_name, point_path

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,10}", fullmatch=True)
LISTS = st.lists(SCALARS, min_size=1, max_size=4, unique_by=json.dumps)


def space(document: object, *, samples: int | None = None, seed: int = 0, most: int = 10_000) -> Space:
    return parse(json.dumps(document).encode(), samples=samples, seed=seed, most=most)


@given(st.dictionaries(NAMES, LISTS, min_size=1, max_size=4))
def test_grid_is_every_combination_once(document: dict[str, list[object]]) -> None:
    found = space(document)
    points = list(found.points())
    assert len(points) == found.size == math.prod(len(values) for values in document.values())
    assert len({json.dumps(point, sort_keys=True) for point in points}) == len(points)
    for point in points:
        assert set(point) == set(document)
        assert all(
            any(value is each or value == each for each in document[name]) for name, value in point.items()
        )
    shuffled = dict(reversed(document.items()))
    assert space(shuffled).digest == found.digest
    assert Space.parse(found.encode()) == found


def test_grid_of_the_reference() -> None:
    found = space({"degree": [5, 6], "kernel": "poly", "gamma": [0.1]})
    points = list(found.points())
    assert points == [
        {"degree": 5, "gamma": 0.1, "kernel": "poly"},
        {"degree": 6, "gamma": 0.1, "kernel": "poly"},
    ]
    assert point_name(points[0]) == "degree=5 gamma=0.1 kernel=poly"
    assert point_path(found.digest, points[0]) == f"/{found.digest[:5]}/degree=5_gamma=0.1_kernel=poly.json"


@given(low=st.floats(1e-6, 10), width=st.floats(0, 100), log=st.booleans(), seed=st.integers(0, 100))
def test_samples_stay_in_their_range_and_repeat(low: float, width: float, log: bool, seed: int) -> None:
    document = {"x": {"min": low, "max": low + width, "log": log}, "n": {"min": 1, "max": 3}, "k": ["a", "b"]}
    points = list(space(document, samples=20, seed=seed).points())
    assert points == list(space(document, samples=20, seed=seed).points())
    for point in points:
        assert low <= point["x"] <= low + width
        assert point["n"] in (1, 2, 3)
        assert isinstance(point["n"], int)
        assert point["k"] in ("a", "b")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not valid JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "no JSON object"),
        (b'{"a": []}', "'a': the list is empty"),
        (b'{"a": [NaN]}', "NaN is no value"),
        (b'{"a": [1, -1e999]}', "-1e999 is more than a number can be"),
        (b'{"a": Infinity}', "Infinity is no value"),
        (b'{"a b": [1]}', "'a b': no name"),
        (b'{"": [1]}', "'': no name"),
        (b'{"1a": [1]}', "no name"),
        (b'{"a": [[1]]}', "no single value"),
        (b'{"a": [1, 1]}', "1 comes twice"),
        (b'{"a": 1, "a": 2}', "the key 'a' comes twice"),
        (b'{"a": {"min": 1}}', 'has "min" and "max"'),
        (b'{"a": {"min": 2, "max": 1}}', "min 2 is above max 1"),
        (b'{"a": {"min": 0, "max": 1, "log": true}}', "begins above 0"),
        (b'{"a": {"min": "0", "max": 1}}', "are numbers"),
        (b'{"a": {"min": 0, "max": 1}}', "needs a number of samples"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_what_cannot_be_used_is_named(content: bytes, reason: str) -> None:
    with pytest.raises(InvalidParametersError) as caught:
        parse(content, samples=None, seed=0, most=10)
    assert reason in caught.value.message


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(InvalidParametersError) as caught:
        space({"a": [], "b c": 1, "d": {"min": 3, "max": 1}})
    assert all(name in caught.value.message for name in ("'a'", "'b c'", "'d'"))


def test_too_many_trials_say_their_number() -> None:
    with pytest.raises(InvalidParametersError, match="give 1000 trials, this server allows 999"):
        space({name: list(range(10)) for name in "abc"}, most=999)
    assert space({name: list(range(10)) for name in "abc"}, most=1000).size == 1000
    with pytest.raises(InvalidParametersError, match="gives no trial"):
        space({"a": [1]}, samples=0)


@given(st.dictionaries(NAMES, SCALARS, min_size=1, max_size=5))
def test_names_of_trials_are_fit_for_files(point: dict[str, object]) -> None:
    name = point_name(point)
    assert "/" not in name
    assert name.isprintable()
    assert len(name) < 200
