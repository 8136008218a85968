"""Pictures of jobs: what is drawn, that every odd set of trials can be, and the same bytes each time."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaos.errors import InvalidInputError, UnknownNameError
from kaos.model import JobSummary, TrialSummary
from kaos.schema.job import Curve, JobCurves
from kaos_cli import train_plot
from kaos_cli.train_draw import draw
from kaos_cli.train_plot import Sheet, sheet

JOB = "01a1fcfe9125724e93f35a3c2999bd66"
NO_CURVES = JobCurves(curves=[], ranges={}, left_out=0)


def trial(index: int, metrics: dict[str, float], reason: str = "", **params: Any) -> TrialSummary:
    return TrialSummary(
        index=index,
        name=f"trial {index}",
        params=params,
        model_id=None,
        digest=None,
        reason=reason,
        metrics=metrics,
    )


def of(*trials: TrialSummary, curves: JobCurves = NO_CURVES, metric: str | None = None) -> Sheet:
    return sheet([(JOB, JobSummary.of(trials))], [curves], metric, ascending=False)


def texts(found: Sheet, tmp_path: Path) -> list[str]:
    """Return what stands in a picture; the SVG has each text as a comment before its outline."""
    draw(found, tmp_path / "x.svg")
    return re.findall(r"<!-- (.*?) -->", (tmp_path / "x.svg").read_text())


GRID = [
    trial(place, {"score": 0.5 + place / 10, "loss": math.nan}, C=C, kernel=kernel, degree=3)
    for place, (C, kernel) in enumerate((C, kernel) for C in (1, 1000) for kernel in ("rbf", "poly"))
]


def test_a_panel_is_drawn_for_each_parameter_that_differs(tmp_path: Path) -> None:
    found = of(*GRID, trial(4, {}, "exit code 3", C=1, kernel="linear", degree=3), metric="score")
    assert found.parameters == ["C", "kernel"]
    shown = texts(found, tmp_path)
    assert "5 trials, 1 failed; all with degree=3" in shown
    assert any(text.startswith("★ best 0.8: C=1000 kernel=poly") for text in shown)
    assert any("× 1 without a value" in text for text in shown)
    for text in ("C", "kernel", "score", "linear", "poly", "rbf", "1000"):
        assert text in shown


def test_axis_is_logarithmic_for_ranges_that_were_and_values_that_span_decades(tmp_path: Path) -> None:
    values = [trial(i, {"m": i}, lr=10.0**-i, few=float(i + 1)) for i in range(4)]
    assert {"0.001", "0.01", "0.1", "1"} <= set(texts(of(*values), tmp_path))
    wide = [trial(i, {"m": i}, lr=0.001 + i / 10) for i in range(11)]
    linear = JobCurves(curves=[], ranges={"lr": False}, left_out=0)
    assert "0.01" in texts(of(*wide), tmp_path)
    assert "0.01" not in texts(of(*wide, curves=linear), tmp_path)
    narrow = [trial(i, {"m": i}, lr=1 + i / 10) for i in range(11)]
    log = JobCurves(curves=[], ranges={"lr": True}, left_out=0)
    assert texts(of(*narrow), tmp_path) != texts(of(*narrow, curves=log), tmp_path)


def test_few_curves_have_a_legend_and_many_a_colour_bar(tmp_path: Path) -> None:
    def curves(count: int) -> JobCurves:
        found = [Curve(index=i, metric="loss", points=[(0, 1), (10, 1 / (i + 2))]) for i in range(count)]
        return JobCurves(curves=found, ranges={}, left_out=3)

    trials = [trial(i, {"score": i}, x=i) for i in range(12)]
    few = texts(of(*trials, curves=curves(4)), tmp_path)
    assert {"x=0", "x=3", "step"} <= set(few)
    assert "12 trials; curves of 3 more trials not shown" in few
    many = texts(of(*trials, curves=curves(12)), tmp_path)
    assert "last loss" in many
    assert "x=0" not in many


def test_jobs_are_told_apart(tmp_path: Path) -> None:
    other = "02" + JOB[2:]
    jobs = [(JOB, JobSummary.of(GRID)), (other, JobSummary.of(GRID))]
    shown = texts(sheet(jobs, [NO_CURVES] * 2, "score", ascending=False), tmp_path)
    assert {f"job {JOB[:14]}", f"job {other[:14]}"} <= set(shown)
    alone = [(JOB, JobSummary.of([trial(0, {"m": 1})])), (other, JobSummary.of([trial(0, {"m": 2})]))]
    assert sheet(alone, [NO_CURVES] * 2, None, ascending=False).parameters == ["job"]


@pytest.mark.parametrize("suffix", train_plot.FORMATS)
def test_the_same_bytes_each_time(suffix: str, tmp_path: Path) -> None:
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    draw(of(*GRID), first)
    draw(of(*GRID), second)
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [first.name, second.name]


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match=r"ends with none of \.png"):
        train_plot.check(tmp_path / "x.gif")
    with pytest.raises(InvalidInputError, match="no metric yet"):
        of()
    with pytest.raises(InvalidInputError, match="no metric yet"):
        of(trial(0, {}, "exit code 1"))
    with pytest.raises(UnknownNameError, match="scor'"):
        of(*GRID, metric="scor")
    with pytest.raises(InvalidInputError, match="cannot be written"):
        draw(of(*GRID), tmp_path / "missing" / "x.png")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidInputError) as refused:
        train_plot.check(tmp_path / "x.png")
    assert "pip install" in refused.value.next_step


SCALAR = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=40)
TRIALS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(["a", "b", "$x_1$"]), SCALAR),
        st.dictionaries(st.sampled_from(["m", "n%^{"]), st.floats()),
    ),
    min_size=1,
    max_size=4,
)
POINTS = st.lists(
    st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.floats()), min_size=1, max_size=3
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=TRIALS, points=POINTS)
def test_any_trials_can_be_drawn(
    found: list[tuple[dict[str, Any], dict[str, float]]], points: list[tuple[float, float]], tmp_path: Path
) -> None:
    trials = [trial(place, metrics, **params) for place, (params, metrics) in enumerate(found)]
    curves = JobCurves(curves=[Curve(index=0, metric="m", points=points)], ranges={}, left_out=0)
    draw(of(*trials, curves=curves), tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000
