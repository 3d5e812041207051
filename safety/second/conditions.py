"""Conditions of interlocks, read from their text a second time: split at the weakest word first, then tested as a tree.

The other reading is ``safety.expressions``, which goes through the text from left to right and emits a program. Both
take the same grammar. This one runs behind the other: it is not as thorough about units, but a text that it cannot
read is refused as well.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from safety.errors import ExpressionError
from safety.units import affine, convert

Test = Callable[[Mapping[int, float]], bool]
"""Whether a condition holds, by the points' rows in the input image and their values."""

_WORDS: Final = re.compile(
    r"\s*(?:"
    r"(?P<bracket>[()])"
    r"|(?P<sign>[<>]=?|[=!]=)"
    r"|(?P<name>[a-z0-9]+(?:-+[a-z0-9]+)*/[a-z][a-z0-9_]*|[a-z][a-z0-9_]*)"
    r"|(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?:\s*(?!(?:and|or|not)\b)(?P<unit>[^\s()<>=!]+))?"
    r")\s*"
)
_SIGNS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_HALF: Final = 0.5
"""A contact is on above it."""


@final
@dataclass(frozen=True, slots=True)
class _Word:
    kind: str
    text: str
    unit: str | None
    column: int


@final
@dataclass(frozen=True, slots=True)
class Reading:
    """A condition as this channel reads it, and the points it needs by their full names."""

    test: Test
    points: frozenset[str]


def read(text: str, points: Mapping[str, str], order: Mapping[str, int], scope: str = "") -> Reading:
    """Read a condition.

    Args:
        text: the condition.
        points: full point name → UCUM code.
        order: full point name → its row in the input image.
        scope: the unit whose points may be named alone.

    Raises:
        ExpressionError: the text cannot be read.
    """
    reader = _Reader(text, points, order, scope)
    test = reader.whole(_words(text))
    return Reading(test, frozenset(reader.used))


def _words(text: str) -> list[_Word]:
    words, at = list[_Word](), 0
    while at < len(text):
        match = _WORDS.match(text, at)
        if match is None:
            raise ExpressionError("the second channel cannot read this", text, at + 1)
        kind = str(match.lastgroup if match.lastgroup != "unit" else "number")
        if kind == "name" and match["name"] in ("and", "or", "not", "on", "off"):
            kind = match["name"]
        words.append(_Word(kind, match["number"] or match[0].strip(), match["unit"], match.start() + 1))
        at = match.end()
    return words


class _Reader:
    """Splits words at ``or``, then ``and``, then ``not``, then brackets; what is left is a comparison."""

    def __init__(self, text: str, points: Mapping[str, str], order: Mapping[str, int], scope: str) -> None:
        self._text = text
        self._points = points
        self._order = order
        self._scope = scope
        self.used: set[str] = set()

    def whole(self, words: Sequence[_Word]) -> Test:
        """Any of the parts between ``or``."""
        either = [self._all(part) for part in self._split(words, "or")]
        return either[0] if len(either) == 1 else lambda values: any(test(values) for test in either)

    def _all(self, words: Sequence[_Word]) -> Test:
        both = [self._one(part) for part in self._split(words, "and")]
        return both[0] if len(both) == 1 else lambda values: all(test(values) for test in both)

    def _one(self, words: Sequence[_Word]) -> Test:
        if not words:
            raise ExpressionError("the second channel finds nothing between two words", self._text, 1)
        if words[0].kind == "not":
            denied = self._one(words[1:])
            return lambda values: not denied(values)
        if words[0].text == "(":
            if words[-1].text != ")":
                raise self._unreadable(words[-1])
            return self.whole(words[1:-1])
        return self._comparison(words)

    def _split(self, words: Sequence[_Word], at: str) -> list[Sequence[_Word]]:
        parts, depth, start = list[Sequence[_Word]](), 0, 0
        for place, word in enumerate(words):
            depth += {"(": 1, ")": -1}.get(word.text, 0)
            if depth < 0:
                raise self._unreadable(word)
            if depth == 0 and word.kind == at:
                parts.append(words[start:place])
                start = place + 1
        if depth:
            raise self._unreadable(words[-1])
        return [*parts, words[start:]]

    def _comparison(self, words: Sequence[_Word]) -> Test:
        kinds = [word.kind for word in words]
        if kinds == ["name"]:
            contact = self._place(words[0])
            return lambda values: values[contact] > _HALF
        if len(words) not in (3, 5) or any(kind != "sign" for kind in kinds[1::2]):
            raise self._unreadable(words[0])
        if len(words) == 5 and (words[1].text[0] != words[3].text[0] or words[1].text[0] not in "<>"):
            raise self._unreadable(words[3])
        tests = [self._pair(*words[first : first + 3]) for first in range(0, len(words) - 2, 2)]
        return lambda values: all(test(values) for test in tests)

    def _pair(self, left: _Word, sign: _Word, right: _Word) -> Test:
        if "on" in (left.kind, right.kind) or "off" in (left.kind, right.kind):
            return self._switch(left, sign, right)
        compare = _SIGNS[sign.text]
        if left.kind == "number" and right.kind == "name":
            limit, place = self._number(left, right), self._place(right)
            return lambda values: compare(limit, values[place])
        if left.kind == "name" and right.kind == "number":
            limit, place = self._number(right, left), self._place(left)
            return lambda values: compare(values[place], limit)
        if left.kind == "name" and right.kind == "name":
            first, second = self._place(left), self._place(right)
            gain, offset = affine(self._code(right), self._code(left))
            return lambda values: compare(values[first], gain * values[second] + offset)
        raise self._unreadable(left)

    def _switch(self, left: _Word, sign: _Word, right: _Word) -> Test:
        name, position = (left, right) if left.kind == "name" else (right, left)
        if name.kind != "name" or sign.text not in ("==", "!="):
            raise self._unreadable(sign)
        place, wanted = self._place(name), (position.kind == "on") == (sign.text == "==")
        return lambda values: (values[place] > _HALF) is wanted

    def _number(self, number: _Word, point: _Word) -> float:
        value = float(number.text)
        return value if number.unit is None else convert(value, number.unit, self._code(point))

    def _code(self, word: _Word) -> str:
        return self._points[self._full(word)]

    def _place(self, word: _Word) -> int:
        full = self._full(word)
        self.used.add(full)
        return self._order[full]

    def _full(self, word: _Word) -> str:
        full = word.text if "/" in word.text or not self._scope else f"{self._scope}/{word.text}"
        if full not in self._points or full not in self._order:
            raise ExpressionError(f"the second channel knows no point {full!r}", self._text, word.column)
        return full

    def _unreadable(self, word: _Word) -> ExpressionError:
        return ExpressionError(f"the second channel cannot read {word.text!r} here", self._text, word.column)
