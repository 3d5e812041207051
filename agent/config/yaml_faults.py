"""YAML text, the slow way: as a tree with the place of every key and value, and with every fault of the text.

Only asked when the fast way (:mod:`agent.config.yaml_tree`) met something odd, or when a problem needs its place.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import yaml
from yaml._yaml import CParser
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from agent.config.yaml_tree import MAX_DEPTH, MAX_NODES, scalar

_PLAIN: Final = "plain"
_TEXT: Final = "text"


class Fault(NamedTuple):
    """Something wrong in the text itself. ``line`` and ``column`` count from 0, as libyaml does."""

    line: int
    column: int
    message: str
    remedy: str


class Examined(NamedTuple):
    """What the slow way found: the value as far as it could be built, every fault, and the tree with its positions."""

    value: Any
    faults: list[Fault]
    root: Node | None


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
