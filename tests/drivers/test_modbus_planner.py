"""The planner: every point is covered once, nothing is split, no limit is passed, and few requests are made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.codec import byte_width
from drivers.modbus.planner import Layout, is_bits, limits_of
from drivers.modbus.settings import REGISTERS, ModbusAddress


def holding(start: int, type_: str = "u16") -> ModbusAddress:
    return ModbusAddress.model_validate({"holding": start, "type": type_})


@st.composite
def points(draw: st.DrawFn) -> list[ModbusAddress]:
    made = []
    for _ in range(draw(st.integers(1, 60))):
        table = draw(st.sampled_from(["coil", "discrete", "holding", "input"]))
        number = draw(st.one_of(st.integers(0, 300), st.integers(0, 65532)))
        if table in ("coil", "discrete"):
            made.append(ModbusAddress.model_validate({table: number}))
        else:
            type_ = draw(st.sampled_from(["u16", "i32", "f64"]))
            made.append(ModbusAddress.model_validate({table: number, "type": type_}))
    return made


@given(addresses=points(), max_block=st.integers(4, 125), max_gap=st.integers(0, 124), data=st.data())
def test_plans_cover_without_splitting_and_within_limits(
    addresses: list[ModbusAddress], max_block: int, max_gap: int, data: st.DataObject
) -> None:
    limits = limits_of(max_block, max_gap)
    layout = Layout(addresses, limits)
    without = data.draw(st.sets(st.integers(0, len(addresses) - 1)))
    blocks = layout.plan(limits, without)
    covered = [position for block in blocks for position in range(block.first, block.last)]
    assert covered == [position for position in range(len(addresses)) if position not in without]
    for block in blocks:
        assert block.count <= limits[is_bits(block.table)].count
        assert block.start + block.count <= 65536
        high = block.start
        for position in range(block.first, block.last):
            address = addresses[layout.order[position]]
            end = address.number + REGISTERS[address.type]
            assert address.table == block.table
            assert block.start <= address.number
            assert end <= block.start + block.count
            assert address.number - high <= limits[is_bits(block.table)].gap
            high = max(high, end)
        assert high == block.start + block.count, "no register is read beyond the last point"


@given(addresses=points(), max_gap=st.integers(0, 124), data=st.data())
def test_a_points_place_in_the_image_never_moves(
    addresses: list[ModbusAddress], max_gap: int, data: st.DataObject
) -> None:
    """Whatever the blocks are, a reply copied to its block's place puts every value where the decoder looks."""
    layout = Layout(addresses, limits_of(125, max_gap))
    narrower = limits_of(data.draw(st.integers(4, 125)), data.draw(st.integers(0, max_gap)))
    for block in layout.plan(narrower, set()):
        cell = 1 if is_bits(block.table) else 2
        for position in range(block.first, block.last):
            point = layout.order[position]
            assert layout.offsets[point] == block.image_offset + cell * (addresses[point].number - block.start)
            assert layout.offsets[point] + byte_width(addresses[point]) <= layout.image_size


@given(points())
def test_different_registers_have_different_places(addresses: list[ModbusAddress]) -> None:
    layout = Layout(addresses, limits_of(125, 8))
    places: dict[int, tuple[str, int]] = {}
    for address, offset in zip(addresses, layout.offsets, strict=True):
        cell = byte_width(address) // REGISTERS[address.type]
        for word in range(REGISTERS[address.type]):
            assert places.setdefault(offset + cell * word, (address.table, address.number + word)) == (
                address.table,
                address.number + word,
            )


def test_ten_thousand_registers_take_eighty_requests() -> None:
    limits = limits_of(125, 8)
    blocks = Layout([holding(i) for i in range(10_000)], limits).plan(limits, set())
    assert len(blocks) == 80
    assert {block.count for block in blocks} == {125}


def test_two_thousand_coils_are_one_request() -> None:
    limits = limits_of(125, 8)
    blocks = Layout([ModbusAddress(coil=i) for i in range(2001)], limits).plan(limits, set())
    assert [block.count for block in blocks] == [2000, 1]


def test_a_value_at_the_edge_of_a_block_goes_to_the_next_one_whole() -> None:
    limits = limits_of(125, 8)
    addresses = [*[holding(i) for i in range(123)], holding(123, "f64")]
    blocks = Layout(addresses, limits).plan(limits, set())
    assert [(block.start, block.count) for block in blocks] == [(0, 123), (123, 4)]


def test_gaps_are_bridged_up_to_the_setting() -> None:
    for max_gap, expected in ((4, [(0, 1), (6, 1)]), (5, [(0, 7)])):
        limits = limits_of(125, max_gap)
        blocks = Layout([holding(0), holding(6)], limits).plan(limits, set())
        assert [(block.start, block.count) for block in blocks] == expected


@given(points())
def test_halving_ends_at_single_points(addresses: list[ModbusAddress]) -> None:
    limits = limits_of(125, 8)
    layout = Layout(addresses, limits)
    todo = layout.plan(limits, set())
    alone = 0
    while todo:
        block = todo.pop()
        halves = layout.split(block)
        if halves is None:
            same = {(layout.starts[k], layout.ends[k]) for k in range(block.first, block.last)}
            assert len(same) == 1
            alone += block.last - block.first
            continue
        left, right = halves
        assert (left.first, left.last, right.last) == (block.first, right.first, block.last)
        todo += halves
    assert alone == len(addresses)


def test_the_strikes_of_a_block_are_inherited() -> None:
    limits = limits_of(125, 8)
    layout = Layout([holding(i) for i in range(4)], limits)
    block = layout.plan(limits, set())[0]
    block.strikes = 2
    halves = layout.split(block)
    assert halves is not None
    assert [half.strikes for half in halves] == [2, 2]
