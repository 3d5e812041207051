"""Compile the batch of a control function with numba. The function's source stays as written; only what its names mean
changes.

A command class becomes a compiled constructor whose fields are all float64 (so that branches that return ``0`` and ``x
* 30`` have one type), and the site's own helper functions become compiled ones. The plain function and its module are
never touched.
"""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
import types
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
from numba.core import cgutils
from numba.core import types as numba_types
from numba.core.errors import NumbaError
from numba.cpython.unicode import _get_code_point
from numba.extending import intrinsic

from agent.kernels import aot, jit
from agent.kernels.cache import require_trusted, write_folder
from agent.kernels.errors import CompilerMissingError, KernelError
from agent.poet.batch import TEXT_BYTES, Run
from agent.poet.batch_load import SIGNATURE, batch_source, build_name, build_source
from agent.poet.fingerprint import closure_values, plain_function, used_names
from agent.poet.shape import Function, ResultShape, command_shape

if TYPE_CHECKING:
    from agent.poet.functions import ControlFunction

_COMPILE_ERRORS = (NumbaError, NotImplementedError, TypeError, ValueError, AssertionError, LookupError, AttributeError)
"""What numba raises for code it cannot compile: mostly its own errors, sometimes not."""


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def copy_bytes(_typing: Any, text: Any, unit: Any, source: Any, count: Any) -> Any:
    """Copy ``count`` bytes from an address to the start of a unit's row. Without a loop and a view: five times as fast."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        rows = context.make_array(signature.args[0])(context, builder, values[0])
        offset = builder.mul(values[1], values[1].type(TEXT_BYTES))
        cgutils.raw_memcpy(builder, builder.gep(rows.data, [offset]), values[2], values[3], 1)
        return context.get_dummy_value()

    return numba_types.void(text, numba_types.intp, source, numba_types.intp), generate


@numba.njit  # type: ignore[untyped-decorator, unused-ignore]
def clear_text(text: Any, unit: int, used: int) -> None:
    """Zero what an earlier, longer message left behind the first ``used`` bytes of a unit's row."""
    while used < TEXT_BYTES and text[unit, used] != 0:
        text[unit, used] = 0
        used += 1


@numba.njit  # type: ignore[untyped-decorator, unused-ignore]
def put_unicode(text: Any, unit: int, message: str) -> int:
    """Write a message as UTF-8 into a unit's row, cut at a character's border, and return the bytes used."""
    used = 0
    for index in range(len(message)):
        point = _get_code_point(message, index)
        if 0xD800 <= point <= 0xDFFF:
            point = 0x3F  # a lone surrogate has no UTF-8; Python writes ? as well
        size = 1 if point < 0x80 else 2 if point < 0x800 else 3 if point < 0x10000 else 4
        if used + size > TEXT_BYTES:
            break
        if size == 1:
            text[unit, used] = point
        else:
            lead = 0xC0 if size == 2 else 0xE0 if size == 3 else 0xF0
            text[unit, used] = lead | (point >> (6 * (size - 1)))
            for step in range(1, size):
                text[unit, used + step] = 0x80 | ((point >> (6 * (size - 1 - step))) & 0x3F)
        used += size
    return used


@numba.njit(forceinline=True)  # type: ignore[untyped-decorator, unused-ignore]
def put_text(text: Any, unit: int, message: str) -> None:
    """Write a message into a unit's row as UTF-8 and zero what was there before."""
    if message._is_ascii:  # type: ignore[attr-defined]
        used = min(len(message), TEXT_BYTES)
        copy_bytes(text, unit, message._data, used)  # type: ignore[attr-defined]
    else:
        used = put_unicode(text, unit, message)
    clear_text(text, unit, used)


def compile_jit(function: ControlFunction, name: str, source: bytes) -> Run:
    """The compiled loop, from numba's disk cache if it has been compiled before.

    Raises:
        KernelError: it does not compile; says why in one line.
    """
    caching = jit.use_disk_cache()
    batch = _batch_function(function, name, source, caching)
    try:
        run: Run = numba.njit(SIGNATURE, cache=caching)(batch)
    except _COMPILE_ERRORS as error:
        raise KernelError(explain(error)) from error
    return run


def build_aot(function: ControlFunction) -> Path:
    """Build the loop as an extension module in the cache folder and return its path.

    Raises:
        CompilerMissingError: see :func:`agent.kernels.aot.build`.
        KernelError: it does not compile. A note with the reason is left, so that no start tries again.
    """
    name, source = build_name(function), build_source(function)
    batch = _batch_function(function, name, source, on_disk=False)
    try:
        return aot.build(name, source, {"batch": (SIGNATURE, batch)}, _module_of(function))
    except CompilerMissingError:
        raise
    except _COMPILE_ERRORS as error:
        reason = explain(error)
        folder = write_folder()
        if folder is not None:
            (folder / (aot.extension_name(name, source) + ".why")).write_text(reason, encoding="utf-8")
        raise KernelError(reason) from error


def explain(error: BaseException) -> str:
    """The one line of a numba error that tells the author of the function something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    noise = (
        "Failed in nopython mode",
        "During:",
        "File ",
        "This error may",
        "<source",
        "- Resolution",
        "[1] During",
        "There are",
        "Overload",
    )
    telling = [line for line in lines if not line.startswith(noise)]
    return "does not compile: " + (telling[0] if telling else type(error).__name__)


def compiled_function(plain: Function, done: dict[int, Any] | None = None) -> Any:
    """The function and everything of the site it calls, ready for numba. ``done`` keeps recursion finite."""
    done = {} if done is None else done
    if id(plain) in done:
        return done[id(plain)]
    namespace = dict(plain.__globals__)
    cells = {name: types.CellType(value) for name, value in closure_values(plain).items()}
    closure = tuple(cells[name] for name in plain.__code__.co_freevars) if plain.__closure__ else None
    code, defaults = _all_positional(plain)
    copy = types.FunctionType(code, namespace, plain.__name__, defaults, closure)
    done[id(plain)] = numba.njit(copy)
    for name in used_names(plain.__code__):
        if name in namespace:
            namespace[name] = _meaning(namespace[name], done)
    for cell in cells.values():
        cell.cell_contents = _meaning(cell.cell_contents, done)
    return done[id(plain)]


def _all_positional(plain: Function) -> tuple[types.CodeType, tuple[Any, ...]]:
    """The function's code and defaults with its keyword-only parameters made ordinary ones: numba knows no others."""
    code = plain.__code__
    keywords = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    given = plain.__kwdefaults__ or {}
    defaults = (
        (plain.__defaults__ or ()) + tuple(given[name] for name in keywords) if len(given) == len(keywords) else ()
    )
    return code.replace(co_argcount=code.co_argcount + len(keywords), co_kwonlyargcount=0), defaults


def _meaning(value: Any, done: dict[int, Any]) -> Any:
    """What a name of the site means to the compiler."""
    own = plain_function(value)
    if own is not None:
        return compiled_function(own, done)
    shape = command_shape(value)
    return value if shape is None else _constructor(shape)


def _constructor(shape: ResultShape) -> Any:
    """A compiled stand-in for a command class: the same parameters and defaults, numbers as float64."""
    command = shape.command
    assert command is not None
    names: tuple[str, ...] = getattr(command, "_fields", None) or tuple(
        field.name for field in dataclasses.fields(command)
    )
    defaults = _defaults(command)
    parameters = ", ".join(f"{name}={defaults[name]!r}" if name in defaults else name for name in names)
    values = ", ".join(name if name == shape.text else f"float({name})" for name in names)
    scope: dict[str, Any] = {"Command": namedtuple(command.__name__, names)}
    exec(f"def make({parameters}):\n    return Command({values})\n", scope)  # noqa: S102  (field names are identifiers)
    return numba.njit(scope["make"])


def _defaults(command: type) -> dict[str, Any]:
    if dataclasses.is_dataclass(command):
        return {
            field.name: field.default
            for field in dataclasses.fields(command)
            if field.default is not dataclasses.MISSING
        }
    return dict(getattr(command, "_field_defaults", {}))


def _batch_function(function: ControlFunction, name: str, source: bytes, on_disk: bool) -> Callable[..., None]:
    """The generated loop over the compiled function. Numba's disk cache wants a file behind it, so it gets one."""
    text = batch_source(function)
    file = f"<batch of {function.name}>"
    if on_disk:
        file = str(_write_source(aot.extension_name(name, source) + ".py", text))
    scope: dict[str, Any] = {
        "function": compiled_function(function.plain),
        "put_text": put_text,
        "clear_text": clear_text,
        "isfinite": math.isfinite,
    }
    exec(compile(text, file, "exec"), scope)  # noqa: S102  (generated above from parameter and field names)
    batch: Callable[..., None] = scope["batch"]
    batch.__module__ = "agent.poet.batch_compile"
    return batch


def _write_source(file_name: str, text: str) -> Path:
    """Keep the generated text beside numba's cache files, written once: its time stamp is part of numba's key."""
    folder = write_folder()
    assert folder is not None
    path = folder / "jit" / file_name
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        require_trusted(path)
        return path
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as new:
        new.write(text)
    os.chmod(new.name, 0o644)  # noqa: PTH101  (as readable as the compiled code it belongs to)
    os.replace(new.name, path)  # noqa: PTH105
    return path


def _module_of(function: ControlFunction) -> types.ModuleType:
    """What numba wants to know of the module an extension comes from: a name and a file."""
    module = types.ModuleType(function.plain.__module__ or "site")
    module.__file__ = function.plain.__code__.co_filename
    return module
