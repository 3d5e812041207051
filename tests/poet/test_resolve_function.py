"""Control functions by name, and what is said when there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.domains.building_management import zone_temperature
from agent.poet import handle_of, poet
from agent.poet.errors import FunctionImportError, FunctionNotFoundError, FunctionShapeError, PluginError
from agent.poet.functions import ControlFunction, resolve

SITE = """
from agent.poet import poet
from agent.domains.building_management import HVACCommand

@poet(domain="building_management")
def decorated(current_temp, setpoint=21.0):
    return HVACCommand(0, 0, 0, "x")

def plain(a):
    return a * 2.0

async def later(a):
    return a

number = 3
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "resolve_site.py").write_text(SITE)
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop("resolve_site", None)


def test_by_domain() -> None:
    function = resolve("building_management.zone_temperature")
    assert function.name == "building_management.zone_temperature"
    assert function.plain is handle_of(zone_temperature).plain
    assert function.parameters[:4] == ("current_temp", "setpoint", "occupancy", "outdoor_temp")
    assert function.defaults == {"bias": 0.0, "setback": 3.0, "deadband": 1.0, "gain": 30.0}
    assert function.fields == ("heating_output", "cooling_output", "fan_speed")
    assert function.domain is not None
    assert function.domain.inputs["outdoor_temp"].unit == "Cel"


def test_by_module(site: Path) -> None:
    decorated = resolve("resolve_site:decorated", [site])
    assert decorated.domain is not None
    assert decorated.defaults == {"setpoint": 21.0}
    plain = resolve("resolve_site:plain", [site])
    assert plain.domain is None
    assert plain.fields == ("value",)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("resolve_site:plane", FunctionNotFoundError, "did you mean plain?"),
        ("resolve_sight:plain", FunctionNotFoundError, "python_path"),
        ("building_management.zone_temperatur", FunctionNotFoundError, "did you mean zone_temperature?"),
        ("building_managment.zone_temperature", PluginError, "did you mean building_management?"),
        ("resolve_site:later", FunctionShapeError, "async"),
        ("resolve_site:number", FunctionShapeError, "int"),
    ],
)
def test_what_cannot_be_found(site: Path, spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve(spec, [site])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_like_this\n", "'nothing_like_this', which is not installed"),
        ("x = 1\ny = 1 / 0\n", r"broken_site.py:2: ZeroDivisionError"),
        ("def f(:\n", r"broken_site.py:1: SyntaxError"),
    ],
)
def test_a_module_that_fails_at_import_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    (tmp_path / "broken_site.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken_site", raising=False)
    with pytest.raises(FunctionImportError, match=message):
        resolve("broken_site:f", [tmp_path])


def test_of_a_decorated_function() -> None:
    @poet()
    def double(a: float) -> float:
        return a * 2.0

    assert ControlFunction.of(double).plain is handle_of(double).plain
