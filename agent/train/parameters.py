"""The parameters core has in force: factory values from the site's files, replaced by learned ones only within limits.

Core owns this object; the train worker only sends proposals, and every proposal is checked here as if it came from a
stranger. Limits are taken from the site's files once and cannot change afterwards: learning can never widen them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from agent.train.errors import StoreError
from agent.train.messages import Answer, EwmaSpec, ParameterState, Proposal, UnitSpec
from agent.train.store import LearningStore, ParameterVersion

if TYPE_CHECKING:
    from agent.config.unit import UnitConfig

DEFAULT_STEP: Final = 0.1
"""Of the range, where the site's files give no ``max_step``."""

WINDOW_SLACK: Final = 0.01
"""Of the learning window: two steps may be so much closer than the window, for the scan's own jitter."""


class _Limits(NamedTuple):
    factory: float
    low: float
    high: float
    max_step: float


class _InForce(NamedTuple):
    value: float
    version: int
    since: float  # control clock of the last applied proposal; -inf: before this process


class ParameterSet:
    """Every parameter of the site and its value in force.

    ``generation`` grows with each change, so that a reader that copied the values knows when to copy again.
    """

    def __init__(self, units: Iterable[UnitConfig]) -> None:
        limits: dict[tuple[str, str], _Limits | float] = {}
        learning: dict[str, EwmaSpec] = {}
        names: dict[str, tuple[str, ...]] = {}
        for unit in units:
            names[unit.name] = tuple(unit.parameters)
            for name, parameter in unit.parameters.items():
                if isinstance(parameter, int | float):
                    limits[unit.name, name] = float(parameter)
                    continue
                low, high = parameter.range
                max_step = DEFAULT_STEP * (high - low) if parameter.max_step is None else parameter.max_step
                limits[unit.name, name] = _Limits(parameter.value, low, high, max_step)
            if unit.train is not None:
                ewma = unit.train.ewma
                learn = unit.train.mode == "on"
                learning[unit.name] = EwmaSpec(ewma.parameter, ewma.gain, ewma.weight, ewma.window, learn)
        self.generation = 0
        self._names: Final = MappingProxyType(names)
        self._limits: Final = MappingProxyType(limits)
        self._learning: Final = MappingProxyType(learning)
        self._in_force = {
            key: _InForce(limit if isinstance(limit, float) else limit.factory, 0, -math.inf)
            for key, limit in limits.items()
        }

    def load(self, path: Path) -> list[str]:
        """Put the store's active values in force where they are within today's limits.

        Returns what was not taken over and why, one text each; those parameters, or all of them if the store cannot be
        read, stay at their factory values. A store that does not exist yet is no fault.
        """
        if not path.exists():
            return []
        try:
            with LearningStore(path, read_only=True) as store:
                rows = store.active_all()
        except StoreError as error:
            return [f"learned parameters are not used, factory values are in force: {error}"]
        reports = []
        for key, limits in self._limits.items():
            row = rows.get(key)
            if row is None or row.source == "factory":
                continue
            why = "it is now a constant" if isinstance(limits, float) else _unfit(row, limits)
            if why:
                reports.append(f"{row.unit}/{row.name}: learned value {row.value} (version {row.version}): {why}")
                continue
            self._in_force[key] = _InForce(row.value, row.version, -math.inf)
            self.generation += 1
        return reports

    def value(self, unit: str, name: str) -> float:
        """Return the value in force. Raises KeyError for a parameter the site does not have."""
        return self._in_force[unit, name].value

    def version(self, unit: str, name: str) -> int:
        """Return the version in force, 0 for the factory value."""
        return self._in_force[unit, name].version

    def values(self, unit: str) -> dict[str, float]:
        """Return the unit's parameters in the order of its file."""
        return {name: self._in_force[unit, name].value for name in self._names[unit]}

    def specs(self) -> list[UnitSpec]:
        """Return what the train worker must know, for every unit with something to learn or to keep."""
        specs = []
        for unit, names in self._names.items():
            states = {}
            for name in names:
                limits, now = self._limits[unit, name], self._in_force[unit, name]
                if isinstance(limits, _Limits):
                    states[name] = ParameterState(now.value, now.version, *limits)
            if states:
                specs.append(UnitSpec(unit, states, self._learning.get(unit)))
        return specs

    def apply(self, proposal: Proposal, now: float) -> Answer:
        """Put a proposal in force if it keeps every limit, and return the answer for the worker; never raises.

        Args:
            proposal: what came from the worker; nothing about it is believed.
            now: the control clock, in seconds: at most one step per learning window is taken.
        """
        unit, name, value, version = proposal[:4]
        key = (unit, name)
        why = self._refusal(proposal, now)
        if why:
            return Answer(
                False, str(unit), str(name), _finite_or_nan(value), version if _is_version(version) else 0, why
            )
        before = self._in_force[key]
        self._in_force[key] = _InForce(float(value), version, now)
        self.generation += 1
        return Answer(True, unit, name, float(value), version, f"was {before.value:g}, version {before.version}")

    def _refusal(self, proposal: Proposal, now: float) -> str:
        """Return why the proposal is refused, empty if it is not."""
        unit, name, value, version = proposal[:4]
        if not isinstance(unit, str) or not isinstance(name, str):
            return "unit and parameter must be names"
        limits, ewma = self._limits.get((unit, name)), self._learning.get(unit)
        if limits is None:
            return "no such parameter on this site"
        if isinstance(limits, float) or ewma is None or ewma.parameter != name:
            return "nothing may learn this parameter"
        if not ewma.learn:
            return "learning is off for this unit"
        if not math.isfinite(_finite_or_nan(value)):
            return "not a finite number"
        before = self._in_force[unit, name]
        if not _is_version(version) or version <= before.version:
            return f"not newer than version {before.version} in force"
        if not limits.low <= value <= limits.high:
            return f"outside the range [{limits.low:g}, {limits.high:g}]"
        rounding = 4.0 * math.ulp(max(abs(limits.low), abs(limits.high)))
        if abs(value - before.value) > limits.max_step + rounding:
            return f"{value:g} is more than a step of {limits.max_step:g} away from {before.value:g}"
        if not now - before.since >= ewma.window * (1.0 - WINDOW_SLACK):
            return f"only one step per window of {ewma.window:g} s"
        return ""


def _unfit(row: ParameterVersion, limits: _Limits) -> str:
    """Return why a stored value may not be used, empty if it may."""
    if not math.isfinite(_finite_or_nan(row.value)):
        return f"not a finite number: the factory value {limits.factory:g} is in force"
    if row.factory != limits.factory:
        return f"the factory value was changed from {row.factory} to {limits.factory:g}, which is in force"
    if not limits.low <= row.value <= limits.high:
        outside = f"outside the range [{limits.low:g}, {limits.high:g}]"
        return f"{outside}: the factory value {limits.factory:g} is in force"
    return ""


def _is_version(version: object) -> bool:
    return isinstance(version, int) and not isinstance(version, bool) and 0 < version < 2**53


def _finite_or_nan(value: object) -> float:
    """Return a real number as float, NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan
