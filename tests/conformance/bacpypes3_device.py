"""A device of bacpypes3's own local objects, and its client: a BACnet stack nobody here wrote, in the test's event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bacpypes3.app import Application
from bacpypes3.local.analog import AnalogInputObject, AnalogOutputObject, AnalogValueObject
from bacpypes3.local.binary import BinaryInputObject, BinaryOutputObject
from bacpypes3.local.cmd import Commandable
from bacpypes3.local.device import DeviceObject
from bacpypes3.local.multistate import MultiStateValueObject
from bacpypes3.local.networkport import NetworkPortObject

HOST = "127.0.0.1"
DEVICE = 4711


class CommandableValue(Commandable, AnalogValueObject):
    """An analog value with a priority array."""


def free_port() -> int:
    """A UDP port that is free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def standard_objects() -> list[Any]:
    """One of each kind."""
    return [
        AnalogInputObject(objectIdentifier="analog-input,1", objectName="supply", presentValue=21.5, covIncrement=0.5),
        AnalogOutputObject(
            objectIdentifier="analog-output,1", objectName="valve", presentValue=10.0, relinquishDefault=10.0
        ),
        AnalogValueObject(objectIdentifier="analog-value,1", objectName="plain", presentValue=5.0),
        CommandableValue(
            objectIdentifier="analog-value,2", objectName="ranked", presentValue=7.0, relinquishDefault=7.0
        ),
        BinaryInputObject(objectIdentifier="binary-input,1", objectName="frost", presentValue="active"),
        BinaryOutputObject(
            objectIdentifier="binary-output,3", objectName="fan", presentValue="inactive", relinquishDefault="inactive"
        ),
        MultiStateValueObject(
            objectIdentifier="multi-state-value,1", objectName="mode", presentValue=2, numberOfStates=4
        ),
    ]


@asynccontextmanager
async def application(
    objects: Sequence[Any], *, device: int = DEVICE, port: int | None = None, **more: Any
) -> AsyncIterator[tuple[Application, int]]:
    """Run an application with these objects; yields it and its port. ``more`` are properties of the device object."""
    number = port or free_port()
    app = Application.from_object_list(
        [
            DeviceObject(objectIdentifier=("device", device), objectName=f"dev{device}", vendorIdentifier=999, **more),
            NetworkPortObject(f"{HOST}:{number}", objectIdentifier=("network-port", 1), objectName="port"),
            *objects,
        ]
    )
    try:
        await asyncio.sleep(0.05)  # it binds in a task of its own
        yield app, number
    finally:
        app.close()
        await asyncio.sleep(0.02)
