"""The conditions of interlocks: parsed once at load, unit-checked, and compiled to a postfix program.

Grammar (lower-case keywords; white space is free)::

    condition  = both { "or" both }
    both       = one { "and" one }
    one        = "not" one | "(" condition ")" | comparison
    comparison = operand [ op operand [ op operand ] ]        op: <  <=  >  >=  ==  !=
    operand    = point | number [ unit ] | "on" | "off"
    point      = name, or unit/name for a point of another unit

- A number without a unit is in the unit of the point it is compared with; with a unit it is converted, at load. A unit
  of another dimension is an error, and so is K or [degR] against Cel or [degF]: a value in K may be a difference, and 5
  K is not 5 Cel.
- Two points may be compared; the right one is converted into the unit of the left one.
- ``a < x < b`` means both; both operators must point the same way, and the middle must be a point.
- A point alone means on (above 0.5). It, ``on``, ``off``, ``==`` and ``!=`` are for points of unit 1: contacts and
  modes. An analogue value is never exactly equal to anything, so that a trip written with ``==`` would never come.

Bounded: 500 characters, 64 instructions, nesting of 16. Errors give the column and, for a misspelt point, the nearest
name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Final, final

from safety import kernels, units
from safety.errors import ExpressionError, UnitError

MAX_LENGTH: Final = 500
MAX_INSTRUCTIONS: Final = 64
MAX_NESTING: Final = 16
"""The kernel keeps its stack in the bits of one 64-bit integer: the depth must stay well below 63."""


@final
@dataclass(frozen=True, slots=True)
class Instruction:
    """One step: a comparison ``left OP gain * right + offset`` that pushes a truth, or AND, OR, NOT. Points are full
    names.
    """

    op: int
    left: str = ""
    right: str = ""
    gain: float = 0.0
    offset: float = 0.0


@final
@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled condition. ``points`` are the full names of the points it needs, in order of appearance."""

    text: str
    program: tuple[Instruction, ...]
    points: tuple[str, ...]


def compile_condition(text: str, point_units: Mapping[str, str], scope: str = "") -> Condition:
    """Parse, check and compile.

    Args:
        text: the condition.
        point_units: full point name → UCUM code, of every point of the site.
        scope: the unit whose points may be named without ``unit/``.

    Raises:
        ExpressionError: with the column, and what to write instead.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"a condition has at most {MAX_LENGTH} characters; split it into two interlocks",
            text[:40] + "…",
            MAX_LENGTH + 1,
        )
    parser = _Parser(text, point_units, scope)
    parser.condition(0)
    parser.expect_end()
    if len(parser.program) > MAX_INSTRUCTIONS:
        raise ExpressionError(
            f"more than {MAX_INSTRUCTIONS} comparisons and operators; split it into two interlocks", text, 1
        )
    points = dict.fromkeys(name for step in parser.program if step.left for name in (step.left, step.right))
    return Condition(text, tuple(parser.program), tuple(points))


def references(text: str) -> tuple[tuple[str, int], ...]:
    """The points a condition names, and where each begins (counted from 0). For packs, whose roles are renamed before
    they are compiled.

    Raises:
        ExpressionError: something in the text is no word of a condition.
    """
    parser = _Parser(text, {}, "")
    found = []
    while (token := parser.next_token()).kind is not _Kind.END:
        if token.kind is _Kind.POINT:
            found.append((token.text, token.column - 1))
    return tuple(found)


class _Kind(Enum):
    POINT = "point"
    NUMBER = "number"
    SWITCH = "on or off"
    OP = "comparison"
    WORD = "keyword"
    END = "end"


@final
@dataclass(frozen=True, slots=True)
class _Token:
    kind: _Kind
    text: str
    column: int
    value: float = 0.0
    unit: str | None = None


_SPACE: Final = re.compile(r"\s*")
_OP: Final = re.compile(r"<=|>=|==|!=|<|>")
_REF: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?/[a-z][a-z0-9_]*|[a-z][a-z0-9_]*(?![\w\-/])")
_NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_UNIT: Final = re.compile(r"\s*(?!(?:and|or|not)\b)([^\s()<>=!]+)")

_COMPARE: Final = {
    "<": kernels.OP_LT,
    "<=": kernels.OP_LE,
    ">": kernels.OP_GT,
    ">=": kernels.OP_GE,
    "==": kernels.OP_EQ,
    "!=": kernels.OP_NE,
}
_MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


class _Parser:
    """Recursive descent over the text; emits the program in postfix order."""

    def __init__(self, text: str, point_units: Mapping[str, str], scope: str) -> None:
        self._text = text
        self._units = point_units
        self._scope = scope
        self.program: list[Instruction] = []
        self._token = self._read(0)

    def condition(self, depth: int) -> None:
        if depth > MAX_NESTING:
            raise self._error(f"nested deeper than {MAX_NESTING}; split it into two interlocks")
        self._both(depth)
        while self._take("or"):
            self._both(depth)
            self.program.append(Instruction(kernels.OP_OR))

    def expect_end(self) -> None:
        if self._token.kind is not _Kind.END:
            raise self._error(f"expected and, or, or the end, found {self._token.text!r}")

    def _both(self, depth: int) -> None:
        self._one(depth)
        while self._take("and"):
            self._one(depth)
            self.program.append(Instruction(kernels.OP_AND))

    def _one(self, depth: int) -> None:
        if self._take("not"):
            if depth >= MAX_NESTING:
                raise self._error(f"nested deeper than {MAX_NESTING}; split it into two interlocks")
            self._one(depth + 1)
            self.program.append(Instruction(kernels.OP_NOT))
        elif self._take("("):
            self.condition(depth + 1)
            if not self._take(")"):
                raise self._error("expected )")
        else:
            self._comparison()

    def _comparison(self) -> None:
        first = self._operand()
        if self._token.kind is not _Kind.OP:
            self._alone(first)
            return
        op = self.next_token()
        second = self._operand()
        self._compare(first, op, second)
        if self._token.kind is _Kind.OP:
            again = self.next_token()
            if op.text[0] != again.text[0] or op.text[0] not in "<>" or second.kind is not _Kind.POINT:
                raise self._error("a double comparison is written low < point < high, both signs the same way", again)
            self._compare(second, again, self._operand())
            self.program.append(Instruction(kernels.OP_AND))

    def _alone(self, token: _Token) -> None:
        if token.kind is not _Kind.POINT:
            raise self._error("a number alone is no condition; compare a point with it", token)
        self._needs_contact(token, f"write a comparison, such as {token.text} > 20")
        name = self._resolve(token)
        self.program.append(Instruction(kernels.OP_GT, name, name, 0.0, 0.5))

    def _compare(self, left: _Token, op: _Token, right: _Token) -> None:
        sign = op.text
        if left.kind is not _Kind.POINT:
            left, right, sign = right, left, _MIRRORED[sign]
        if left.kind is not _Kind.POINT:
            raise self._error("compares two constants; one side must be a point", left)
        name = self._resolve(left)
        if right.kind is _Kind.SWITCH:
            if sign not in ("==", "!="):
                raise self._error(f"{right.text} can only follow == or !=", op)
            self._needs_contact(left, "compare it with a number")
            is_on = (right.text == "on") == (sign == "==")
            self.program.append(Instruction(kernels.OP_GT if is_on else kernels.OP_LE, name, name, 0.0, 0.5))
            return
        if sign in ("==", "!="):
            self._needs_contact(left, "an analogue value is never exactly equal: use < or >")
        gain, offset, other = 0.0, right.value, name
        if right.kind is _Kind.POINT:
            other = self._resolve(right)
            self._check_units(self._units[other], self._units[name], right)
            gain, offset = units.affine(self._units[other], self._units[name])
        elif right.unit is not None:
            self._check_units(right.unit, self._units[name], right)
            offset = units.convert(right.value, right.unit, self._units[name])
        self.program.append(Instruction(_COMPARE[sign], name, other, gain, offset))

    def _check_units(self, given: str, wanted: str, token: _Token) -> None:
        try:
            if not units.same_dimension(given, wanted):
                raise self._error(
                    f"{given} measures {units.unit(given).dimension}, the point is in {wanted} "
                    f"({units.unit(wanted).dimension})",
                    token,
                )
            if units.mixes_scales(given, wanted):
                raise self._error(
                    f"{given} against {wanted}: K may be a difference; write the number in {wanted}", token
                )
        except UnitError as error:
            raise self._error(str(error), token) from error

    def _needs_contact(self, token: _Token, remedy: str) -> None:
        code = self._units[self._resolve(token)]
        if code != "1":
            raise self._error(f"{token.text} is in {code}, not a contact or mode (unit 1): {remedy}", token)

    def _resolve(self, token: _Token) -> str:
        name = token.text if "/" in token.text or not self._scope else f"{self._scope}/{token.text}"
        if name in self._units:
            return name
        prefix = f"{self._scope}/" if self._scope else ""
        local = {known.removeprefix(prefix): known for known in self._units}
        close = get_close_matches(token.text, local, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else "declare it under points"
        raise self._error(f"unknown point {token.text!r}: {hint}", token)

    def _operand(self) -> _Token:
        if self._token.kind not in (_Kind.POINT, _Kind.NUMBER, _Kind.SWITCH):
            found = self._token.text or "the end"
            raise self._error(f"expected a point or a number, found {found!r}")
        return self.next_token()

    def _take(self, word: str) -> bool:
        if self._token.kind is _Kind.WORD and self._token.text == word:
            self.next_token()
            return True
        return False

    def next_token(self) -> _Token:
        """The present token; moves on to the next."""
        token = self._token
        self._token = self._read(self._end)
        return token

    def _read(self, start: int) -> _Token:
        text = self._text
        space = _SPACE.match(text, start)
        at = space.end() if space else start
        column = at + 1
        self._end = at
        if at == len(text):
            return _Token(_Kind.END, "", column)
        if text[at] in "()":
            self._end = at + 1
            return _Token(_Kind.WORD, text[at], column)
        if match := _OP.match(text, at):
            self._end = match.end()
            return _Token(_Kind.OP, match[0], column)
        if match := _REF.match(text, at):
            self._end = match.end()
            word = match[0]
            if word in ("and", "or", "not"):
                return _Token(_Kind.WORD, word, column)
            return _Token(_Kind.SWITCH if word in ("on", "off") else _Kind.POINT, word, column)
        if match := _NUMBER.match(text, at):
            return self._number(match, column)
        raise ExpressionError(
            f"cannot read {text[at : at + 12]!r}; expected a point, a number, and, or, not, ( or )", text, column
        )

    def _number(self, match: re.Match[str], column: int) -> _Token:
        value = float(match[0])
        if value in (float("inf"), float("-inf")):
            raise ExpressionError(f"{match[0]} is too large", self._text, column)
        code = None
        self._end = match.end()
        if unit := _UNIT.match(self._text, match.end()):
            code = unit[1]
            self._end = unit.end()
            if not units.is_known(code):
                near = units.nearest(code)
                hint = f"did you mean {near}?" if near else "units are UCUM codes such as Cel, Pa or %"
                raise ExpressionError(f"unknown unit {code!r}: {hint}", self._text, unit.start(1) + 1)
        return _Token(_Kind.NUMBER, match[0], column, value, code)

    def _error(self, message: str, token: _Token | None = None) -> ExpressionError:
        return ExpressionError(message, self._text, (token or self._token).column)
