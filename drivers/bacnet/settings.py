"""What the YAML files say of a BACnet/IP device and of a point on it. Light: imported by the configuration."""

from __future__ import annotations

import builtins
import re
from functools import cached_property
from ipaddress import AddressValueError, IPv4Address
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from drivers.bacnet.names import OBJECT_TYPES, PROPERTIES
from drivers.modbus.settings import Seconds

PORT: Final = 47808
LAST_INSTANCE: Final = 4_194_302
"""The highest instance number; the one above it means "any"."""
DEFAULT_PRIORITY: Final = 12
"""Where we write unless the point says otherwise: below people (8), above the equipment's own schedules (16)."""

DataType = Literal["real", "double", "enumerated", "unsigned", "signed"]

OUTPUTS: Final = frozenset(("analogOutput", "binaryOutput", "multiStateOutput", "binaryLightingOutput"))
"""Always commandable: the standard requires their priority array."""
WRITTEN_AS: Final[dict[str, DataType]] = {
    "analogOutput": "real", "analogValue": "real", "binaryOutput": "enumerated", "binaryValue": "enumerated",
    "multiStateOutput": "unsigned", "multiStateValue": "unsigned", "integerValue": "signed",
    "positiveIntegerValue": "unsigned", "largeAnalogValue": "double", "binaryLightingOutput": "enumerated",
}  # fmt: skip
"""The object types whose present value may be written, and the data type it must have."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ForeignDevice(_Strict):
    """Registration with a BBMD, for discovery over the borders of an IP network."""

    bbmd: str = Field(max_length=255, description="the BBMD's name or address")
    port: int = Field(default=PORT, ge=1, le=65535, description="the BBMD's UDP port")
    ttl: Seconds = Field(default=60.0, ge=10.0, description="renewed well before it ends")


class CovSettings(_Strict):
    """Change-of-value subscriptions: changes arrive at once, and an unchanged point is read less often."""

    slots: int = Field(
        default=50, ge=1, le=1000, description="most subscriptions on the device; further points are polled"
    )
    lifetime: Seconds = Field(
        default=300.0, ge=10.0, description="after this the device forgets a subscription that is not renewed"
    )
    check: Seconds = Field(default=10.0, description="a subscribed point is read at least this often all the same")


class BacnetSettings(_Strict):
    """How to reach a BACnet/IP device."""

    host: str = Field(max_length=255, description="IPv4 address or name of the device, or of the router before it")
    port: int = Field(default=PORT, ge=1, le=65535, description="UDP port")
    device: int = Field(ge=0, le=LAST_INSTANCE, description="device instance; another device at the address is refused")
    network: int | None = Field(default=None, ge=1, le=65534, description="network number behind the router at host")
    address: str | None = Field(
        default=None,
        max_length=64,
        description="the device's address on that network: a number (MS/TP), an IPv4 address with port, or 0x and hex digits",
    )
    bind: str = Field(default=str(IPv4Address(0)), description="local IPv4 address to send from")
    local_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="local UDP port; 0 takes a free one. Devices with the same share one socket",
    )
    timeout: Seconds = Field(default=1.0, description="wait for one answer")
    retries: int = Field(default=1, ge=0, le=10, description="how often a request without an answer is sent again")
    window: int = Field(
        default=1, ge=1, le=16, description="requests in flight at once; more than 1 only if the device allows it"
    )
    max_objects: int | None = Field(
        default=None,
        ge=1,
        le=200,
        description="most objects in one ReadPropertyMultiple; by default as many as fit an answer",
    )
    foreign: ForeignDevice | None = Field(default=None, description="register with a BBMD as a foreign device")
    cov: CovSettings | None = Field(
        default=None, description="subscribe to changes of value; by default everything is polled"
    )

    @field_validator("bind")
    @classmethod
    def _is_ipv4(cls, value: str) -> str:
        try:
            return str(IPv4Address(value))
        except AddressValueError:
            raise ValueError(f"{value!r} is not an IPv4 address of this machine, such as 192.168.1.10") from None

    @model_validator(mode="after")
    def _routed(self) -> Self:
        if (self.network is None) != (self.address is None):
            raise ValueError("a device behind a router needs both network: and address:; one on this network neither")
        if self.address is not None:
            mac_bytes(self.address)
        return self

    @property
    def endpoint(self) -> str:
        """The one device that these settings reach: instance numbers are unique in a BACnet internetwork."""
        return f"device {self.device}"

    @property
    def where(self) -> str:
        """The address, for messages."""
        behind = "" if self.network is None else f" network {self.network} address {self.address}"
        return f"{self.host}:{self.port}{behind}"


def mac_bytes(text: str) -> bytes:
    """The address of a device on its own network as bytes.

    Raises:
        ValueError: not a number of 0 to 255, an IPv4 address with port, or ``0x`` with up to 7 bytes of hex digits.
    """
    if text.isdecimal() and int(text) <= 255:
        return bytes((int(text),))
    if re.fullmatch(r"0x(?:[0-9a-fA-F]{2}){1,7}", text):
        return bytes.fromhex(text[2:])
    host, _, port = text.partition(":")
    try:
        packed, number = IPv4Address(host).packed, int(port or PORT)
    except ValueError:
        number = 0
    if not 0 < number <= 65535:
        raise ValueError(f"address {text!r} is none of: a number of 0 to 255, 10.0.0.5:47808, 0x0a1b")
    return packed + number.to_bytes(2, "big")


class BacnetAddress(_Strict):
    """Where a value lives: ``"binaryOutput,3"``, or ``{object: "analogInput,1", property: highLimit, scale: 0.1}``.

    value = raw * scale + offset. Multi-state values count from 1, as on the wire.
    """

    model_config = ConfigDict(json_schema_extra={"type": ["string", "object"]})

    object: str = Field(max_length=64, description='type and instance: "analogInput,1"')
    property: str = Field(
        default="presentValue", max_length=64, description="which property; only presentValue is written"
    )
    scale: float = Field(default=1.0, description="value = raw * scale + offset; not 0")
    offset: float = Field(default=0.0, description="value = raw * scale + offset")
    commandable: bool | None = Field(
        default=None,
        description="whether a value object has a priority array, so that fail_safe may be relinquish; outputs always have one",
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        return {"object": data} if isinstance(data, str) else data

    @field_validator("object")
    @classmethod
    def _known_object(cls, value: str) -> str:
        name, comma, number = (part.strip() for part in value.replace(":", ",").partition(","))
        name = _camel(name)
        if name not in OBJECT_TYPES:
            raise ValueError(f"object type {name!r} is unknown; known are {', '.join(OBJECT_TYPES)}")
        if not comma or not number.isdecimal() or int(number) > LAST_INSTANCE:
            raise ValueError(f'{value!r} needs an instance of 0 to {LAST_INSTANCE}, such as "{name},1"')
        return f"{name},{int(number)}"

    @field_validator("property")
    @classmethod
    def _known_property(cls, value: str) -> str:
        name = _camel(value.strip())
        if name not in PROPERTIES:
            raise ValueError(f"property {value!r} is unknown; known are {', '.join(PROPERTIES)}")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.scale == 0.0:
            raise ValueError("scale must not be 0: every value would read as the offset")
        if self.commandable is not None and not self.writable:
            raise ValueError(f"{self.object} {self.property} cannot be written: leave commandable out")
        if self.commandable is False and self.type in OUTPUTS:
            raise ValueError(f"every {self.type} has a priority array: leave commandable out")
        return self

    @builtins.property
    def type(self) -> str:
        """The object type by name."""
        return self.object.partition(",")[0]

    @cached_property
    def key(self) -> tuple[int, int, int]:
        """Object type, instance and property, as numbers."""
        name, _, instance = self.object.partition(",")
        return OBJECT_TYPES[name], int(instance), PROPERTIES[self.property]

    @builtins.property
    def written_as(self) -> DataType | None:
        """The data type a write must have; None: not writable."""
        return WRITTEN_AS.get(self.type) if self.property == "presentValue" else None

    @builtins.property
    def writable(self) -> bool:
        """Present values of outputs and values can be written; inputs and other properties are only read."""
        return self.written_as is not None

    @builtins.property
    def can_relinquish(self) -> bool:
        """Outputs always; a value object if the file says that it is commandable (the driver asks the device)."""
        return self.writable and (self.type in OUTPUTS or self.commandable is True)

    @builtins.property
    def span(self) -> tuple[str, int, int]:
        """What a write touches: one property of one object."""
        instance = self.key[1]
        return f"{self.type} {self.property}", instance, instance + 1

    @builtins.property
    def resolution(self) -> float:
        """The smallest step the point can hold, in its unit: the scale of an integer, 0 for a float."""
        return 0.0 if self.written_as in ("real", "double", None) else abs(self.scale)


def _camel(name: str) -> str:
    """``analog-input`` and ``AnalogInput`` are ``analogInput``."""
    first, *rest = name.split("-")
    return first[:1].lower() + first[1:] + "".join(part[:1].upper() + part[1:] for part in rest)
