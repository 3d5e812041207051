"""The OPC UA driver: the suite of every driver, on real sockets, polled and subscribed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from driver_suite import DriverSuite, Rig
from opcua_peers import OpcUaRig

from drivers.interface import DeviceClock


class TestOpcUaDriver(DriverSuite):
    @pytest.fixture
    async def rig(self, clock: DeviceClock) -> AsyncIterator[Rig]:
        rig = OpcUaRig(clock)
        await rig.start()
        yield rig
        await rig.stop()
