"""What a control function takes and gives, found without calling it: its parameters, and the fields of its result.

A result is a float, a tuple or dict of floats, or a *command class*: a NamedTuple or dataclass of numbers with at most
one text.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from agent.poet.errors import FunctionShapeError

SINGLE_FIELD = "value"
"""The name of the only field of a function that returns a plain number."""

Function = types.FunctionType


class ResultKind(Enum):
    """The forms a result may have."""

    NUMBER = "number"
    TUPLE = "tuple"
    DICT = "dict"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class ResultShape:
    """The numeric ``fields`` of a result in order, and the ``text`` field of a command class, if it has one."""

    kind: ResultKind
    fields: tuple[str, ...]
    text: str | None = None
    command: type | None = None


def command_shape(cls: object) -> ResultShape | None:
    """The shape of a command class, or None if it is not one."""
    if not isinstance(cls, type):
        return None
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        names: tuple[str, ...] = tuple(cls._fields)
    elif dataclasses.is_dataclass(cls):
        names = tuple(field.name for field in dataclasses.fields(cls))
    else:
        return None
    texts = tuple(name for name in names if _is_text(cls.__annotations__.get(name)))
    if len(texts) > 1 or len(texts) == len(names):
        return None
    return ResultShape(
        ResultKind.COMMAND, tuple(name for name in names if name not in texts), texts[0] if texts else None, cls
    )


def command_of(plain: Function) -> type | None:
    """The command class a function returns, or None if it returns none or that cannot be seen."""
    try:
        return result_shape(plain).command
    except FunctionShapeError:
        return None


def result_shape(plain: Function) -> ResultShape:
    """The shape of a function's result, from its return annotation, else from its return statements.

    Raises:
        FunctionShapeError: its returns differ, or cannot be understood; the remedy is a return annotation.
    """
    annotated = _from_annotation(plain)
    if annotated is not None:
        return annotated
    found = {shape for shape in map(_returned_shape, *_returns_and_scope(plain)) if shape is not None}
    if len(found) > 1:
        forms = ", ".join(sorted(f"{shape.kind.value} ({', '.join(shape.fields)})" for shape in found))
        raise FunctionShapeError(f"{plain.__qualname__} returns different forms in different places: {forms}")
    if found:
        return found.pop()
    used = {
        shape
        for shape in (command_shape(plain.__globals__.get(name)) for name in plain.__code__.co_names)
        if shape is not None
    }
    if len(used) == 1:
        return used.pop()
    return ResultShape(ResultKind.NUMBER, (SINGLE_FIELD,))


def parameters(plain: Function) -> tuple[tuple[str, ...], Mapping[str, float]]:
    """The names of a function's parameters in order, and the numeric defaults of those that have one.

    Raises:
        FunctionShapeError: it takes ``*args`` or ``**kwargs``, or has a default that is not a number.
    """
    names: list[str] = []
    defaults: dict[str, float] = {}
    for parameter in inspect.signature(plain).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise FunctionShapeError(
                f"{plain.__qualname__} takes {parameter}: name every parameter, each is bound to a point or a number"
            )
        names.append(parameter.name)
        if parameter.default is parameter.empty:
            continue
        if not isinstance(parameter.default, int | float):
            raise FunctionShapeError(
                f"{plain.__qualname__}: the default of {parameter.name} must be a number, not {parameter.default!r}"
            )
        defaults[parameter.name] = float(parameter.default)
    return tuple(names), types.MappingProxyType(defaults)


def _is_text(annotation: object) -> bool:
    """Whether a field is annotated as str: as the type, or as the text that postponed annotations leave."""
    return getattr(annotation, "__forward_arg__", annotation) in (str, "str")


def _from_annotation(plain: Function) -> ResultShape | None:
    try:
        annotation = typing.get_type_hints(plain).get("return")
    except (NameError, TypeError, AttributeError):
        return None  # an annotation for the type checker only; the return statements decide
    if annotation in (float, int, bool):
        return ResultShape(ResultKind.NUMBER, (SINGLE_FIELD,))
    if typing.get_origin(annotation) is tuple:
        kinds = typing.get_args(annotation)
        if kinds and Ellipsis not in kinds and all(kind in (float, int, bool) for kind in kinds):
            return _tuple_shape(len(kinds))
    return command_shape(annotation)


def _returns_and_scope(plain: Function) -> tuple[list[ast.expr], list[dict[str, Any]]]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(plain)))
    except (OSError, TypeError, SyntaxError):
        return [], []  # made by exec or a lambda inside an expression: no source to read
    scope = {**plain.__globals__, **inspect.getclosurevars(plain).nonlocals}
    found: list[ast.expr] = []
    todo: list[ast.AST] = list(tree.body[0].body) if isinstance(tree.body[0], ast.FunctionDef) else []
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(node, ast.Return) and node.value is not None:
            found.append(node.value)
        todo.extend(ast.iter_child_nodes(node))
    return found, [scope] * len(found)


def _returned_shape(value: ast.expr, scope: dict[str, Any]) -> ResultShape | None:
    """The shape of one returned expression; None if it cannot be seen from the text alone."""
    if isinstance(value, ast.Call):
        return command_shape(_called(value.func, scope))
    if isinstance(value, ast.Tuple):
        return _tuple_shape(len(value.elts))
    if isinstance(value, ast.Dict):
        keys = tuple(key.value for key in value.keys if isinstance(key, ast.Constant) and isinstance(key.value, str))
        if len(keys) == len(value.keys) > 0:
            return ResultShape(ResultKind.DICT, keys)
    if isinstance(value, ast.Constant | ast.BinOp):
        return ResultShape(ResultKind.NUMBER, (SINGLE_FIELD,))
    return None


def _called(function: ast.expr, scope: dict[str, Any]) -> object:
    if isinstance(function, ast.Name):
        return scope.get(function.id)
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return getattr(scope.get(function.value.id), function.attr, None)
    return None


def _tuple_shape(count: int) -> ResultShape:
    return ResultShape(ResultKind.TUPLE, tuple(f"value_{index}" for index in range(count)))
