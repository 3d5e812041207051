"""Perceive, the decorator's side: every argument by its name, checked by the domain, none lost on the way."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from agent.poet.plugins import DomainPlugin, Learnable

_NAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Call(NamedTuple):
    """The arguments of one call: as they go to the function, and all named ones by name."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: Mapping[str, Any]


class Arguments:
    """How the arguments of one function are named."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters.values()
        self._positional = tuple(parameter.name for parameter in parameters if parameter.kind in _NAMED)
        self._positional_only = frozenset(
            parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_ONLY
        )
        self._known = frozenset(
            parameter.name
            for parameter in parameters
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        )
        self._required = frozenset(
            name for name in self._known if self._signature.parameters[name].default is inspect.Parameter.empty
        )
        self._numbers = tuple(
            parameter.name
            for parameter in parameters
            if isinstance(parameter.default, int | float)
            and not isinstance(parameter.default, bool)
            and parameter.name not in self._positional_only
        )

    def learnable(self, plugin: DomainPlugin | None) -> dict[str, Learnable | None]:
        """Keyword parameters with a number as default, with their ranges: of a domain, only those it names."""
        if plugin is None:
            return dict.fromkeys(self._numbers)
        known = plugin.get_learnable_parameters()
        return {name: known[name] for name in self._numbers if name in known}

    def named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Every argument that has a name, by name.

        Raises TypeError for a call the function would refuse, as Python does.
        """
        named = dict(zip(self._positional, args, strict=False))
        count = len(named) + len(kwargs)
        named.update(kwargs)
        fits = len(named) == count and len(args) <= len(self._positional)
        if not fits or any(name not in named for name in self._required) or not self._known.issuperset(kwargs):
            self._signature.bind(*args, **kwargs)
            if len(named) != count:
                raise TypeError(
                    "a positional-only parameter and a keyword have the same name: @poet cannot tell them apart"
                )
        return named

    def perceive(
        self, named: Mapping[str, Any], args: tuple[Any, ...], learned: Mapping[str, float], plugin: DomainPlugin | None
    ) -> Call:
        """Check the arguments with the domain and put the learned parameters in.

        Args:
            named: every argument that has a name; ``args`` as the caller passed them, for what has none and for the
                positions.

        Raises:
            PerceiveError: an input cannot be believed.
        """
        extra = args[len(self._positional) :]
        checked = named if plugin is None else plugin.process_inputs(extra, named)
        positional = self._positional[: len(args)]
        rest = {name: value for name, value in checked.items() if name not in positional}
        if learned:
            rest.update(learned)
            checked = {**checked, **learned}
        return Call(tuple([checked[name] for name in positional]) + extra, rest, checked)
