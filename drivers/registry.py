"""Which drivers there are: the built-in ones, and those of other packages (entry-point group ``poetd.drivers``)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType

from drivers.bacnet.settings import BacnetAddress, BacnetSettings
from drivers.errors import AddressError
from drivers.interface import DriverFactory, DriverPlugin
from drivers.modbus.settings import ModbusAddress, ModbusSettings
from drivers.opcua.settings import OpcUaAddress, OpcUaSettings

GROUP = "poetd.drivers"


def _load_modbus() -> DriverFactory:
    from drivers.modbus.driver import ModbusDriver

    return ModbusDriver.build


def _load_opcua() -> DriverFactory:
    from drivers.opcua.driver import OpcUaDriver

    return OpcUaDriver.build


def _load_bacnet() -> DriverFactory:
    from drivers.bacnet.driver import BacnetDriver

    return BacnetDriver.build


_BUILT_IN = (
    DriverPlugin("modbus", ModbusSettings, ModbusAddress, _load_modbus),
    DriverPlugin("opcua", OpcUaSettings, OpcUaAddress, _load_opcua),
    DriverPlugin("bacnet", BacnetSettings, BacnetAddress, _load_bacnet),
)


@cache
def installed_plugins() -> Mapping[str, DriverPlugin]:
    """Every driver by its YAML name.

    Raises:
        AddressError: two packages claim one name. Which one runs must never be chance.
    """
    plugins = {plugin.name: plugin for plugin in _BUILT_IN}
    for entry in entry_points(group=GROUP):
        plugin = entry.load()
        if not isinstance(plugin, DriverPlugin):
            raise AddressError(
                f"entry point {entry.name} ({entry.value}) in {GROUP} is not a drivers.interface.DriverPlugin"
            )
        if plugin.name in plugins:
            raise AddressError(f"two drivers are called {plugin.name!r}; uninstall the package of {entry.value}")
        plugins[plugin.name] = plugin
    return MappingProxyType(plugins)
