"""What the YAML files may say of BACnet devices and points, and what is refused with which words."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from bacnet_peers import points_of, settings_for
from pydantic import BaseModel, ValidationError

from drivers.bacnet.driver import BacnetDriver
from drivers.bacnet.settings import BacnetAddress, BacnetSettings
from drivers.errors import AddressError
from drivers.interface import DevicePoint, EndpointSettings, PointAddress
from drivers.registry import installed_plugins


def address(where: Any) -> BacnetAddress:
    return BacnetAddress.model_validate(where)


@pytest.mark.parametrize(
    ("where", "key"),
    [
        ("binaryOutput,3", (4, 3, 85)),
        ("binary-output, 3", (4, 3, 85)),
        ("BinaryOutput:3", (4, 3, 85)),
        ({"object": "analogInput,4194302", "property": "highLimit"}, (0, 4194302, 45)),
        ({"object": "loop,1", "property": "high-limit"}, (12, 1, 45)),
    ],
)
def test_addresses(where: Any, key: tuple[int, int, int]) -> None:
    found = address(where)
    assert found.key == key
    assert BacnetAddress.model_validate_json(found.model_dump_json()) == found, "the journal keeps it as JSON"


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("binaryOutput", "needs an instance"),
        ("binaryOutput,-1", "needs an instance"),
        ("binaryOutput,4194303", "needs an instance"),
        ("thermostat,1", "object type 'thermostat' is unknown"),
        ({"object": "analogInput,1", "property": "colour"}, "property 'colour' is unknown"),
        ({"object": "analogInput,1", "scale": 0.0}, "scale must not be 0"),
        ({"object": "analogInput,1", "commandable": True}, "cannot be written"),
        ({"object": "analogOutput,1", "commandable": False}, "has a priority array"),
        ({"object": "analogInput,1", "offset": float("nan")}, "finite"),
        ({"object": "analogInput,1", "index": 3}, "Extra inputs"),
        ({}, "Field required"),
        (7, "valid dictionary"),
    ],
)
def test_bad_addresses(where: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        address(where)


@pytest.mark.parametrize(
    ("where", "writable", "relinquish", "resolution"),
    [
        ("analogInput,1", False, False, 0.0),
        ("analogOutput,1", True, True, 0.0),
        ("binaryOutput,1", True, True, 1.0),
        ("multiStateOutput,1", True, True, 1.0),
        ("analogValue,1", True, False, 0.0),
        ({"object": "analogValue,1", "commandable": True}, True, True, 0.0),
        ({"object": "integerValue,1", "scale": 0.1}, True, False, 0.1),
        ({"object": "analogOutput,1", "property": "highLimit"}, False, False, 0.0),
        ("loop,1", False, False, 0.0),
    ],
)
def test_what_an_address_tells_the_configuration(
    where: Any, writable: bool, relinquish: bool, resolution: float
) -> None:
    found = address(where)
    assert isinstance(found, PointAddress)
    assert (found.writable, found.can_relinquish, found.resolution) == (writable, relinquish, resolution)


def test_two_writers_of_one_property_are_seen() -> None:
    assert address("analog-output,1").span == address("analogOutput,1").span == ("analogOutput presentValue", 1, 2)
    assert address("analogOutput,2").span != address("analogOutput,1").span


def settings(**more: Any) -> BacnetSettings:
    return BacnetSettings.model_validate({"host": "10.0.0.5", "device": 12, **more})


def test_settings_name_their_device_and_round_trip() -> None:
    made = settings(network=20, address="7", timeout="500ms", foreign={"bbmd": "10.0.0.1", "ttl": "2min"}, cov={})
    assert isinstance(made, EndpointSettings)
    assert made.endpoint == "device 12" == settings().endpoint
    assert made.where == "10.0.0.5:47808 network 20 address 7"
    assert BacnetSettings.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"network": 20}, "both network: and address:"),
        ({"address": "7"}, "both network: and address:"),
        ({"network": 20, "address": "300"}, "is none of"),
        ({"network": 65535, "address": "7"}, "less than or equal to 65534"),
        ({"device": 4194303}, "less than or equal to 4194302"),
        ({"bind": "eth0"}, "not an IPv4 address"),
        ({"timeout": "3"}, "not a duration"),
        ({"cov": {"lifetime": "0s"}}, "greater than"),
        ({"window": 17}, "less than or equal to 16"),
    ],
)
def test_bad_settings(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**more)


@pytest.mark.parametrize("priority", [1, 8])
def test_priorities_of_people_and_life_safety_are_refused(priority: int, clock: Any) -> None:
    point = DevicePoint("valve", address("analogOutput,1"), writable=True, priority=priority)
    with pytest.raises(AddressError, match="belongs to people and life safety"):
        BacnetDriver.build("plc", settings_for(1), [point], clock)


def test_foreign_models_are_refused(clock: Any) -> None:
    class Other(BaseModel):
        """Somebody else's."""

    with pytest.raises(AddressError, match="needs BacnetSettings"):
        BacnetDriver.build("plc", Other(), points_of({"a": "analogInput,1"}), clock)
    with pytest.raises(AddressError, match="not a BACnet address"):
        BacnetDriver.build("plc", settings_for(1), [DevicePoint("a", Other())], clock)


def test_the_configuration_needs_neither_the_library_nor_the_driver() -> None:
    code = "import sys, drivers.bacnet.settings as s; print([m for m in sys.modules if m.split('.')[0] in ('bacpypes3', 'numpy', 'asyncio')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60.0)
    assert done.stdout.strip() == "[]"


def test_the_driver_is_a_plugin() -> None:
    plugin = installed_plugins()["bacnet"]
    assert (plugin.settings, plugin.address) == (BacnetSettings, BacnetAddress)
    assert plugin.load() == BacnetDriver.build
