"""Browsing a server for points."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from asyncua import Server, ua
from opcua_peers import AHU, POINTS, OpcUaRig, settings_for

from drivers.interface import DeviceClock
from drivers.opcua.connection import Connection
from drivers.opcua.node_names import NodeName
from drivers.opcua.scan import scan


@pytest.fixture
async def rig(clock: DeviceClock) -> AsyncIterator[OpcUaRig]:
    rig = OpcUaRig(clock)
    await rig.start()
    yield rig
    await rig.stop()


def objects(rig: OpcUaRig) -> tuple[Server, ua.NodeId]:
    server = rig.server._server
    assert server is not None
    return server, server.nodes.objects


async def test_every_number_is_found_and_nothing_else(rig: OpcUaRig) -> None:
    server, top = objects(rig)
    space = await server.get_namespace_index(AHU)
    await top.add_variable(ua.NodeId("text", space), "text", "words")
    await top.add_variable(ua.NodeId("array", space), "array", [1.0, 2.0])
    measured = await top.add_variable(ua.NodeId("measured", space), "measured", 5.0)
    await measured.add_property(0, "EURange", ua.Range(-10.0, 40.0))
    await measured.add_property(0, "EngineeringUnits", ua.EUInformation(DisplayName=ua.LocalizedText("°C")))
    connection = Connection(settings_for(rig.port))
    await connection.open()
    result = await scan(connection)
    found = {one.name: one for one in result.nodes}
    expected = {address.name for address, _value in POINTS.values()} | {NodeName(AHU, "measured")}
    assert found.keys() == expected
    assert result.cut == ""
    supply, fan = found[NodeName(AHU, "Supply")], found[NodeName(AHU, "Fan")]
    assert (supply.type, supply.writable, supply.low, supply.unit) == ("Float", False, None, None)
    assert (fan.type, fan.writable) == ("Boolean", True)
    assert supply.path == ("values 1", "Supply")
    with_range = found[NodeName(AHU, "measured")]
    assert (with_range.low, with_range.high, with_range.unit) == (-10.0, 40.0, "°C")
    await connection.close()


async def test_circles_and_depth_and_number_are_bounded(rig: OpcUaRig) -> None:
    server, top = objects(rig)
    space = await server.get_namespace_index(AHU)
    first = await top.add_folder(space, "deep")
    folder = first
    for level in range(8):
        folder = await folder.add_folder(space, f"level {level}")
    await folder.add_variable(space, "bottom", 1.0)
    await folder.add_reference(first, ua.ObjectIds.Organizes)
    connection = Connection(settings_for(rig.port))
    await connection.open()
    whole = await scan(connection)
    assert whole.cut == ""
    assert sum(one.path[-1] == "bottom" for one in whole.nodes) == 1
    shallow = await scan(connection, max_depth=3)
    assert "3 levels" in shallow.cut
    assert not any(one.path[-1] == "bottom" for one in shallow.nodes)
    few = await scan(connection, max_nodes=4)
    assert "4 nodes" in few.cut
    assert len(few.nodes) <= 4
    await connection.close()
