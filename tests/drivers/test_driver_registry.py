"""Which drivers there are: packages can add one, and two of one name are never left to chance."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest
from pydantic import BaseModel

from drivers import registry
from drivers.errors import AddressError
from drivers.interface import DriverPlugin


class Settings(BaseModel):
    """A third party's."""


FOREIGN = DriverPlugin("knx", Settings, Settings, lambda: pytest.fail("not used"))
CLASH = DriverPlugin("modbus", Settings, Settings, lambda: pytest.fail("not used"))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    registry.installed_plugins.cache_clear()
    yield
    registry.installed_plugins.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    entries = [EntryPoint(name.lower(), f"{__name__}:{name}", registry.GROUP) for name in names]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries if group == registry.GROUP else [])


def test_the_built_in_drivers_are_there_and_load_lazily(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    plugins = registry.installed_plugins()
    assert plugins["modbus"].name == "modbus"
    with pytest.raises(TypeError):
        plugins["other"] = FOREIGN  # type: ignore[index]


def test_a_package_adds_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "FOREIGN")
    assert registry.installed_plugins()["knx"] is FOREIGN


def test_a_second_driver_of_the_same_name_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "CLASH")
    with pytest.raises(AddressError, match="two drivers are called 'modbus'; uninstall the package of"):
        registry.installed_plugins()


def test_an_entry_point_that_is_not_a_plugin_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "Settings")
    with pytest.raises(AddressError, match=r"settings .* is not a drivers\.interface\.DriverPlugin"):
        registry.installed_plugins()
