"""What a condition says and refuses, and that nothing gets through by being unknown."""

from __future__ import annotations

import json
import math
import operator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.errors import InvalidConditionError
from kaos.gate import LONGEST, Comparison, Condition, Every, Metric, Node, Not, Number, Some
from kaos.lineage import small

OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
ALL = ["a", "loss", "accuracy_test", "val/loss", "top-5", "current", "and", "a b", "current.a"]
NAMES = st.sampled_from(ALL)
FEW = st.sampled_from([-1.5, 0.0, 0.5, 1.0, 1e20])
METRICS = st.dictionaries(NAMES, FEW)


def comparisons(serving: bool = True) -> st.SearchStrategy[Node]:
    new = NAMES.map(Metric)
    other = st.one_of(
        st.builds(Number, FEW),
        new,
        *([NAMES.map(lambda name: Metric(name, current=True))] if serving else []),
    )
    one_way = st.builds(Comparison, new, st.sampled_from(list(OPERATORS)), other)
    return st.one_of(one_way, one_way.map(lambda each: Comparison(each.right, each.operator, each.left)))


def nodes(serving: bool = True) -> st.SearchStrategy[Node]:
    return st.recursive(
        comparisons(serving),
        lambda inner: st.one_of(
            st.builds(Not, inner),
            st.builds(Every, st.tuples(inner, inner)),
            st.builds(Some, st.tuples(inner, inner, inner)),
        ),
        max_leaves=6,
    )


def meaning(node: Node, new: dict[str, float], current: dict[str, float]) -> bool:
    """Return what a condition means where every metric is there."""
    if isinstance(node, Not):
        return not meaning(node.of, new, current)
    if isinstance(node, Every):
        return all(meaning(each, new, current) for each in node.of)
    if isinstance(node, Some):
        return any(meaning(each, new, current) for each in node.of)
    sides = [
        each.value if isinstance(each, Number) else (current if each.current else new)[each.name]
        for each in (node.left, node.right)
    ]
    return bool(OPERATORS[node.operator](*sides))


def whole(metrics: dict[str, float], value: float) -> dict[str, float]:
    return {name: metrics.get(name, value) for name in ALL}


def read(node: Node) -> Condition | None:
    text = str(node)
    return Condition(text) if len(text) <= LONGEST else None


@given(nodes(), METRICS, METRICS)
def test_a_condition_means_what_it_says(node: Node, new: dict[str, float], current: dict[str, float]) -> None:
    condition = read(node)
    if condition is not None:
        assert str(condition) == str(node)
        new, current = whole(new, 0.5), whole(current, 0.5)
        assert condition.of(new, current).holds is meaning(node, new, current)


@given(nodes(), METRICS, METRICS, FEW)
def test_what_is_not_known_lets_no_model_through(
    node: Node, new: dict[str, float], current: dict[str, float], value: float
) -> None:
    condition = read(node)
    if condition is not None and condition.of(new, current).holds:
        assert meaning(node, whole(new, value), whole(current, value))  # whatever the missing ones were


@given(nodes(), METRICS)
def test_the_first_model_passes_whatever_it_would_be_compared_with(node: Node, new: dict[str, float]) -> None:
    condition = read(node)
    if condition is not None and all(
        any(isinstance(side, Metric) and side.current for side in (each.left, each.right))
        for each in condition.comparisons
    ):
        assert condition.of(whole(new, 0.5), None).holds


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_at_a_place_of_it(text: str) -> None:
    _read_or_refused(text)


WORDS = """a b > < >= == = ! 0.9 1e3 . and or not ( ) current current.a " "x y\""""


@given(st.lists(st.sampled_from(WORDS.split(" "))))
def test_any_words_are_read_or_refused_at_a_place_of_them(words: list[str]) -> None:
    _read_or_refused(" ".join(words))


def _read_or_refused(text: str) -> None:
    try:
        condition = Condition(text)
    except InvalidConditionError as error:
        _, shown, caret = error.message.split("\n")
        assert caret.strip() == "^"
        assert len(caret) <= len(shown) + 1
    else:
        assert str(Condition(str(condition))) == str(condition)
        assert condition.metrics


def test_the_left_side_and_current_are_those_of_the_metric_before() -> None:
    condition = Condition("accuracy_validation >= 0.9 and > current")
    assert (
        str(condition)
        == "(accuracy_validation >= 0.9) and (accuracy_validation > current.accuracy_validation)"
    )
    assert condition.metrics == ("accuracy_validation",)
    better, worse = {"accuracy_validation": 0.95}, {"accuracy_validation": 0.93}
    assert condition.of(better, worse).holds
    assert not condition.of(worse, better).holds
    assert not condition.of(worse, worse).holds
    assert condition.of(worse, None).holds
    assert not condition.of({"accuracy_validation": 0.8}, None).holds
    assert condition.of(worse, better).reason == (
        "accuracy_validation >= 0.9: 0.93 and 0.9, yes; "
        "accuracy_validation > current.accuracy_validation: 0.93 and 0.95, no"
    )


@pytest.mark.parametrize("value", [None, math.nan])
@pytest.mark.parametrize(
    "text", ["m > 0.5", "not m > 0.5", "m != 0.5", "m > current", "not (m < 0.5 or m > 2)"]
)
def test_missing_and_nan_metrics_are_not_met(text: str, value: float | None) -> None:
    new = {} if value is None else {"m": value}
    for current in ({"m": 0.1}, None):
        verdict = Condition(text).of(new, current)
        assert not verdict.holds
        assert "no metric 'm'" in verdict.reason if value is None else "NaN" in verdict.reason
    assert not Condition("m > current").of({"m": 1.0}, new).holds
    assert Condition("m > 0.5 or x > 0").of({**new, "x": 1.0}, None).holds


@pytest.mark.parametrize(
    ("text", "lower"),
    [
        ("loss < current", True),
        ("0.5 > loss", True),
        ("acc >= 0.9", False),
        ("0.9 < acc", False),
        ("a == 1", False),
        ("not loss > current", True),
        ("not (acc < 0.9 or 0.1 > acc)", False),
        ("not not loss < 1", True),
    ],
)
def test_direction_of_a_metric(text: str, lower: bool) -> None:
    condition = Condition(text)
    assert condition.lower_is_better(condition.metrics[0]) is lower


@pytest.mark.parametrize(
    ("text", "problem", "place"),
    [
        ("", "a metric or a number is missing", 0),
        ("> current", "a metric is missing before this", 0),
        ("a > 1 and 0.9 <= b and > current", "a metric is missing before this", 23),
        ("a >= and b < 1", "a metric or a number is missing", 5),
        ("a = 1", "a comparison is one of", 2),
        ("a > 1 b", "'and' or 'or'", 6),
        ("(a > 1", "a ')' is missing", 6),
        ("a > 1)", "no ')' is expected", 5),
        ("1 > 2", "compares no metric of the new model", 0),
        ("current > 1", "Write current.NAME", 0),
        ("0.9 < current", "Write current.NAME", 6),
        ("a < b < c", "need an 'and'", 6),
        ("a > __import__('os')", "no number, metric or comparison", 15),
        ("a > 1; b", "no number, metric or comparison", 5),
        ("a > 1\nor b > 2", "cannot be printed", 5),
        ("(" * 60 + "a > 1" + ")" * 60, "more than 50 deep", 50),
        ("a > 1 or " * 100 + "a > 1", "more than 500 characters", 40),
    ],
)
def test_refusals_show_the_place(text: str, problem: str, place: int) -> None:
    with pytest.raises(InvalidConditionError) as caught:
        Condition(text)
    said, _, caret = caught.value.message.split("\n")
    assert problem in said
    assert caret.index("^") == place + 2


def test_what_was_compared_is_kept_as_json() -> None:
    verdict = Condition("a > 0.5 and b < current").of({"a": math.inf, "b": math.nan}, {"b": 1.0})
    again: Any = type(verdict).parse(verdict.encode())
    assert again == verdict
    # Airflow refuses an XCom with what is no JSON.
    plain = json.loads(json.dumps(small(verdict), allow_nan=False))
    assert plain["compared"][0]["left"] == "Infinity"
    assert type(verdict).model_validate(plain) == verdict
