"""The registry of domains, and what every plugin gets from its base class."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from agent.poet import plugins, poet
from agent.poet.errors import PerceiveError, PluginError
from agent.poet.plugins import CallContext, DomainPlugin, PluginMetadata, find_plugin, known_domains


class Pumps(DomainPlugin):
    metadata = PluginMetadata("pumps", "1.0", "pumps", ("speed",), ">=0.1")
    inputs = MappingProxyType({"pressure": plugins.InputSpec("Pa", 0.0, 1000.0)})

    def get_domain_name(self) -> str:
        return "pumps"

    def validate_output(self, result: Any, context: CallContext) -> tuple[str, ...]:
        return ()

    def get_learning_hints(self, context: Any) -> dict[str, Any]:
        return {}

    def get_performance_optimizations(self) -> dict[str, Any]:
        return {}


class Misnamed(Pumps):
    def get_domain_name(self) -> str:
        return "fans"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    entries: list[EntryPoint] = []
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry for entry in entries if entry.group == group])
    monkeypatch.setitem(sys.modules, "pumps_plugin", sys.modules[__name__])
    find_plugin.cache_clear()
    yield entries
    find_plugin.cache_clear()


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, plugins.GROUP)


def test_an_installed_plugin_is_found(installed: list[EntryPoint]) -> None:
    installed.append(entry("pumps", "pumps_plugin:Pumps"))
    assert isinstance(find_plugin("pumps"), Pumps)
    assert find_plugin("pumps") is find_plugin("pumps")
    assert known_domains() == ("building_management", "pumps")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("pumps_plugin:Misnamed", "says its domain is 'fans'"),
        ("pumps_plugin:entry", "not a subclass"),
        ("no_such_module_at_all:Pumps", "cannot be imported"),
    ],
)
def test_what_is_no_plugin_is_refused(installed: list[EntryPoint], value: str, message: str) -> None:
    installed.append(entry("pumps", value))
    with pytest.raises(PluginError, match=message):
        find_plugin("pumps")


def test_two_packages_for_one_domain_are_refused(installed: list[EntryPoint]) -> None:
    installed += [entry("pumps", "pumps_plugin:Pumps"), entry("pumps", "other:Pumps")]
    with pytest.raises(PluginError, match="uninstall one"):
        find_plugin("pumps")


def test_there_is_no_such_domain() -> None:
    with pytest.raises(PluginError, match="building_management"):
        find_plugin("cooking")


def test_a_domain_is_imported_when_it_is_used_and_not_before() -> None:
    code = "import sys, agent.poet.decorator; assert not [m for m in sys.modules if m.startswith('agent.domains.building')]"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_the_perceive_kernel_needs_no_decorator_and_no_log() -> None:
    code = (
        "import sys, agent.poet.perceive, agent.poet.batch\n"
        "assert not {'agent.poet.decorator', 'structlog', 'numba', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(
    "inputs",
    [
        {"pressure": None},
        {"pressure": math.nan},
        {"pressure": -999.0},
        {"pressure": 1000.001},
        {"pressure": "500"},
        {"other": None},
        {"other": math.inf},
        {"other": [1.0, None]},
        {"other": {"east": math.nan}},
        {"pressure": [500.0, 2000.0]},
        {"pressure": np.float32(2000.0)},
    ],
)
def test_inputs_that_cannot_be_believed(inputs: dict[str, Any]) -> None:
    with pytest.raises(PerceiveError) as caught:
        Pumps().process_inputs((), inputs)
    assert all(cause.startswith(tuple(inputs)) for cause in caught.value.causes)


@pytest.mark.parametrize(
    "inputs", [{"pressure": 0}, {"pressure": 1000.0}, {"pressure": np.float32(5)}, {"other": "text"}, {"other": [1, 2]}]
)
def test_inputs_that_can(inputs: dict[str, Any]) -> None:
    assert Pumps().process_inputs((), inputs) == inputs


def test_every_bad_input_is_named() -> None:
    with pytest.raises(PerceiveError) as caught:
        Pumps().process_inputs((None,), {"pressure": 2000.0, "other": math.nan})
    assert len(caught.value.causes) == 3


def test_a_domain_without_equipment_raises(installed: list[EntryPoint]) -> None:
    installed.append(entry("pumps", "pumps_plugin:Pumps"))

    @poet(domain="pumps")
    def speed(pressure: float, *more: float, offset: float = 0.0) -> float:
        return pressure + sum(more) + offset

    assert speed(1.0, 2.0, 3.0, offset=4.0) == 10.0
    with pytest.raises(PerceiveError, match=r"pressure = 5000"):
        speed(5000.0)
    with pytest.raises(PerceiveError, match="extra argument 1"):
        speed(1.0, math.nan)
    with pytest.raises(TypeError, match="unexpected keyword"):
        speed(1.0, ofset=1.0)  # type: ignore[call-arg]
