"""Single bits of holding registers: by the device itself (function 22), or by reading and writing back if allowed."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from conftest import ManualClock
from gates import open_journal, wide_gate
from modbus_peers import Request, ScriptedServer, driver_for

from drivers.errors import DeviceRefusedError, EncodingError, NotWritableError, ProtocolError
from drivers.interface import DevicePoint
from drivers.modbus import pdu
from drivers.modbus.registers import Register, RegisterMap
from drivers.modbus.server import ModbusServer
from drivers.modbus.settings import ModbusAddress
from safety.values import WriteOutcome


class Word:
    """One holding register 7 on a device, with function 22 or without."""

    def __init__(self, *, has_mask: bool) -> None:
        self.value = 0b1010_0000_0000_0101
        self.has_mask = has_mask
        self.functions: list[int] = []

    async def handle(self, request: Request) -> None:
        function = request.pdu[0]
        self.functions.append(function)
        if function == 3:
            await asyncio.sleep(0)
            request.answer(b"\x03\x02" + self.value.to_bytes(2, "big"))
        elif function == 6:
            self.value = struct.unpack(">BHH", request.pdu)[2]
            request.answer()
        elif function == 22 and self.has_mask:
            _function, _number, and_mask, or_mask = struct.unpack(">BHHH", request.pdu)
            self.value = (self.value & and_mask) | (or_mask & ~and_mask & 0xFFFF)
            request.answer(request.pdu)
        else:
            request.refuse(1)


def bit_points(*, allowed: bool, order: str = "ABCD") -> list[DevicePoint]:
    addresses = [
        ModbusAddress.model_validate({"holding": 7, "bit": bit, "order": order, "read_modify_write": allowed})
        for bit in range(16)
    ]
    return [DevicePoint(f"a/b{bit}", address, writable=True) for bit, address in enumerate(addresses)]


NAMES = [f"a/b{bit}" for bit in range(16)]


@pytest.mark.parametrize("has_mask", [True, False])
@pytest.mark.parametrize("order", ["ABCD", "DCBA"])
async def test_every_bit_is_set_and_cleared_alone(
    clock: ManualClock, tmp_path: Path, order: str, has_mask: bool
) -> None:
    word = Word(has_mask=has_mask)
    async with ScriptedServer(word.handle) as server:
        driver = driver_for(server.port, bit_points(allowed=not has_mask, order=order), clock)
        await driver.connect()
        with open_journal(tmp_path) as journal:
            gate = wide_gate(journal, NAMES)
            for bit in range(16):
                for level in (1.0, 0.0, 1.0):
                    before = word.value
                    await driver.write(gate.admit(f"a/b{bit}", level))
                    mask = 1 << (bit if order == "ABCD" else bit ^ 8)
                    assert word.value == (before | mask if level else before & ~mask)
                    assert await driver.read_back(f"a/b{bit}") == level
        assert (await driver.poll()).value.tolist() == [1.0] * 16
        assert word.functions.count(22) == (48 if has_mask else 1), "asked once whether the device has it"
        await driver.close()


async def test_without_function_22_and_without_leave_nothing_is_written(clock: ManualClock, tmp_path: Path) -> None:
    word = Word(has_mask=False)
    async with ScriptedServer(word.handle) as server:
        driver = driver_for(server.port, bit_points(allowed=False), clock)
        await driver.connect()
        with open_journal(tmp_path) as journal:
            gate = wide_gate(journal, NAMES)
            for _ in range(2):
                with pytest.raises(NotWritableError, match=r"a/b3.*no function 22.*read_modify_write: true"):
                    await driver.write(gate.admit("a/b3", 1.0))
            assert (await gate.write(driver, "a/b3", 1.0)).outcome is WriteOutcome.REJECTED
        assert word.value == 0b1010_0000_0000_0101
        assert 6 not in word.functions
        await driver.close()


async def test_bits_written_side_by_side_do_not_undo_each_other(clock: ManualClock, tmp_path: Path) -> None:
    word = Word(has_mask=False)
    word.value = 0
    async with ScriptedServer(word.handle) as server:
        driver = driver_for(server.port, bit_points(allowed=True), clock)
        await driver.connect()
        with open_journal(tmp_path) as journal:
            gate = wide_gate(journal, NAMES)
            await asyncio.gather(*(driver.write(gate.admit(name, 1.0)) for name in NAMES))
        assert word.value == 0xFFFF
        await driver.close()


async def test_another_refusal_does_not_lead_to_reading_and_writing(clock: ManualClock, tmp_path: Path) -> None:
    async def failing(request: Request) -> None:
        request.refuse(4)

    async with ScriptedServer(failing) as server:
        driver = driver_for(server.port, bit_points(allowed=True), clock)
        await driver.connect()
        with open_journal(tmp_path) as journal, pytest.raises(DeviceRefusedError, match="exception 4"):
            await driver.write(wide_gate(journal, NAMES).admit("a/b0", 1.0))
        assert [request.pdu[0] for request in server.requests] == [22]
        await driver.close()


async def test_an_acknowledgement_of_other_masks_is_not_believed(clock: ManualClock, tmp_path: Path) -> None:
    async def elsewhere(request: Request) -> None:
        request.answer(request.pdu[:-1] + b"\x63")

    async with ScriptedServer(elsewhere) as server:
        driver = driver_for(server.port, bit_points(allowed=False), clock)
        await driver.connect()
        with open_journal(tmp_path) as journal, pytest.raises(ProtocolError, match="acknowledged something else"):
            await driver.write(wide_gate(journal, NAMES).admit("a/b0", 1.0))
        await driver.close()


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0])
async def test_a_bit_takes_two_values(clock: ManualClock, tmp_path: Path, value: float) -> None:
    async with ScriptedServer() as server:
        driver = driver_for(server.port, bit_points(allowed=True), clock)
        await driver.connect()
        with open_journal(tmp_path) as journal, pytest.raises(EncodingError, match=r"a/b0.*0 or 1"):
            await driver.write(wide_gate(journal, NAMES).admit("a/b0", value))
        assert not server.requests
        await driver.close()


@pytest.fixture
async def plant() -> AsyncIterator[tuple[ModbusServer, dict[int, float]]]:
    """Our own server with bits 0 and 9 of register 7, of which 9 cannot be written."""
    held = {0: 0.0, 9: 1.0}
    registers = [
        Register(ModbusAddress(holding=7, bit=0), lambda: held[0], lambda value: held.__setitem__(0, value)),
        Register(ModbusAddress(holding=7, bit=9), lambda: held[9]),
    ]
    server = ModbusServer({1: RegisterMap(registers)})
    await server.start("127.0.0.1", 0)
    yield server, held
    await server.close()


async def test_our_server_writes_single_bits(
    plant: tuple[ModbusServer, dict[int, float]], clock: ManualClock, tmp_path: Path
) -> None:
    server, held = plant
    points = [DevicePoint(f"a/b{bit}", ModbusAddress(holding=7, bit=bit), writable=True) for bit in (0, 9)]
    driver = driver_for(server.port, points, clock)
    await driver.connect()
    with open_journal(tmp_path) as journal:
        gate = wide_gate(journal, NAMES)
        assert (await gate.write(driver, "a/b0", 1.0)).outcome is WriteOutcome.HELD
        assert held == {0: 1.0, 9: 1.0}
        with pytest.raises(DeviceRefusedError, match="illegal data address"):
            await driver.write(gate.admit("a/b9", 0.0))
    assert held == {0: 1.0, 9: 1.0}
    await driver.close()


def test_our_server_changes_nothing_if_one_masked_bit_cannot_be_written() -> None:
    held: list[float] = []
    registers = RegisterMap([Register(ModbusAddress(holding=7, bit=0), lambda: 0.0, held.append)])
    for mask in (0x0003, 0xFFFF, 0x0002):
        assert registers.answer(pdu.mask_request(7, mask, True)) == b"\x96\x02"
    assert registers.answer(pdu.mask_request(8, 1, True)) == b"\x96\x02"
    assert registers.answer(pdu.mask_request(7, 1, True)[:-1]) == b"\x96\x03"
    assert held == []
    assert registers.answer(pdu.mask_request(7, 1, True)) == pdu.mask_request(7, 1, True)
    assert held == [1.0]
