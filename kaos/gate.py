"""The condition that a new model has to meet before it may serve: comparisons of metrics, and nothing else.

::

    condition  = all ("or" all)*
    all        = one ("and" one)*
    one        = "not" one | "(" condition ")" | comparison
    comparison = [operand] ("<" | "<=" | ">" | ">=" | "==" | "!=") operand
    operand    = number | metric | "current" | "current." metric

A metric is a name, or any text in double quotes. ``current`` is the same metric of the model that serves, and
the left side of a comparison may be left out where one came before: ``accuracy >= 0.9 and > current``.

A comparison with a metric that is missing, or that is NaN, is neither true nor false, and what rests on it is
not met: no model gets through by having no metrics. While no model serves, there is nothing to be compared
with, and every comparison with ``current`` counts in favour of the new model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from kaos.errors import InvalidConditionError
from kaos.value import Value

LONGEST = 500
"""Characters that a condition may have."""

_DEEPEST = 50
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<operator><=|>=|==|!=|<|>)
      | (?P<bracket>[()])
      | (?P<quoted>(?:current\.)?"[^"]*")
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*(?:[./-][A-Za-z0-9_]+)*)
    )""",
    re.VERBOSE,
)
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[./-][A-Za-z0-9_]+)*")
_KEYWORDS = ("and", "or", "not", "current")
_CURRENT = "current."
_NONE_SERVES = "no model serves yet"
_STRANGE = "this is no number, metric or comparison"


class Number(NamedTuple):
    """A number."""

    value: float

    def __str__(self) -> str:
        return f"{self.value:g}"


class Metric(NamedTuple):
    """A metric of the new model, or of the one that serves."""

    name: str
    current: bool = False

    def __str__(self) -> str:
        plain = _PLAIN.fullmatch(self.name) and self.name not in _KEYWORDS
        shown = self.name if plain and not self.name.startswith(_CURRENT) else f'"{self.name}"'
        return f"{_CURRENT if self.current else ''}{shown}"


class Comparison(NamedTuple):
    """Two operands and how they shall compare."""

    left: Number | Metric
    operator: str
    right: Number | Metric

    def __str__(self) -> str:
        return f"{self.left} {self.operator} {self.right}"


class Not(NamedTuple):
    """What shall not be so."""

    of: Node

    def __str__(self) -> str:
        return f"not ({self.of})"


class Every(NamedTuple):
    """What shall all be so."""

    of: tuple[Node, ...]

    def __str__(self) -> str:
        return " and ".join(f"({node})" for node in self.of)


class Some(NamedTuple):
    """Of which one shall be so."""

    of: tuple[Node, ...]

    def __str__(self) -> str:
        return " or ".join(f"({node})" for node in self.of)


Node = Comparison | Not | Every | Some


class Compared(Value):
    """A comparison as it came out.

    :param comparison: such as ``accuracy > current.accuracy``
    :param left: value of the left side, None where there is none
    :param holds: None where it could not be made; with no model that serves it counts for the new one
    """

    comparison: str
    left: float | None
    right: float | None
    holds: bool | None
    why: str = ""

    def __str__(self) -> str:
        if self.why:
            return f"{self.comparison}: {self.why}"
        return f"{self.comparison}: {self.left:.6g} and {self.right:.6g}, {'yes' if self.holds else 'no'}"


class Verdict(Value):
    """What a condition says of a model."""

    holds: bool
    compared: tuple[Compared, ...]

    @property
    def reason(self) -> str:
        """Return how it came out, for people, a line."""
        return "; ".join(map(str, self.compared))


class Condition:
    """A condition that was read.

    :raises InvalidConditionError: it cannot be read; the error shows the place
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.root = _Parser(text).whole()

    def __str__(self) -> str:
        return str(self.root)

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Return all comparisons, from left to right."""
        return tuple(found for found, _ in _comparisons(self.root))

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Return the names of the new model's metrics that it asks for, in the order of the text."""
        operands = (each for found in self.comparisons for each in (found.left, found.right))
        names = (each.name for each in operands if isinstance(each, Metric) and not each.current)
        return tuple(dict.fromkeys(names))

    def lower_is_better(self, metric: str) -> bool:
        """Tell whether the first comparison of a metric that has a direction wants it to be small."""
        for (left, operator, right), wanted in _comparisons(self.root):
            if Metric(metric) in (left, right) and operator[0] in "<>":
                small = operator[0] == ("<" if left == Metric(metric) else ">")
                return small is wanted
        return False

    def of(self, new: Mapping[str, float], current: Mapping[str, float] | None) -> Verdict:
        """Return what it says of a model.

        :param new: the model's metrics
        :param current: those of the model that serves; None if none does
        """
        compared: list[Compared] = []
        holds = _holds(self.root, new, current, wanted=True, compared=compared)
        return Verdict(holds=holds is True, compared=tuple(compared))


def _holds(
    node: Node,
    new: Mapping[str, float],
    current: Mapping[str, float] | None,
    *,
    wanted: bool,
    compared: list[Compared],
) -> bool | None:
    """Return whether a part holds, None where nobody can say.

    :param wanted: what of the part is in the new model's favour: False behind a `not`
    """
    if isinstance(node, Comparison):
        found = _compare(node, new, current, wanted=wanted)
        compared.append(found)
        return found.holds
    if isinstance(node, Not):
        inner = _holds(node.of, new, current, wanted=not wanted, compared=compared)
        return None if inner is None else not inner
    parts = [_holds(part, new, current, wanted=wanted, compared=compared) for part in node.of]
    decisive = isinstance(node, Some)  # the value that decides alone
    if decisive in parts:
        return decisive
    return None if None in parts else not decisive


def _compare(
    node: Comparison, new: Mapping[str, float], current: Mapping[str, float] | None, *, wanted: bool
) -> Compared:
    sides = [_value(operand, new, current) for operand in (node.left, node.right)]
    (left, _), (right, _) = sides
    whys = [why for _, why in sides if why]
    if left is not None and right is not None:
        holds: bool | None = _true(left, node.operator, right)
    else:
        holds = wanted if set(whys) == {_NONE_SERVES} else None
    why = " and ".join(dict.fromkeys(whys))
    return Compared(comparison=str(node), left=left, right=right, holds=holds, why=why)


def _value(
    operand: Number | Metric, new: Mapping[str, float], current: Mapping[str, float] | None
) -> tuple[float | None, str]:
    """Return the value of an operand, or why it has none that can be compared."""
    if isinstance(operand, Number):
        return operand.value, ""
    if operand.current and current is None:
        return None, _NONE_SERVES
    whose = "the model that serves" if operand.current else "the new model"
    value = ((current or {}) if operand.current else new).get(operand.name)
    if value is None:
        return None, f"{whose} has no metric {operand.name!r}"
    if math.isnan(value):
        return None, f"{operand.name!r} of {whose} is NaN"
    return value, ""


def _true(left: float, operator: str, right: float) -> bool:
    return {
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
        "==": left == right,
        "!=": left != right,
    }[operator]


def _comparisons(node: Node, *, wanted: bool = True) -> Iterator[tuple[Comparison, bool]]:
    """Yield the comparisons from left to right, with whether each shall hold: it shall not behind a `not`."""
    if isinstance(node, Comparison):
        yield node, wanted
    elif isinstance(node, Not):
        yield from _comparisons(node.of, wanted=not wanted)
    else:
        for part in node.of:
            yield from _comparisons(part, wanted=wanted)


class _Token(NamedTuple):
    kind: str
    text: str
    place: int


class _Parser:
    """Read a condition from left to right."""

    def __init__(self, text: str) -> None:
        if len(text) > LONGEST:
            shown = f"{text[:40]}…"
            raise InvalidConditionError(f"it has more than {LONGEST} characters.", shown, len(shown) - 1)
        strange = next((place for place, sign in enumerate(text) if not sign.isprintable()), None)
        if strange is not None:
            shown = "".join(sign if sign.isprintable() else " " for sign in text)
            raise InvalidConditionError("this character cannot be printed.", shown, strange)
        self._text = text
        self._tokens = self._split()
        self._at = 0
        self._depth = 0
        self._metric: str | None = None

    def whole(self) -> Node:
        found = self._some()
        if self._token.kind != "end":
            expected = "nothing, or 'and' or 'or'," if self._token.text != ")" else "no ')'"
            raise self._error(f"{expected} is expected here.")
        return found

    def _split(self) -> list[_Token]:
        tokens: list[_Token] = []
        place, end = 0, len(self._text.rstrip())
        while place < end:
            found = _TOKEN.match(self._text, place)
            if found is None:
                place += len(self._text[place:]) - len(self._text[place:].lstrip())
                why = "a comparison is one of < <= > >= == !=" if self._text[place] == "=" else _STRANGE
                raise InvalidConditionError(f"{why}.", self._text, place)
            kind = str(found.lastgroup)
            tokens.append(_Token(kind, found[kind], found.start(kind)))
            place = found.end()
        return [*tokens, _Token("end", "", end)]

    @property
    def _token(self) -> _Token:
        return self._tokens[self._at]

    def _error(self, problem: str, token: _Token | None = None) -> InvalidConditionError:
        return InvalidConditionError(problem, self._text, (token or self._token).place)

    def _took(self, text: str) -> bool:
        if self._token.text != text or self._token.kind not in ("name", "bracket"):
            return False
        self._at += 1
        return True

    def _some(self) -> Node:
        parts = [self._every()]
        while self._took("or"):
            parts.append(self._every())
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def _every(self) -> Node:
        parts = [self._one()]
        while self._took("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _one(self) -> Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error(f"this is nested more than {_DEEPEST} deep.")
        try:
            if self._took("not"):
                return Not(self._one())
            if self._took("("):
                found = self._some()
                if not self._took(")"):
                    raise self._error("a ')' is missing here.")
                return found
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Comparison:
        first = self._token
        if first.kind == "operator":
            if self._metric is None:
                raise self._error("a metric is missing before this.")
            left: Number | Metric = Metric(self._metric)
        else:
            left = self._operand(None)
        operator = self._token
        if operator.kind != "operator":
            raise self._error("a comparison is missing here: < <= > >= == !=")
        self._at += 1
        # A number on the left is none that may be left out next, nor is the metric before it.
        self._metric = left.name if isinstance(left, Metric) else None
        right = self._operand(left.name if isinstance(left, Metric) and not left.current else None)
        if self._token.kind == "operator":
            raise self._error("two comparisons need an 'and' between them.")
        if not any(isinstance(side, Metric) and not side.current for side in (left, right)):
            raise self._error("this compares no metric of the new model.", first)
        return Comparison(left, operator.text, right)

    def _operand(self, metric: str | None) -> Number | Metric:
        """Return a side of a comparison.

        :param metric: what `current` alone stands for
        """
        token = self._token
        found: Number | Metric | None = None
        if token.kind == "number":
            found = Number(float(token.text))
        elif token.kind == "quoted":
            current = token.text.startswith(_CURRENT)
            name = token.text.removeprefix(_CURRENT)[1:-1]
            found = Metric(name, current) if name else None
        elif token.kind == "name" and token.text == "current":
            if metric is None:
                raise self._error("which metric of the model that serves? Write current.NAME.")
            found = Metric(metric, current=True)
        elif token.kind == "name" and token.text not in _KEYWORDS:
            current = token.text.startswith(_CURRENT)
            found = Metric(token.text.removeprefix(_CURRENT), current)
        if found is None:
            raise self._error("a metric or a number is missing here.")
        self._at += 1
        return found
