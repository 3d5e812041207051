"""YAML text → plain Python values, by the rules of YAML 1.2: the only YAML reader of the agent.

The core schema (https://yaml.org/spec/1.2.2/#103-core-schema): only ``true`` and ``false`` are booleans, so that
``on``, ``off``, ``yes`` and ``no`` stay text; ``0777`` is decimal, ``12:30`` is text. Keys are always text. Tags are
refused, a key given twice is an error.

The fast way (:func:`parse`) builds values from libyaml's events in half the time of PyYAML's own constructor, and only
notices that something is odd. :func:`examine` then goes over the text again, as a tree, and says where and what.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import yaml
from yaml._yaml import CParser
from yaml.events import (
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_NODES: Final = 1_000_000
"""Values in one file, aliases counted as often as they are used: 10,000 points take about 300,000."""

MAX_DEPTH: Final = 64
"""Nesting. Real files need 6; libyaml's composer recurses in C and overflows the stack between 20,000 and 1,000,000."""

_PLAIN: Final = "plain"
_TEXT: Final = "text"

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NUMBER_START = frozenset("+-.0123456789")
_INT = re.compile(r"[-+]?[0-9]{1,300}")
_BASED = re.compile(r"0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]{1,300}|[0-9]{1,300}(?:\.[0-9]{0,300})?)(?:[eE][-+]?[0-9]{1,10})?")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


class Fault(NamedTuple):
    """Something wrong in the text itself. ``line`` and ``column`` count from 0, as libyaml does."""

    line: int
    column: int
    message: str
    remedy: str


class OddTextError(Exception):
    """The fast way met something it does not judge: go over the text with :func:`examine`."""


class Examined(NamedTuple):
    """What the slow way found: the value as far as it could be built, every fault, and the tree with its positions."""

    value: Any
    faults: list[Fault]
    root: Node | None


def parse(text: str) -> Any:
    """The value of a document without any fault. Raises OddTextError for all others, and for aliases, to be counted."""
    try:
        return _build(CParser(text))
    except yaml.YAMLError as error:
        raise OddTextError from error


def examine(text: str) -> Examined:
    """The value, all faults with their positions, and the tree. Never raises for anything the text may contain."""
    try:
        root = compose(text)
    except _LimitError as error:
        return Examined(None, [error.fault], None)
    except yaml.MarkedYAMLError as error:
        return Examined(None, [_syntax_fault(error)], None)
    except yaml.reader.ReaderError as error:
        return Examined(None, [_character_fault(text, error)], None)
    if root is None:
        return Examined(None, [], None)
    examiner = _Examiner()
    try:
        value = examiner.build(root, 1)
    except _LimitError as error:
        return Examined(None, [*examiner.faults, error.fault], root)
    return Examined(value, examiner.faults, root)


@lru_cache(maxsize=1 << 16)
def scalar(text: str) -> bool | int | float | str | None:
    """A plain (unquoted) scalar by the YAML 1.2 core schema. Also the rule for the cells of CSV files."""
    if text in _NULL:
        return None
    if text[0] not in _NUMBER_START:
        return _BOOL.get(text, text)
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text[2:], 8 if text[1] == "o" else 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", "").lower())
    return text


class _LimitError(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class _Composer(CParser):
    """libyaml's composer, with the resolver's hooks used to mark plain scalars and to bound depth and size."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0

    def resolve(self, kind: type[Node], _value: str | None, implicit: Any) -> str:
        return _PLAIN if kind is ScalarNode and implicit[0] else _TEXT

    def descend_resolver(self, parent: Node | None, _index: Any) -> None:
        self._depth += 1
        self._nodes += 1
        if self._depth > MAX_DEPTH or self._nodes > MAX_NODES:
            line, column = (0, 0) if parent is None else (parent.start_mark.line, parent.start_mark.column)
            raise _LimitError(_too_deep(line, column) if self._depth > MAX_DEPTH else _too_many(line, column))

    def ascend_resolver(self) -> None:
        self._depth -= 1


def compose(text: str) -> Node | None:
    """The tree of the only document in ``text``; None if there is none. Raises YAMLError."""
    root: Node | None = _Composer(text).get_single_node()
    return root


def _build(parser: CParser) -> Any:
    """From libyaml's events, without recursion: a third faster than by way of the tree."""
    next_event: Callable[[], Any] = parser.get_event
    next_event()  # the start of the stream
    if type(next_event()) is not DocumentStartEvent:
        return None
    result: list[Any] = []
    container: Any = result
    key: str | None = None
    outer: list[tuple[Any, str | None]] = []
    nodes = 0
    while True:
        event = next_event()
        kind = type(event)
        nodes += 1
        if kind is ScalarEvent and event.tag is None:
            value = event.value
            if key is None and type(container) is dict:
                if value in container:
                    raise OddTextError
                key = value
                continue
            if event.implicit[0]:
                value = scalar(value)
        elif (kind is MappingStartEvent or kind is SequenceStartEvent) and event.tag is None:
            if (key is None and type(container) is dict) or len(outer) >= MAX_DEPTH or nodes > MAX_NODES:
                raise OddTextError
            outer.append((container, key))
            container, key = ({} if kind is MappingStartEvent else []), None
            continue
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            value = container
            container, key = outer.pop()
        elif kind is DocumentEndEvent and type(next_event()) is StreamEndEvent:
            return result[0]
        else:
            raise OddTextError
        if key is None:
            container.append(value)
        else:
            container[key] = value
            key = None


class _Examiner:
    """Builds the value as far as it goes and collects every fault on the way."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._nodes = 0

    def build(self, node: Node, depth: int) -> Any:
        self._nodes += 1
        line, column = node.start_mark.line, node.start_mark.column
        if depth > MAX_DEPTH:
            raise _LimitError(_too_deep(line, column))
        if self._nodes > MAX_NODES:
            raise _LimitError(_too_many(line, column))
        if node.tag not in (_PLAIN, _TEXT):
            self.faults.append(
                Fault(
                    line,
                    column,
                    f"the tag {_shown_tag(node.tag)} is not allowed here",
                    "leave the tag out; quote what is to stay text",
                )
            )
        if isinstance(node, MappingNode):
            return self._mapping(node, depth)
        if isinstance(node, SequenceNode):
            return [self.build(item, depth + 1) for item in node.value]
        return scalar(node.value) if node.tag is _PLAIN else node.value

    def _mapping(self, node: MappingNode, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key, value in node.value:
            line, column = key.start_mark.line, key.start_mark.column
            if not isinstance(key, ScalarNode):
                self.faults.append(
                    Fault(line, column, "a key must be a plain word, not a list or a mapping", "write name: value")
                )
                continue
            if key.value in result:
                message = f"the key {key.value!r} is given twice: line {first[key.value]} has it too"
                self.faults.append(Fault(line, column, message, "keep one of them"))
                continue
            first[key.value] = line + 1
            result[key.value] = self.build(value, depth + 1)
        return result


def find(root: Node | None, path: tuple[str | int, ...]) -> tuple[Node | None, Node | None, int]:
    """The key and the value at ``path``, as deep as it exists, and how many parts of the path were found."""
    key: Node | None = None
    node = root
    for found, part in enumerate(path):
        child: tuple[Node | None, Node] | None = None
        if isinstance(node, MappingNode):
            child = next(((k, v) for k, v in node.value if isinstance(k, ScalarNode) and k.value == part), None)
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            child = (None, node.value[part])
        if child is None:
            return key, node, found
        key, node = child
    return key, node, len(path)


def _too_deep(line: int, column: int) -> Fault:
    return Fault(
        line,
        column,
        f"nested more than {MAX_DEPTH} levels deep",
        "look for an alias that refers to itself, or brackets that never close",
    )


def _too_many(line: int, column: int) -> Fault:
    return Fault(
        line,
        column,
        f"more than {MAX_NODES:,} values, aliases included",
        "split the file: one zone or tool per file, bulk points in points_csv",
    )


def _shown_tag(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


def _syntax_fault(error: yaml.MarkedYAMLError) -> Fault:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    what = error.problem or "not YAML"
    message = f"not valid YAML: {what}" + (f" ({error.context})" if error.context else "")
    if "cannot start any token" in what:
        remedy = "indent with spaces, never tabs; put text that begins with a special character in quotes"
    elif "mapping values are not allowed" in what:
        remedy = 'a value with ": " inside must stand in quotes; else check the indentation'
    elif "another document" in what or "single document" in what:
        remedy = "one document per file: remove the line ---"
    elif "alias" in what:
        remedy = "define the anchor (&name) above its first use; text that begins with * must stand in quotes"
    else:
        remedy = "check the brackets, quotes and indentation here and in the lines above"
    return Fault(line, column, message, remedy)


def _character_fault(text: str, error: yaml.reader.ReaderError) -> Fault:
    before = text.encode()[: error.position].decode(errors="ignore")
    line = before.count("\n")
    column = len(before) - (before.rfind("\n") + 1)
    return Fault(
        line,
        column,
        f"not valid YAML: {error.reason}",
        "remove the character: only printable text, tab and line ends are allowed",
    )
