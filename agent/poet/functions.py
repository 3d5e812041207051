"""Control functions by name: ``domain.function`` of a plugin, or ``module:function`` of the site.

Imports site code: operate and compile only.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from agent.poet.errors import FunctionImportError, FunctionNotFoundError, FunctionShapeError
from agent.poet.plugins import DomainPlugin, find_plugin
from agent.poet.shape import Function, ResultShape, parameters, result_shape

if TYPE_CHECKING:
    from agent.poet.batch import BatchKernel, Check

POET_ATTRIBUTE = "poet"
"""Where the decorator leaves its handle on the wrapped function."""


@dataclass(frozen=True)
class ControlFunction:
    """One control function, ready to be bound to points. ``name`` is what the site file calls it."""

    name: str
    plain: Function
    parameters: tuple[str, ...]
    defaults: Mapping[str, float]
    shape: ResultShape
    domain: DomainPlugin | None

    @classmethod
    def of(cls, function: object, name: str | None = None) -> ControlFunction:
        """From a function, decorated with ``@poet`` or not.

        Raises:
            FunctionShapeError: it is async, takes ``*args``, has a default that is no number, or its result cannot be
                understood.
        """
        handle = getattr(function, POET_ATTRIBUTE, None)
        plain = getattr(handle, "plain", function)
        if not isinstance(plain, types.FunctionType):
            raise FunctionShapeError(f"{name or function!r} is a {type(plain).__name__}, not a function")
        if (
            inspect.iscoroutinefunction(plain)
            or inspect.isgeneratorfunction(plain)
            or inspect.isasyncgenfunction(plain)
        ):
            raise FunctionShapeError(
                f"{plain.__qualname__} is async or a generator: a control function answers at once, with return"
            )
        names, defaults = parameters(plain)
        return cls(
            name or plain.__qualname__, plain, names, defaults, result_shape(plain), getattr(handle, "plugin", None)
        )

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The names of the result's numbers, in the order of the batch's output rows."""
        return self.shape.fields

    def batch(self, mode: str, check: Check | None = None) -> BatchKernel:
        """The function as one call for many units (:mod:`agent.poet.batch`); in Python, with the reason, if it must.

        ``check`` compares the compiled loop with plain Python; default: in this process.
        """
        from agent.poet.batch import make_batch

        return make_batch(self, mode, check)


def resolve(spec: str, search_path: Sequence[Path] = ()) -> ControlFunction:
    """Find the function a site file names.

    Args:
        spec: ``building_management.zone_temperature`` or ``site_functions:control_hvac_zone``.
        search_path: the site's own folders; they are put in front of ``sys.path``.

    Raises:
        FunctionNotFoundError: no such domain, module or function; names the nearest.
        FunctionImportError: the module fails while it is imported; names its file and line.
        FunctionShapeError: see :meth:`ControlFunction.of`.
        PluginError: no such domain.
    """
    for folder in reversed([str(folder) for folder in search_path]):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    if ":" in spec:
        module_name, _, function_name = spec.partition(":")
        module = _import(module_name, spec)
    else:
        domain, _, function_name = spec.partition(".")
        module = _import(find_plugin(domain).functions_module, spec)
    found = vars(module).get(function_name)
    if found is None:
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        near = get_close_matches(function_name, names, 1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise FunctionNotFoundError(f"{spec}: {module.__name__} has no function {function_name!r}{hint}")
    return ControlFunction.of(found, spec)


def _import(module_name: str, spec: str) -> types.ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise FunctionNotFoundError(
                f"{spec}: there is no module {error.name!r} on the site's python_path"
            ) from error
        raise FunctionImportError(f"{spec}: {module_name} imports {error.name!r}, which is not installed") from error
    except Exception as error:
        raise FunctionImportError(f"{spec}: {_origin(error)}: {type(error).__name__}: {error}") from error


def _origin(error: BaseException) -> str:
    """File and line where the site's module failed."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    trace = error.__traceback__
    place = "unknown"
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<frozen"):
            place = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
