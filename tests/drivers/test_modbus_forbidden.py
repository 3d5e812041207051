"""Addresses that no read may touch, not even along the way, whatever is learnt about the device meanwhile."""

from __future__ import annotations

import pytest
from conftest import ManualClock
from hypothesis import given, settings
from hypothesis import strategies as st
from modbus_peers import Request, ScriptedServer, driver_for, holding_points

from drivers.errors import AddressError
from drivers.interface import DevicePoint
from drivers.modbus.planner import Layout, limits_of, probe_of
from drivers.modbus.settings import Forbidden, ModbusAddress

RANGES = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 20)).map(lambda r: (r[0], r[0] + r[1])), max_size=6)


@settings(deadline=None)
@given(
    starts=st.sets(st.integers(0, 300), min_size=1, max_size=60),
    ranges=RANGES,
    table=st.sampled_from(["coil", "discrete", "input", "holding"]),
    max_gap=st.integers(0, 50),
)
def test_no_read_and_no_probe_touches_a_forbidden_address(
    starts: set[int], ranges: list[tuple[int, int]], table: str, max_gap: int
) -> None:
    barred = {number for first, last in ranges for number in range(first, last + 1)}
    wanted = sorted(starts - barred)
    if not wanted:
        return
    forbidden = Forbidden.model_validate({table: ranges})
    limits = limits_of(125, max_gap)
    layout = Layout([ModbusAddress.model_validate({table: start}) for start in wanted], limits, forbidden)
    blocks = layout.plan(limits, without=())
    read = [number for block in blocks for number in range(block.start, block.start + block.count)]
    assert set(wanted) <= set(read)
    assert not barred & set(read)
    for block in blocks:
        if block.probe is not None:
            count = int.from_bytes(block.probe.pdu[3:5], "big")
            assert not barred & set(range(block.start, block.start + count))
            assert block.probe.reply_length != block.reply_length
            assert block.probe.pdu[0] == block.request[0]


def test_other_tables_are_not_meant() -> None:
    limits = limits_of(125, 8)
    addresses = [ModbusAddress(holding=1), ModbusAddress(holding=5)]
    assert len(Layout(addresses, limits, Forbidden(input=((2, 3),))).plan(limits, ())) == 1
    assert len(Layout(addresses, limits, Forbidden(holding=((2, 3),))).plan(limits, ())) == 2


@pytest.mark.parametrize(
    ("table", "start", "count", "probed"),
    [
        ("holding", 10, 5, 4),
        ("holding", 10, 1, 2),
        ("holding", 65535, 1, None),
        ("holding", 19, 1, None),
        ("coil", 0, 9, 1),
        ("coil", 0, 8, 16),
        ("coil", 65530, 3, None),
    ],
)
def test_a_probe_asks_for_less_or_for_a_neighbour_that_is_allowed(
    table: str, start: int, count: int, probed: int | None
) -> None:
    probe = probe_of(table, start, count, Forbidden(holding=((20, 20),)))  # type: ignore[arg-type]
    assert (None if probe is None else int.from_bytes(probe.pdu[3:5], "big")) == probed


async def test_a_device_with_holes_that_bite(clock: ManualClock) -> None:
    """Reading 105 would reset a counter. It is never read, though the device refuses blocks and is halved."""
    touched: set[int] = set()

    async def strict(request: Request) -> None:
        start, count = (int.from_bytes(request.pdu[k : k + 2], "big") for k in (1, 3))
        touched.update(range(start, start + count))
        request.refuse(2) if start <= 103 < start + count else request.answer()

    starts = [100, 101, 104, 106, 109]
    async with ScriptedServer(strict) as server:
        driver = driver_for(server.port, holding_points(starts), clock, forbidden={"holding": [[105, 105]]})
        await driver.connect()
        for _ in range(4):
            result = await driver.poll()
        assert result.value.tolist() == starts
        assert 105 not in touched
        assert 107 in touched, "other gaps are read along"
        await driver.close()


def test_a_point_at_a_forbidden_address_is_a_configuration_error(clock: ManualClock) -> None:
    point = DevicePoint("a/flow", ModbusAddress(holding=104, type="u32"))
    with pytest.raises(AddressError, match=r"a/flow: holding 104 is forbidden"):
        driver_for(1, [point], clock, forbidden={"holding": [[105, 110]]})
    driver_for(1, [point], clock, forbidden={"holding": [[106, 110]], "input": [[104, 105]]})
