"""Draw trials and learning curves with matplotlib: small multiples, a row of panels for each metric."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from kaos.errors import InvalidInputError
from kaos_cli.train_plot import Line, Point, Sheet, show_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import SubFigure

_COLUMNS = 4
_PANEL = (3.9, 3.0)
_FEW = 10
_LABELS = 24
_DENSE = 10
_LARGEST = 1e100
_DECADES = 100
_CURVE_DECADES = 1000
_SPACING = 0.09
_GREY = "#6b7280"
_RED = "#c2410c"
_COLOURS = mpl.color_sequences["tab10"]


def _show(value: float, _: object = None) -> str:
    return f"{value:.4g}"


_PLAIN = FuncFormatter(_show)


def draw(sheet: Sheet, path: Path) -> None:
    """Write the picture in the format of the file's name; the same sheet gives the same bytes.

    :raises InvalidInputError: the file cannot be written
    """
    scratch = path.with_name(f".{path.name}.new{path.suffix}")
    with mpl.rc_context(), warnings.catch_warnings():
        _set_style()
        warnings.simplefilter("ignore")  # of a letter that the font has not
        figure = _figure(sheet)
        try:
            figure.savefig(scratch, metadata=_metadata(path.suffix.lower()))
            scratch.replace(path)
        except OSError as error:
            raise InvalidInputError(
                f"{path} cannot be written: {error.strerror}.", "Write it elsewhere."
            ) from error
        finally:
            scratch.unlink(missing_ok=True)


def _set_style() -> None:
    mpl.rcdefaults()  # whatever the user has set
    mpl.rcParams.update(
        {
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e5e7eb",
            "grid.linewidth": 0.7,
            "axes.axisbelow": True,
            "axes.edgecolor": _GREY,
            "axes.formatter.useoffset": False,
            "legend.fontsize": 7.5,
            "legend.frameon": False,
            "text.parse_math": False,  # a name may have a dollar in it
            "svg.hashsalt": "kaos",  # the same ids each time
            "savefig.dpi": 150,
        }
    )


def _metadata(suffix: str) -> dict[str, None]:
    """Return what takes date and version out of a picture."""
    return {
        ".svg": {"Date": None, "Creator": None},
        ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }.get(suffix, {"Software": None})


def _figure(sheet: Sheet) -> Figure:
    panels = {metric: _panels(sheet, metric) for metric in sheet.metrics}
    columns = min(_COLUMNS, max(len(found) for found in panels.values()))
    rows = {metric: -(-len(found) // columns) for metric, found in panels.items()}
    legend = any(1 < len(lines) <= _FEW for lines in sheet.lines.values())
    width = max(_PANEL[0] * columns + (2.4 if legend else 0.4), 5.0)
    height = sum(_PANEL[1] * count + 0.4 for count in rows.values()) + 0.6
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_shorten("; ".join(sheet.notes), int(width * 14)), fontsize=9, color=_GREY)
    ratios = [count + 0.13 for count in rows.values()]
    sections = figure.subfigures(len(panels), 1, squeeze=False, height_ratios=ratios)[:, 0]
    for section, (metric, found) in zip(sections, panels.items(), strict=True):
        section.suptitle(_title(sheet, metric), fontsize=11, fontweight="bold")
        for place, panel in enumerate(found):
            axes = section.add_subplot(rows[metric], columns, place + 1)
            panel(axes, section)
    if 1 < len(sheet.jobs) <= _FEW and sheet.parameters != ["job"]:
        marks = [Line2D([], [], marker="o", linestyle="", color=colour) for colour in _COLOURS]
        marks = marks[: len(sheet.jobs)]
        sections[0].legend(marks, sheet.jobs, loc="outside lower center", ncols=min(5, len(sheet.jobs)))
    return figure


def _panels(sheet: Sheet, metric: str) -> list[Callable[[Axes, Figure | SubFigure], None]]:
    """Return what draws the panels of a metric: one a parameter, and its learning curves."""

    def parameter(name: str) -> Callable[[Axes, Figure | SubFigure], None]:
        return lambda axes, _: _draw_parameter(axes, sheet, metric, name)

    found = []
    if any(point.value(metric) is not None for point in sheet.points):
        found += [parameter(name) for name in sheet.parameters]
    lines = sheet.lines.get(metric)
    if lines:
        found.append(lambda axes, section: _draw_curves(axes, section, lines, metric))
    return found or [parameter(sheet.parameters[0])]


def _title(sheet: Sheet, metric: str) -> str:
    title = _shorten(metric, 60)
    missing = sum(point.value(metric) is None for point in sheet.points)
    if missing and missing < len(sheet.points):
        title += f"   (× {missing} without a value)"
    best = sheet.best.get(metric)
    if best is not None:
        title += f"\n★ best {best.metrics[metric]:.6g}: {_shorten(best.label, 80)}"
    return title


# -- a metric over a parameter ---------------------------------------------------------------------------


def _draw_parameter(axes: Axes, sheet: Sheet, metric: str, name: str) -> None:
    values = [point.params.get(name) for point in sheet.points]
    numbers = [number for value in values if (number := _number(value)) is not None]
    axes.set_xlabel(_shorten(name, 36))
    axes.set_ylabel(_shorten(metric, 30))
    if len(numbers) == len(values):
        places = numbers
        _scale(axes, numbers, sheet.ranges.get(name))
        groups = len(set(numbers)) <= 12
    else:
        places = _categories(axes, values)
        groups = True
    found = [(place, point) for place, point in zip(places, sheet.points, strict=True)]
    drawn = [(place, value, point) for place, point in found if (value := point.value(metric)) is not None]
    if groups and len(drawn) > len(set(places)):
        _draw_medians(axes, [(place, value) for place, value, _ in drawn], joined=len(numbers) == len(values))
    spread = len(numbers) != len(values) and len(drawn) > 30
    for job in range(len(sheet.jobs)):
        own = [
            (place + (_jitter(number) if spread else 0), value)
            for number, (place, value, point) in enumerate(drawn)
            if point.job == job
        ]
        axes.scatter(
            [place for place, _ in own],
            [value for _, value in own],
            s=34 if len(drawn) <= 60 else 14,
            alpha=0.85 if len(drawn) <= 60 else 0.55,
            color=_COLOURS[job % len(_COLOURS)],
            edgecolors="white",
            linewidths=0.5,
            zorder=3,
        )
    _draw_best(axes, sheet.best.get(metric), found, metric)
    _draw_missing(axes, [place for place, point in found if point.value(metric) is None])
    if not drawn:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no value", transform=axes.transAxes, ha="center", color=_GREY)
    axes.margins(x=0.08, y=0.12)


def _draw_medians(axes: Axes, drawn: list[tuple[float, float]], *, joined: bool) -> None:
    places = sorted({place for place, _ in drawn})
    medians = [statistics.median(value for at, value in drawn if at == place) for place in places]
    if joined:
        axes.plot(places, medians, color=_GREY, linewidth=1, alpha=0.6, zorder=2)
    axes.scatter(places, medians, marker="_", s=160, color=_GREY, linewidths=1.4, zorder=2)


def _draw_best(axes: Axes, best: Point | None, found: Sequence[tuple[float, Point]], metric: str) -> None:
    for place, point in found:
        if point is best:
            axes.scatter(
                [place], [point.metrics[metric]], marker="*", s=150, color="#f59e0b", edgecolors="black",
                linewidths=0.6, zorder=4,
            )  # fmt: skip


def _draw_missing(axes: Axes, places: list[float]) -> None:
    """Mark, at the lower edge, where trials are that have no value."""
    if places:
        axes.scatter(
            places, [0.02] * len(places), marker="x", s=22, color=_RED, linewidths=1.1, zorder=4,
            transform=axes.get_xaxis_transform(), clip_on=False,
        )  # fmt: skip


def _scale(axes: Axes, numbers: list[float], log: bool | None) -> None:
    """Choose a linear or logarithmic axis, with a tick at each value where there are few.

    :param log: what the hyperparameter's range was; None where values were listed
    """
    low, high = min(numbers), max(numbers)
    if low > 0 and (high > _DECADES * low if log is None else log):
        axes.set_xscale("log")
        _plain_logarithm(axes.xaxis, high / low)
        transform: Callable[[float], float] = math.log
    else:
        transform = float
    ticks = _ticks(sorted(set(numbers)), transform)
    if ticks:
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(_PLAIN)
        if sum(len(_show(value)) + 2 for value in ticks) > 42:
            axes.tick_params(axis="x", labelrotation=30)


def _ticks(distinct: list[float], transform: Callable[[float], float]) -> list[float]:
    """Return where ticks go when values are few: at each one that is not too close to the one before."""
    if len(distinct) > 8:
        return []
    kept = distinct[:1]
    for value in distinct[1:]:
        gap = transform(value) - transform(kept[-1])
        if gap >= _SPACING * (transform(distinct[-1]) - transform(distinct[0])):
            kept.append(value)
    return kept


def _plain_logarithm(axis: Axis, ratio: float) -> None:
    """Write the ticks of a logarithmic axis as numbers."""
    axis.set_major_locator(LogLocator(subs=(1.0,) if ratio > _DECADES else (1.0, 2.0, 5.0), numticks=8))
    axis.set_major_formatter(_PLAIN)
    axis.set_minor_formatter(NullFormatter())


def _categories(axes: Axes, values: Sequence[Any]) -> list[float]:
    """Give each value a place of its own, numbers first, and name the places."""
    distinct = sorted({_key(value) for value in values})
    places = {key: float(place) for place, key in enumerate(distinct)}
    labels = [_shorten(label, 18) for *_, label in distinct]
    every = -(-len(labels) // _LABELS)
    axes.xaxis.set_major_locator(FixedLocator([float(at) for at in range(0, len(labels), every)]))
    axes.set_xticklabels(labels[::every])
    if len(labels) > _DENSE:
        axes.tick_params(axis="x", labelrotation=90, labelsize=7)
    elif sum(map(len, labels)) > 30:
        for text in axes.get_xticklabels():
            text.set(rotation=35, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(labels) - 0.5)
    return [places[_key(value)] for value in values]


def _key(value: Any) -> tuple[bool, float, str]:
    number = _number(value)
    return (True, 0.0, show_value(value)) if number is None else (False, number, show_value(value))


def _number(value: Any) -> float | None:
    """Return a finite number as it can be drawn; whatever else there is has a place by its name."""
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > _LARGEST:
        return None
    return float(value) if math.isfinite(value) else None


def _jitter(number: int) -> float:
    """Return a shift to the side, the same each time, that spreads neighbours."""
    return ((number * 0.618034) % 1 - 0.5) * 0.5


# -- learning curves -------------------------------------------------------------------------------------


def _draw_curves(axes: Axes, section: Figure | SubFigure, lines: list[Line], metric: str) -> None:
    few = len(lines) <= _FEW
    last = [_last(line) for line in lines]
    finite = [value for value in last if value is not None]
    colours = Normalize(min(finite, default=0), max(finite, default=1))
    palette = mpl.colormaps["viridis"]
    for place, line in enumerate(lines):
        value = last[place]
        colour = _COLOURS[place] if few else palette(colours(value)) if value is not None else _GREY
        axes.plot(
            [step for step, _ in line.points],
            [value if math.isfinite(value) else math.nan for _, value in line.points],
            color=colour,
            linewidth=1.5 if few else 0.9,
            alpha=1 if few else 0.7,
            marker="o" if len(line.points) == 1 else None,
            markersize=4,
            label=_shorten(line.label, 44),
        )
    shown = [value for line in lines for _, value in line.points if math.isfinite(value)]
    if shown and min(shown) > 0 and max(shown) > _CURVE_DECADES * min(shown):
        axes.set_yscale("log")
        _plain_logarithm(axes.yaxis, max(shown) / min(shown))
    axes.set_xlabel("step")
    axes.set_ylabel(_shorten(metric, 30))
    if 1 < len(lines) <= _FEW:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, handlelength=1.2)
    elif not few and len(set(finite)) > 1:
        bar = section.colorbar(ScalarMappable(colours, palette), ax=axes, pad=0.02, fraction=0.06)
        bar.set_label(f"last {_shorten(metric, 24)}", fontsize=8)
        bar.outline.set_visible(False)


def _last(line: Line) -> float | None:
    return next((value for _, value in reversed(line.points) if math.isfinite(value)), None)


def _shorten(text: str, most: int) -> str:
    """Return a text with its middle left out where it is too long."""
    if len(text) <= most:
        return text
    return f"{text[: most * 2 // 3 - 1]}…{text[-(most // 3) :]}"
