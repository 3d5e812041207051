"""Domain plugins: the part of POET that knows a field. The base class and the registry of those there are.

A plugin is found by its domain's name: the built-in ones, imported when first asked for, and those of other packages by
the entry-point group ``poetd.domains`` (each names a :class:`DomainPlugin` class).
"""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from numbers import Real
from types import MappingProxyType
from typing import Any, ClassVar

from agent.poet.errors import PerceiveError, PluginError

GROUP = "poetd.domains"

_BUILT_IN: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"building_management": ("agent.domains.building_management.plugin", "BuildingManagement")}
)
"""Domain → (module, class)."""


@dataclass(frozen=True, slots=True)
class PluginMetadata:
    """What a plugin says of itself.

    ``compatibility`` is the range of poetd versions, as in a requirement (``>=0.1,<1``).
    """

    name: str
    version: str
    domain: str
    capabilities: tuple[str, ...]
    compatibility: str


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What one input is: its unit (UCUM) and the believable range in that unit, both ends included.

    Declared, never guessed.
    """

    unit: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Learnable:
    """A parameter that may be learned: its factory value and the range learning can never leave."""

    default: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CallContext:
    """What Enforce may know of the call it judges."""

    function: str
    inputs: Mapping[str, Any]


class DomainPlugin(ABC):
    """Base of every domain.

    One instance serves all functions of the domain, from any thread: keep no state of a call in it.
    """

    metadata: ClassVar[PluginMetadata]
    inputs: ClassVar[Mapping[str, InputSpec]] = MappingProxyType({})
    """Inputs the domain knows, by parameter name. Others are passed on, but never as None or NaN."""
    commands_equipment: ClassVar[bool] = False
    """Whether the results act on equipment: then every failure ends in :meth:`fail_safe`, never in an exception or a
    raw value.
    """
    functions_module: ClassVar[str] = ""
    """The module in which a site's ``domain.function`` is looked up."""

    @abstractmethod
    def get_domain_name(self) -> str:
        """The name given in ``@poet(domain=...)``."""

    def process_inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Check the inputs and return those to call the function with.

        Args:
            args: positional arguments that have no name (of a function with ``*args``); they reach the function as they
                are.
            kwargs: every other argument by its parameter's name, however the caller passed it.

        Raises:
            PerceiveError: naming every input that cannot be believed.
        """
        causes = [*_unnamed_causes(args), *self._named_causes(kwargs)]
        if causes:
            raise PerceiveError(self.get_domain_name(), tuple(causes))
        return dict(kwargs)

    @abstractmethod
    def validate_output(self, result: Any, context: CallContext) -> tuple[str, ...]:
        """Every reason why this result is not allowed; empty if it is. Must not change the result."""

    def fail_safe(self, command: type | None, reason: str) -> Any:
        """The command that leaves the equipment safe. ``command`` is the class the function returns, where that is
        known.

        Raises:
            PluginError: the domain commands no equipment, or does not know the class.
        """
        del command
        raise PluginError(f"domain {self.get_domain_name()} has no fail-safe command (asked for because: {reason})")

    @abstractmethod
    def get_learning_hints(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """What a learner should know: objective, constraints, time constants."""

    @abstractmethod
    def get_performance_optimizations(self) -> dict[str, Any]:
        """Settings that suit the domain, such as a timeout; they hold where the decorator says nothing."""

    def get_learnable_parameters(self) -> Mapping[str, Learnable]:
        """Keyword parameters that may be set from the parameter store, with hard ranges."""
        return {}

    def get_domain_metrics(self) -> Mapping[str, float]:
        """Figures of the domain for telemetry."""
        return {}

    def _named_causes(self, inputs: Mapping[str, Any]) -> list[str]:
        causes = []
        for name, value in inputs.items():
            cause = _cause(name, value, self.inputs.get(name))
            if cause:
                causes.append(cause)
        return causes


def _cause(name: str, value: Any, spec: InputSpec | None) -> str:
    """Why an input cannot be believed, empty if it can. Lists, tuples and dicts are looked through: one bad sensor is a bad input."""
    if isinstance(value, int | float):
        if spec is not None and not spec.low <= value <= spec.high:
            return f"{name} = {value:g} is not between {spec.low:g} and {spec.high:g} {spec.unit}"
        return "" if math.isfinite(value) else f"{name} is not a number"
    if value is None:
        return f"{name} is missing"
    if isinstance(value, list | tuple):
        return "; ".join(filter(None, (_cause(f"{name}[{index}]", item, spec) for index, item in enumerate(value))))
    if isinstance(value, Mapping):
        return "; ".join(filter(None, (_cause(f"{name}[{key!r}]", item, spec) for key, item in value.items())))
    if isinstance(value, Real):
        return _cause(name, float(value), spec)
    return "" if spec is None else f"{name} is {type(value).__name__}, not a number in {spec.unit}"


def _unnamed_causes(args: tuple[Any, ...]) -> list[str]:
    return [cause for index, value in enumerate(args) if (cause := _cause(f"extra argument {index + 1}", value, None))]


@cache
def find_plugin(domain: str) -> DomainPlugin:
    """The plugin of a domain; the same object every time.

    Raises:
        PluginError: there is none (names the nearest), two packages claim it, or what they name is not a plugin.
    """
    if domain in _BUILT_IN:
        module, name = _BUILT_IN[domain]
        return _instance(domain, getattr(importlib.import_module(module), name), module)
    found = [entry for entry in entry_points(group=GROUP) if entry.name == domain]
    if not found:
        near = get_close_matches(domain, known_domains(), 1)
        hint = f", did you mean {near[0]}?" if near else f"; there are: {', '.join(known_domains())}"
        raise PluginError(f"there is no domain {domain!r}{hint}")
    if len({entry.value for entry in found}) > 1:
        raise PluginError(
            f"two packages bring the domain {domain!r} ({', '.join(entry.value for entry in found)}): uninstall one"
        )
    return _instance(domain, _load(found[0]), found[0].value)


def known_domains() -> tuple[str, ...]:
    """The names of all domains, sorted. Imports none of them."""
    return tuple(sorted({*_BUILT_IN, *(entry.name for entry in entry_points(group=GROUP))}))


def _load(entry: EntryPoint) -> object:
    try:
        return entry.load()
    except Exception as error:
        raise PluginError(f"domain {entry.name!r}: {entry.value} cannot be imported: {error}") from error


def _instance(domain: str, made_by: object, source: str) -> DomainPlugin:
    if not (isinstance(made_by, type) and issubclass(made_by, DomainPlugin)):
        raise PluginError(f"domain {domain!r}: {source} is not a subclass of agent.poet.plugins.DomainPlugin")
    plugin = made_by()
    if plugin.get_domain_name() != domain:
        raise PluginError(f"domain {domain!r}: {source} says its domain is {plugin.get_domain_name()!r}")
    return plugin
