"""What a device refuses: the bad points are found and named, the good ones stay good. Against a device in memory."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.errors import DeadlineError, DeviceRefusedError, DriverError, NotConnectedError, ProtocolError
from drivers.modbus.codec import ImageDecoder
from drivers.modbus.pdu import ModbusExceptionError
from drivers.modbus.planner import Block, Layout, limits_of
from drivers.modbus.refusals import RETRY_BLOCKS, RETRY_S, ReadPlan
from drivers.modbus.settings import ModbusAddress
from drivers.modbus.sweep import HALVINGS_PER_PHASE, Sweep
from drivers.modbus.transaction import Transaction
from safety.values import Reason


@dataclass
class FakeDevice:
    """Registers that hold their own address. ``refused``: exception 2; ``silent``: no answer; ``most``: in one."""

    refused: set[int] = field(default_factory=set)
    silent: set[int] = field(default_factory=set)
    failing: set[int] = field(default_factory=set)
    most: int = 125
    everything: int | None = None
    requests: int = 0

    async def read(self, blocks: Sequence[Block]) -> Sequence[Transaction]:
        return [self._one(block) for block in blocks]

    def _one(self, block: Block) -> Transaction:
        self.requests += 1
        transaction = Transaction(1, block.request, block.reply_length)
        transaction.sent = 0.0
        span = set(range(block.start, block.start + block.count))
        if self.everything is not None:
            transaction.error = ModbusExceptionError("fake", self.everything)
        elif span & self.silent:
            transaction.error = DeadlineError("fake: no answer")
        elif span & self.failing:
            transaction.error = ModbusExceptionError("fake", 4)
        elif span & self.refused or block.count > self.most:
            transaction.error = ModbusExceptionError("fake", 2 if span & self.refused else 3)
        else:
            data = struct.pack(f">{block.count}H", *sorted(span))
            transaction.reply = bytes((3, len(data))) + data
        return transaction


class Poller:
    """A plan, its image and a device, polled by hand."""

    def __init__(self, starts: Sequence[int], device: FakeDevice, max_gap: int = 8, max_block: int = 125) -> None:
        self.addresses = [ModbusAddress(holding=start) for start in starts]
        limits = limits_of(max_block, max_gap)
        self.layout = Layout(self.addresses, limits)
        self.plan = ReadPlan(self.layout, limits)
        self.image = bytearray(self.layout.image_size)
        self.decoder = ImageDecoder(self.addresses, self.layout.offsets)
        self.device = device
        self.now = 0.0

    async def poll(self) -> Sweep:
        self.image[:] = b"\xee" * len(self.image)
        sweep = Sweep(self.plan, self.image, self.device.read)
        await sweep.run(self.now)
        values = self.decoder.decode(np.frombuffer(self.image, np.uint8))
        for position in np.flatnonzero(sweep.reasons == Reason.OK):
            point = self.layout.order[position]
            assert values[point] == self.addresses[point].number, "good means read in this poll, at the right place"
        return sweep

    def good(self, sweep: Sweep) -> set[int]:
        return {self.layout.starts[position] for position in np.flatnonzero(sweep.reasons == Reason.OK)}

    @property
    def quarantined(self) -> set[int]:
        return {self.layout.starts[position] for position in self.plan.quarantined}


@settings(deadline=None)
@given(
    starts=st.sets(st.integers(0, 400), min_size=2, max_size=150),
    data=st.data(),
    max_gap=st.integers(0, 20),
    most=st.sampled_from([1, 7, 30, 125]),
)
async def test_whatever_is_refused_all_other_points_become_good(
    starts: set[int], data: st.DataObject, max_gap: int, most: int
) -> None:
    """Bad registers, bad gaps and a size limit, in any mixture: a few polls later exactly the bad points are bad."""
    bad = data.draw(st.sets(st.integers(0, 400), max_size=40))
    poller = Poller(sorted(starts), FakeDevice(refused=bad, most=most), max_gap)
    if not starts - bad:
        with pytest.raises(DeviceRefusedError):
            await poller.poll()
        return
    sweep = None
    for _ in range(12):
        try:
            sweep = await poller.poll()
        except DeviceRefusedError:
            continue
    assert sweep is not None
    assert poller.good(sweep) == starts - bad
    assert poller.quarantined == starts & bad
    before = poller.device.requests
    await poller.poll()
    assert poller.device.requests - before == len(poller.plan.blocks), "once learnt, no request is wasted"


async def test_one_bad_register_spoils_nothing_even_in_the_first_poll() -> None:
    poller = Poller(range(1000), FakeDevice(refused={437}))
    sweep = await poller.poll()
    assert poller.good(sweep) == set(range(1000)) - {437}
    (positions, error), *others = sweep.refused
    assert not others
    assert poller.layout.starts[positions[0]] == 437
    assert "exception 2" in str(error)
    assert poller.device.requests < 8 + 2 * 8


async def test_a_device_that_allows_thirty_registers_is_learnt_in_the_first_poll() -> None:
    poller = Poller(range(10_000), FakeDevice(most=30))
    sweep = await poller.poll()
    assert poller.good(sweep) == set(range(10_000))
    assert not poller.plan.quarantined
    assert max(block.count for block in poller.plan.blocks) <= 30


async def test_a_device_that_comes_back_is_learnt_anew() -> None:
    """It may have been replaced: what the old one refused is asked for again, at once."""
    device = FakeDevice(refused={50, 70, 71}, most=30)
    poller = Poller([k for k in range(1000) if k not in (70, 71)], device)
    await poller.poll()
    assert poller.quarantined == {50}
    small = len(poller.plan.blocks)
    device.refused.clear()
    device.most = 125
    poller.plan.forget()
    sweep = await poller.poll()
    assert (poller.quarantined, len(poller.good(sweep))) == (set(), 998)
    assert len(poller.plan.blocks) == 8 < small


async def test_a_device_that_refuses_gaps_is_learnt_in_the_first_poll() -> None:
    starts = [k for k in range(10_000) if k % 97 != 5]
    poller = Poller(starts, FakeDevice(refused=set(range(10_000)) - set(starts)))
    sweep = await poller.poll()
    assert poller.good(sweep) == set(starts)
    assert not poller.plan.quarantined


async def test_a_flood_of_refusals_is_bounded_and_sorted_out_over_several_polls() -> None:
    bad = set(range(0, 2000, 10))
    poller = Poller(range(2000), FakeDevice(refused=bad))
    polls = 0
    good: set[int] = set()
    while good != set(range(2000)) - bad:
        before = poller.device.requests + len(poller.plan.blocks)
        good = poller.good(await poller.poll())
        assert poller.device.requests - before <= 2 * HALVINGS_PER_PHASE
        polls += 1
        assert polls < 60
    assert poller.quarantined == bad


async def test_quarantined_points_are_tried_again_and_come_back() -> None:
    device = FakeDevice(refused={10, 11, 50})
    poller = Poller(range(100), device)
    await poller.poll()
    assert poller.quarantined == {10, 11, 50}
    device.refused = {50}
    poller.now += RETRY_S / 2
    assert not (await poller.poll()).released
    poller.now += RETRY_S
    sweep = await poller.poll()
    assert sorted(poller.layout.starts[k] for k in sweep.released) == [10, 11]
    assert poller.good(sweep) == set(range(100)) - {50}
    assert not sweep.refused, "a point that stays in quarantine is not news"
    assert len(poller.plan.blocks) == 2
    before = device.requests
    await poller.poll()
    assert device.requests - before == 2, "one attempt per period, not one per poll"


async def test_a_retry_is_bounded_and_takes_turns() -> None:
    starts = range(0, 4000, 20)
    bad = set(starts) - {0}
    poller = Poller(starts, FakeDevice(refused=set(bad)))
    await poller.poll()
    assert poller.quarantined == bad
    poller.device.refused.clear()
    for _ in range(-(-len(bad) // RETRY_BLOCKS)):
        poller.now += RETRY_S
        before = poller.device.requests + len(poller.plan.blocks)
        await poller.poll()
        assert poller.device.requests - before <= RETRY_BLOCKS
    assert not poller.quarantined


@pytest.mark.parametrize("code", [1, 2, 3, 4, 6, 11])
async def test_a_device_that_refuses_everything_teaches_nothing(code: int) -> None:
    """Seen with controllers that answer "illegal data address" to everything while they start."""
    poller = Poller(range(300), FakeDevice(everything=code))
    for _ in range(5):
        with pytest.raises(DeviceRefusedError, match=f"exception {code}"):
            await poller.poll()
    assert not poller.plan.quarantined
    assert len(poller.plan.blocks) == 3
    poller.device.everything = None
    assert poller.good(await poller.poll()) == set(range(300))


async def test_a_register_that_is_met_with_silence_is_found_too() -> None:
    poller = Poller([*range(100), *range(200, 300)], FakeDevice(silent={250}))
    for _ in range(12):
        sweep = await poller.poll()
        assert set(range(100)) <= poller.good(sweep)
    assert poller.good(sweep) == {*range(100), *range(200, 300)} - {250}
    assert poller.quarantined == {250}


async def test_one_device_failure_is_chance_and_two_in_a_row_are_not() -> None:
    device = FakeDevice(failing={5})
    poller = Poller([5, *range(200, 300)], device)
    assert poller.good(await poller.poll()) == set(range(200, 300))
    device.failing.clear()
    await poller.poll()
    device.failing.add(5)
    await poller.poll()
    assert not poller.plan.quarantined
    await poller.poll()
    assert poller.quarantined == {5}


async def test_a_missing_table_is_quarantined_whole_without_halving() -> None:
    class NoInputs(FakeDevice):
        def _one(self, block: Block) -> Transaction:
            if block.table == "holding":
                return super()._one(block)
            self.requests += 1
            transaction = Transaction(1, block.request, block.reply_length)
            transaction.error = ModbusExceptionError("fake", 1)
            return transaction

    poller = Poller(range(10), NoInputs())
    addresses = [*poller.addresses, *[ModbusAddress(input=k) for k in range(50)]]
    limits = limits_of(125, 8)
    poller.layout = Layout(addresses, limits)
    poller.plan = ReadPlan(poller.layout, limits)
    sweep = Sweep(poller.plan, bytearray(poller.layout.image_size), poller.device.read)
    await sweep.run(0.0)
    assert poller.device.requests == 2
    assert len(poller.plan.quarantined) == 50


async def test_an_answer_with_a_wrong_byte_count_is_not_believed() -> None:
    class Liar(FakeDevice):
        def _one(self, block: Block) -> Transaction:
            transaction = super()._one(block)
            if block.start == 200:
                assert transaction.reply is not None
                transaction.reply = bytes((3, 4)) + transaction.reply[2:]
            return transaction

    poller = Poller([0, 1, 200], Liar())
    sweep = await poller.poll()
    assert poller.good(sweep) == {0, 1}
    assert isinstance(sweep.error, ProtocolError)


async def test_a_connection_lost_on_the_way_keeps_what_was_read() -> None:
    class Dying(FakeDevice):
        async def read(self, blocks: Sequence[Block]) -> Sequence[Transaction]:
            if self.requests:
                raise NotConnectedError("gone")
            return await super().read(blocks)

    poller = Poller(range(200), Dying(refused={3}))
    sweep = await poller.poll()
    assert poller.good(sweep) == set(range(125, 200))
    assert not poller.plan.quarantined
    poller.device.refused.clear()


def errors() -> st.SearchStrategy[DriverError]:
    return st.one_of(
        st.integers(0, 255).map(lambda code: ModbusExceptionError("fake", code)),
        st.sampled_from([DeadlineError("late"), NotConnectedError("gone"), ProtocolError("noise")]),
    )


@settings(deadline=None)
@given(script=st.lists(st.one_of(st.none(), errors()), min_size=1, max_size=400))
async def test_no_sequence_of_failures_breaks_the_bookkeeping(script: list[DriverError | None]) -> None:
    """Any answers in any order: polls end, good means fresh, and the plan still covers every point once."""

    class Scripted(FakeDevice):
        def _one(self, block: Block) -> Transaction:
            transaction = super()._one(block)
            error = script[self.requests % len(script)]
            if error is not None:
                transaction.reply, transaction.error = None, error
            return transaction

    poller = Poller([*range(40), *range(60, 90)], Scripted())
    for _ in range(6):
        with contextlib.suppress(DriverError):
            await poller.poll()
        poller.now += RETRY_S / 2
        covered = [position for block in poller.plan.blocks for position in range(block.first, block.last)]
        assert sorted(covered) == [k for k in range(70) if k not in poller.plan.quarantined]
