"""Hyperparameters: from a file that names values or ranges per key to the trials of a job.

Two forms of a file, JSON both::

    {"degree": [3, 5], "kernel": ["poly"], "gamma": 0.1}                a grid
    {"gamma": {"min": 1e-4, "max": 1, "log": true}, "degree": [3, 5]}   a range: random samples

A scalar is a list of one. The order of keys in the file has no meaning: the same values are the same digest.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from kaos.digest import digest_bytes
from kaos.errors import InvalidParametersError
from kaos.value import Value

Scalar = str | int | float | bool | None

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.+-]")
_LONGEST_NAME = 150
_GRID_HINT = 'Write lists of values per key, such as {"degree": [3, 5], "kernel": "poly"}.'


class Range(Value):
    """Values between two numbers, evenly or evenly on a logarithmic scale; of two integers, integers."""

    min: float
    max: float
    log: bool = False
    integer: bool = False


class Space(Value):
    """All that a hyperparameter file says.

    :param choices: the values to try, by key
    :param ranges: the ranges to sample, by key
    :param samples: number of random trials; None for the grid
    :param seed: of the random trials: the same seed gives the same trials
    """

    kind: Literal["parameters"] = "parameters"
    choices: dict[str, list[Any]]
    ranges: dict[str, Range] = Field(default_factory=dict)
    samples: int | None = None
    seed: int = 0

    @property
    def digest(self) -> str:
        """Return the identity: the SHA-256 of the canonical document."""
        return digest_bytes(self.canonical)

    @property
    def canonical(self) -> bytes:
        """Return the document with sorted keys, as it is stored."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()

    @property
    def size(self) -> int:
        """Return the number of trials."""
        return self.samples if self.samples is not None else math.prod(map(len, self.choices.values()))

    @property
    def shown(self) -> dict[str, Any]:
        """Return the values and ranges by key, for people."""
        ranges = {name: each.model_dump(mode="json") for name, each in self.ranges.items()}
        return dict(sorted({**self.choices, **ranges}.items()))

    def points(self) -> Iterator[dict[str, Scalar]]:
        """Yield the parameters of each trial, in the same order each time, a grid's last key fastest."""
        names = sorted([*self.choices, *self.ranges])
        if self.samples is None:
            for values in itertools.product(*(self.choices[name] for name in names)):
                yield dict(zip(names, values, strict=True))
            return
        source = random.Random(self.seed)  # noqa: S311 (reproducible, not secret)
        for _ in range(self.samples):
            yield {name: self._draw(name, source) for name in names}

    def _draw(self, name: str, source: random.Random) -> Scalar:
        if name in self.choices:
            value: Scalar = self.choices[name][source.randrange(len(self.choices[name]))]
            return value
        wanted = self.ranges[name]
        if wanted.log:
            value = math.exp(source.uniform(math.log(wanted.min), math.log(wanted.max)))
        else:
            value = source.uniform(wanted.min, wanted.max)
        value = min(max(value, wanted.min), wanted.max)
        return round(value) if wanted.integer else value


def parse(content: bytes, *, samples: int | None, seed: int, most: int) -> Space:
    """Return what a hyperparameter file says.

    :param samples: number of random trials, needed where the file has a range
    :param most: number of trials that the server allows
    :raises InvalidParametersError: all that is wrong with the file, or too many trials
    """
    try:
        document = json.loads(
            content, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique
        )
    except (ValueError, RecursionError) as error:
        raise InvalidParametersError(
            f"The hyperparameters are not valid JSON: {error}.", _GRID_HINT
        ) from error
    if not isinstance(document, dict) or not document:
        raise InvalidParametersError("The hyperparameters are no JSON object with keys.", _GRID_HINT)
    choices: dict[str, list[Any]] = {}
    ranges: dict[str, Range] = {}
    problems: list[str] = []
    for name, value in document.items():
        try:
            if not _NAME.fullmatch(name):
                raise ValueError("no name: use letters, digits, '_', '-', '.', beginning with a letter")
            if isinstance(value, dict):
                ranges[name] = _range(value)
            else:
                choices[name] = _values(value)
        except ValueError as error:
            problems.append(f"{name!r}: {error}")
    if ranges and samples is None and not problems:
        problems.append(f"{', '.join(map(repr, ranges))}: a range needs a number of samples (--samples N)")
    if problems:
        raise InvalidParametersError(
            f"The hyperparameters cannot be used: {'; '.join(problems)}.", _GRID_HINT
        )
    space = Space(choices=choices, ranges=ranges, samples=samples, seed=seed)
    if samples is not None and samples < 1:
        raise InvalidParametersError(f"--samples {samples} gives no trial.", "Ask for one or more.")
    if space.size > most:
        raise InvalidParametersError(
            f"These hyperparameters give {space.size} trials, this server allows {most}.",
            "Leave values out, draw random ones with --samples N, or raise [kaos] max_trials.",
        )
    return space


def point_name(point: dict[str, Any]) -> str:
    """Return the parameters as a person reads them, ``degree=5 kernel=poly``; fit for a file's name."""
    parts = [f"{name}={_UNSAFE.sub('-', _show(value))}" for name, value in point.items()]
    text = " ".join(parts)
    if len(text) <= _LONGEST_NAME:
        return text
    return f"{text[:_LONGEST_NAME]}…{digest_bytes(json.dumps(point, sort_keys=True).encode())[:8]}"


def point_path(space_digest: str, point: dict[str, Any]) -> str:
    """Return the path of a trial's parameters: ``/3fbf2/degree=5_gamma=0.1_kernel=poly.json``."""
    return f"/{space_digest[:5]}/{point_name(point).replace(' ', '_')}.json"


def _show(value: Scalar) -> str:
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value).strip('"')


def _values(value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ValueError("the list is empty")
    for each in values:
        if isinstance(each, list | dict):
            raise ValueError(f"{json.dumps(each)} is no single value")
    keys = [json.dumps(each) for each in values]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"{key} comes twice")
    return values


def _range(value: dict[str, Any]) -> Range:
    unknown = set(value) - {"min", "max", "log"}
    if unknown or not {"min", "max"} <= set(value):
        raise ValueError('a range has "min" and "max", and "log": true if you like')
    low, high, log = value["min"], value["max"], value.get("log", False)
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in (low, high)):
        raise ValueError('"min" and "max" are numbers')
    if not isinstance(log, bool):
        raise ValueError('"log" is true or false')
    if low > high:
        raise ValueError(f"min {low} is above max {high}")
    if log and low <= 0:
        raise ValueError(f"a logarithmic range begins above 0, not at {low}")
    return Range(min=low, max=high, log=log, integer=isinstance(low, int) and isinstance(high, int))


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is more than a number can be")
    return number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no value")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for name, _ in pairs if [other for other, _ in pairs].count(name) > 1)
        raise ValueError(f"the key {twice!r} comes twice")
    return found
