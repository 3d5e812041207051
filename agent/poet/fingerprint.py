"""What a compiled function depends on: its code, the functions it calls, and every global value the compiler freezes
into it.

Numba treats globals as constants. A build is only valid for the values it was built with, so they are part of its key.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

from agent.poet.shape import Function, command_shape

NATIVE_PACKAGES = ("numpy", "math", "cmath", "operator", "builtins", "numba", "random", "time")
"""Packages whose functions numba knows or refuses by itself: they are never recompiled as if they were the site's."""


def plain_function(value: object) -> Function | None:
    """The site's own function behind a value: itself, or what ``@poet`` wrapped. None for anything else."""
    value = getattr(getattr(value, "poet", None), "plain", value)
    if isinstance(value, types.FunctionType) and (value.__module__ or "").partition(".")[0] not in NATIVE_PACKAGES:
        return value
    return None


def used_names(code: types.CodeType) -> Iterator[str]:
    """Every name the code and the code nested in it looks up, sorted and without repeats."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(used_names(constant))
    yield from sorted(names)


def closure_values(function: Function) -> dict[str, Any]:
    """The values of the variables a function takes from the one around it; those not yet set are left out."""
    values: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # the cell is empty
            continue
    return values


def fingerprint(function: Function) -> bytes:
    """A text that changes whenever a compiled form of the function would."""
    return "\n".join(_describe_function(function, set())).encode()


def _describe_function(function: Function, seen: set[int]) -> Iterator[str]:
    if id(function) in seen:
        yield f"again {function.__qualname__}"
        return
    seen.add(id(function))
    yield f"function {function.__module__}.{function.__qualname__}{function.__defaults__!r}{function.__kwdefaults__!r}"
    yield from _describe_code(function.__code__)
    for name in used_names(function.__code__):
        if name in function.__globals__:
            yield from _describe_value(name, function.__globals__[name], seen)
    for name, value in closure_values(function).items():
        yield from _describe_value(name, value, seen)


def _describe_code(code: types.CodeType) -> Iterator[str]:
    yield f"{code.co_argcount} {code.co_kwonlyargcount} {code.co_varnames} {code.co_names} {code.co_code.hex()}"
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _describe_code(constant)
        else:
            yield f"{type(constant).__name__} {constant!r}"


def _describe_value(name: str, value: Any, seen: set[int]) -> Iterator[str]:
    own = plain_function(value)
    shape = command_shape(value)
    if own is not None:
        yield name
        yield from _describe_function(own, seen)
    elif shape is not None:
        yield f"{name} command {value.__qualname__} {shape.fields} {shape.text}"
    elif isinstance(value, int | float | complex | str | bytes | tuple | frozenset | None):
        yield f"{name} {type(value).__name__} {value!r}"
    elif hasattr(value, "tobytes"):
        yield f"{name} {type(value).__name__} {value.tobytes().hex()}"
    else:
        yield f"{name} {getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}"
