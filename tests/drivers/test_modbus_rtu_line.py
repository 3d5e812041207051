"""RTU over a (pseudo) serial line: many slaves, dead ones, late answers, noise. Never a wrong value, never a stuck line."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest
from conftest import ManualClock
from gates import open_journal, wide_gate
from modbus_peers import holding_points
from rtu_peers import Question, ScriptedLine, healthy, line_driver

from drivers.errors import (
    AddressError,
    DeadlineError,
    DeviceRefusedError,
    DriverError,
    NotConnectedError,
    ProtocolError,
)
from drivers.interface import DevicePoint, DeviceState, PollResult
from drivers.modbus import rtu
from drivers.modbus.bus import BABBLE_S
from drivers.modbus.settings import ModbusAddress
from safety.values import Quality

pytestmark = pytest.mark.fault


def assert_true_or_bad(result: PollResult, starts: list[int]) -> None:
    """The slaves' registers hold their own address: a good value is exactly that, any other is NaN."""
    for value, quality, start in zip(result.value, result.quality, starts, strict=True):
        assert value == start if quality == Quality.GOOD else np.isnan(value)


async def test_all_tables_are_read_and_written(clock: ManualClock, tmp_path: Path) -> None:
    points = [
        DevicePoint("a/coil", ModbusAddress(coil=9), writable=True),
        DevicePoint("a/discrete", ModbusAddress(discrete=10)),
        DevicePoint("a/input", ModbusAddress(input=11)),
        DevicePoint("a/holding", ModbusAddress(holding=12), writable=True),
        DevicePoint("a/wide", ModbusAddress(holding=1000, type="u32"), writable=True),
        DevicePoint("a/bit", ModbusAddress(holding=2001, bit=3), writable=True),
    ]
    async with ScriptedLine() as line:
        driver = line_driver(line.path, points, clock, unit_id=17)
        await driver.connect()
        result = await driver.poll()
        assert result.value.tolist() == [1.0, 0.0, 11.0, 12.0, 1000.0 * 65536 + 1001, 0.0]
        with open_journal(tmp_path) as journal:
            gate = wide_gate(journal, [point.name for point in points])
            for point in points:
                if point.writable:
                    await driver.write(gate.admit(point.name, 1.0))
        assert [question.pdu[0] for question in line.questions[-4:]] == [5, 6, 16, 22]
        assert line.questions[-1].pdu.hex() == "1607d1" + "fff7" + "0008"
        assert set(line.units()) == {17}
        assert line.damaged == 0
        await driver.close()


async def test_slaves_of_one_line_share_it_and_take_turns(clock: ManualClock) -> None:
    most = asked = 0

    def one_at_a_time(question: Question) -> None:
        nonlocal most, asked
        asked += 1
        most = max(most, asked)
        answer = question.frame()

        def say() -> None:
            nonlocal asked
            asked -= 1
            line.say(answer)

        asyncio.get_running_loop().call_later(0.001, say)

    starts = list(range(0, 600, 100))
    async with ScriptedLine(one_at_a_time) as line:
        drivers = [line_driver(line.path, holding_points(starts), clock, unit_id=unit) for unit in range(1, 6)]
        await asyncio.gather(*(driver.connect() for driver in drivers))
        results = await asyncio.gather(*(driver.poll() for driver in drivers))
        assert all(result.value.tolist() == starts for result in results)
        assert most == 1, "a line carries one request at a time"
        assert line.units() == [1, 2, 3, 4, 5] * len(starts), "question by question in turn"
        for driver in drivers:
            await driver.close()


async def test_a_write_overtakes_the_polls(clock: ManualClock, tmp_path: Path) -> None:
    async with ScriptedLine() as line:
        drivers = [line_driver(line.path, holding_points(range(0, 2000, 50)), clock, unit_id=unit) for unit in (1, 2)]
        for driver in drivers:
            await driver.connect()
        polls = [asyncio.create_task(driver.poll()) for driver in drivers]
        while len(line.questions) < 3:
            await asyncio.sleep(0.001)
        sent = len(line.questions)
        with open_journal(tmp_path) as journal:
            await drivers[0].write(wide_gate(journal, ["ahu/r50"]).admit("ahu/r50", 5.0))
        assert [question.pdu[0] for question in line.questions].index(6) <= sent + 1
        for poll in polls:
            assert (await poll).quality.all()
        for driver in drivers:
            await driver.close()


async def test_a_dead_slave_costs_one_deadline_and_is_then_asked_less_often(clock: ManualClock) -> None:
    def dead_nine(question: Question) -> None:
        if question.unit != 9:
            question.answer()

    starts = list(range(0, 500, 50))
    async with ScriptedLine(dead_nine) as line:
        dead = line_driver(line.path, holding_points(starts), clock, unit_id=9, timeout="40ms")
        alive = [line_driver(line.path, holding_points(starts), clock, unit_id=unit) for unit in (1, 2, 3)]
        for driver in (dead, *alive):
            await driver.connect()
        for _ in range(25):
            outcomes = await asyncio.gather(*(driver.poll() for driver in (dead, *alive)), return_exceptions=True)
            assert isinstance(outcomes[0], DeadlineError)
            for result in outcomes[1:]:
                assert isinstance(result, PollResult)
                assert result.value.tolist() == starts
        assert line.units().count(9) <= 8, "not 25 times: asked, asked again, then after 4, 8, 16 deadlines"
        assert "not asked again for" in dead.health.last_error
        for driver in (dead, *alive):
            await driver.close()


async def test_a_dead_slave_comes_back(clock: ManualClock) -> None:
    def silent(question: Question) -> None:
        del question

    async with ScriptedLine(silent) as line:
        driver = line_driver(line.path, holding_points([1, 2]), clock, timeout="20ms")
        await driver.connect()
        for _ in range(2):
            with pytest.raises(DeadlineError):
                await driver.poll()
        line.handler = healthy
        async with asyncio.timeout(5.0):
            while True:
                await driver.connect()
                try:
                    result = await driver.poll()
                    break
                except DeadlineError:
                    await asyncio.sleep(0.02)
        assert result.value.tolist() == [1.0, 2.0]
        assert driver.health.state is DeviceState.ONLINE
        await driver.close()


@pytest.mark.parametrize("lateness", [0.03, 0.05, 0.1])
async def test_a_late_reply_never_becomes_another_registers_value(clock: ManualClock, lateness: float) -> None:
    """Ten registers in ten reads of equal shape. Without transaction ids a late answer fits them all."""

    free_at = 0.0

    def lagging(question: Question) -> None:
        nonlocal free_at
        # A slave works on one request after the other: what is asked after a slow one is answered after it.
        slow = question.count == 1 and chance.random() < 0.2
        free_at = max(free_at, question.at) + (lateness if slow else 0.0)
        line.later(free_at - question.at, question.frame())

    chance = random.Random(7)
    starts = list(range(0, 1000, 100))
    good = 0
    async with ScriptedLine(lagging) as line:
        driver = line_driver(line.path, holding_points(starts), clock, timeout="25ms")
        async with asyncio.timeout(30.0):  # the line is of use all the same
            while good < 50:
                await driver.connect()
                try:
                    result = await driver.poll()
                except DriverError:
                    await asyncio.sleep(0.02)
                    continue
                assert_true_or_bad(result, starts)
                good += int((result.quality == Quality.GOOD).sum())
        assert any(question.count == 2 for question in line.questions), "probes were asked"
        await driver.close()


async def test_after_a_timeout_the_slave_is_probed_before_it_is_asked_the_like(clock: ManualClock) -> None:
    def first_late(question: Question) -> None:
        if len(line.questions) == 1:
            held.append(question.frame())
        else:
            # The late answer is on the line before the next one, as from a slave that answers in order.
            line.say(b"".join(held))
            held.clear()
            question.answer()

    held: list[bytes] = []
    async with ScriptedLine(first_late) as line:
        driver = line_driver(line.path, holding_points([100, 200]), clock, timeout="25ms", max_gap=0)
        await driver.connect()
        with pytest.raises(DeadlineError):
            await driver.poll()
        await driver.connect()
        assert (await driver.poll()).value.tolist() == [100.0, 200.0]
        assert [(question.start, question.count) for question in line.questions] == [
            (100, 1),
            (100, 2),
            (100, 1),
            (200, 1),
        ]
        await driver.close()


async def test_where_the_neighbour_is_forbidden_a_single_register_is_not_probed(clock: ManualClock) -> None:
    def first_late(question: Question) -> None:
        if len(line.questions) > 1:
            question.answer()

    async with ScriptedLine(first_late) as line:
        points = holding_points([100, 200, 300, 301])
        driver = line_driver(
            line.path, points, clock, timeout="25ms", max_gap=0, forbidden={"holding": [[101, 110], [201, 210]]}
        )
        await driver.connect()
        with pytest.raises(DeadlineError):
            await driver.poll()
        await driver.connect()
        result = await driver.poll()
        assert result.quality.tolist() == [Quality.BAD, Quality.BAD, Quality.GOOD, Quality.GOOD]
        assert (await driver.poll()).value.tolist() == [100.0, 200.0, 300.0, 301.0], "another answer settled it"
        touched = {question.start + k for question in line.questions for k in range(question.count)}
        assert touched == {100, 200, 300, 301}
        await driver.close()


@pytest.mark.parametrize("cut", range(5 + 2 * 3))
async def test_a_reply_cut_at_every_byte(clock: ManualClock, cut: int) -> None:
    def cutting(question: Question) -> None:
        line.say(question.frame()[:cut])

    starts = [1, 2, 3]
    async with ScriptedLine(cutting) as line:
        driver = line_driver(line.path, holding_points(starts), clock, timeout="90ms")
        await driver.connect()
        with pytest.raises((ProtocolError, DeadlineError)):
            await driver.poll()
        line.handler = healthy
        await driver.connect()
        assert (await driver.poll()).value.tolist() == starts
        await driver.close()


async def test_a_damaged_answer_is_asked_for_once_more(clock: ManualClock) -> None:
    def every_other(question: Question) -> None:
        frame = bytearray(question.frame())
        if len(line.questions) % 2:
            frame[-1] ^= 0x10
        line.say(bytes(frame))

    async with ScriptedLine(every_other) as line:
        driver = line_driver(line.path, holding_points([1, 2, 3]), clock, timeout="300ms")
        await driver.connect()
        assert (await driver.poll()).value.tolist() == [1.0, 2.0, 3.0]
        assert len(line.questions) == 2
        await driver.close()


async def test_a_write_is_not_repeated_when_its_answer_is_damaged(clock: ManualClock, tmp_path: Path) -> None:
    def damaged(question: Question) -> None:
        line.say(question.frame()[:-1] + b"\x00")

    async with ScriptedLine(damaged) as line:
        driver = line_driver(line.path, holding_points([1]), clock, timeout="80ms")
        await driver.connect()
        with open_journal(tmp_path) as journal, pytest.raises(ProtocolError, match="no answer, but 8 other bytes"):
            await driver.write(wide_gate(journal, ["ahu/r1"]).admit("ahu/r1", 5.0))
        assert len(line.questions) == 1
        await driver.close()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda q: q.frame(unit=q.unit + 1), "no answer, but 11 other bytes"),
        (lambda q: q.frame(b"\x04" + b"\x06\x00\x01\x00\x02\x00\x03"), "no answer, but 11 other bytes"),
        (lambda q: q.frame(b"\x03\x04\x00\x01\x00\x02"), "no answer, but 9 other bytes"),
        (lambda q: q.frame(b"\x03\x06\x00\x01\x00\x02"), "no answer, but 9 other bytes"),
        (lambda q: q.frame(b"\x83"), "no answer, but 4 other bytes"),
        (lambda q: b"\x00" * 300, r"no answer, but 300 other bytes.*\.\.\."),
        (lambda q: b"\xff", "did not answer within"),
        (lambda q: rtu.frame(q.unit, q.pdu), "echoes what is sent: switch its local echo off"),
        (lambda q: rtu.frame(q.unit, q.pdu) + q.frame(), "echoes what is sent"),
    ],
)
async def test_what_is_no_answer_is_said_so(clock: ManualClock, wrong, message: str) -> None:  # type: ignore[no-untyped-def]
    def liar(question: Question) -> None:
        line.say(wrong(question))

    async with ScriptedLine(liar) as line:
        driver = line_driver(line.path, holding_points([1, 2, 3]), clock)
        await driver.connect()
        with pytest.raises((ProtocolError, DeadlineError), match=message):
            await driver.poll()
        line.handler = healthy
        await driver.connect()
        assert (await driver.poll()).value.tolist() == [1.0, 2.0, 3.0]
        await driver.close()


@pytest.mark.parametrize("code", [1, 2, 4, 6])
async def test_an_exception_is_a_refusal_by_name(clock: ManualClock, code: int) -> None:
    async with ScriptedLine(lambda question: question.refuse(code)) as line:
        driver = line_driver(line.path, holding_points([1]), clock, unit_id=3)
        await driver.connect()
        with pytest.raises(DeviceRefusedError, match=rf"{line.path} unit 3: exception {code}, "):
            await driver.poll()
        await driver.close()


async def test_a_glitch_before_the_answer_is_skipped(clock: ManualClock) -> None:
    """A transceiver that is switched on makes a byte or two."""

    async with ScriptedLine(lambda question: line.say(b"\x00\xff" + question.frame() + b"\x00")) as line:
        driver = line_driver(line.path, holding_points(range(0, 500, 50)), clock)
        await driver.connect()
        for _ in range(3):
            assert (await driver.poll()).value.tolist() == list(range(0, 500, 50))
        await driver.close()


@pytest.mark.parametrize("seed", range(6))
async def test_noise_ends_in_an_error_and_never_in_a_value(clock: ManualClock, seed: int) -> None:
    chance = random.Random(seed)

    def noisy(question: Question) -> None:
        frame = bytearray(question.frame())
        for _ in range(chance.randint(0, 3)):
            frame[chance.randrange(len(frame))] ^= 1 << chance.randrange(8)
        line.say(chance.randbytes(chance.randint(0, 6)) + bytes(frame) + chance.randbytes(chance.randint(0, 6)))

    starts = [100, 200, 300, 400]
    async with ScriptedLine(noisy) as line:
        driver = line_driver(line.path, holding_points(starts), clock, timeout="70ms")
        for _ in range(4):
            await driver.connect()
            try:
                assert_true_or_bad(await driver.poll(), starts)
            except DriverError as error:
                assert str(error)
        await driver.close()


async def test_a_line_that_is_never_quiet_fails_what_waits(clock: ManualClock) -> None:
    async with ScriptedLine() as line:
        driver = line_driver(line.path, holding_points([1]), clock, baud=1200)
        await driver.connect()

        async def babble() -> None:
            while True:
                line.say(b"\x55")
                await asyncio.sleep(0.01)

        noise = asyncio.create_task(babble())
        await asyncio.sleep(0.03)
        async with asyncio.timeout(10.0 * BABBLE_S):
            with pytest.raises(ProtocolError, match=r"never quiet.*second master"):
                await driver.poll()
        noise.cancel()
        await asyncio.sleep(0.05)
        assert (await driver.poll()).value.tolist() == [1.0]
        assert not line.damaged, "nothing was sent into the noise"
        await driver.close()


async def test_frames_are_kept_apart_by_the_quiet_interval(clock: ManualClock) -> None:
    said: list[float] = []

    def note(question: Question) -> None:
        question.answer()
        said.append(asyncio.get_running_loop().time())

    async with ScriptedLine(note) as line:
        driver = line_driver(line.path, holding_points(range(0, 500, 50)), clock, baud=1200, parity="N")
        await driver.connect()
        await driver.poll()
        pauses = [question.at - at for question, at in zip(line.questions[1:], said, strict=False)]
        assert min(pauses) >= 3.5 * 10 / 1200
        await driver.close()


async def test_the_adapter_is_pulled_out_and_plugged_in_again(clock: ManualClock, tmp_path: Path) -> None:
    """Under /dev/serial/by-id its name stays, and leads to another port."""
    port = tmp_path / "by-id"
    async with ScriptedLine() as line:
        port.symlink_to(line.path)
        driver = line_driver(str(port), holding_points([1]), clock)
        await driver.connect()
        await driver.poll()
        line.unplug()
        with pytest.raises(NotConnectedError, match=r"line lost.*check the adapter|not connected"):
            await driver.poll()
        port.unlink()
        with pytest.raises(NotConnectedError, match="check that the adapter is plugged in"):
            await driver.connect()
    async with ScriptedLine() as line:
        port.symlink_to(line.path)
        await driver.connect()
        assert (await driver.poll()).value.tolist() == [1.0]
        assert driver.health.reconnects == 1
        await driver.close()


async def test_a_port_that_cannot_be_used_says_why(clock: ManualClock, tmp_path: Path) -> None:
    plain = tmp_path / "file"
    plain.write_text("")
    for path, message in ((tmp_path / "none", "cannot open"), (plain, "check that it is a serial port")):
        driver = line_driver(str(path), holding_points([1]), clock)
        with pytest.raises(NotConnectedError, match=message):
            await driver.connect()
        assert driver.health.state is DeviceState.BACKOFF
    async with ScriptedLine() as line:
        first = line_driver(line.path, holding_points([1]), clock)
        await first.connect()

        def another_process() -> None:
            async def connect() -> None:
                driver = line_driver(line.path, holding_points([1]), clock, unit_id=2)
                with pytest.raises(NotConnectedError, match=r"stop the other program|cannot open"):
                    await driver.connect()

            asyncio.run(connect())

        await asyncio.to_thread(another_process)
        await first.close()


async def test_one_line_has_one_name_and_is_set_in_one_way(clock: ManualClock, tmp_path: Path) -> None:
    async with ScriptedLine() as line:
        alias = tmp_path / "by-id"
        alias.symlink_to(line.path)
        first = line_driver(line.path, holding_points([1]), clock)
        same = line_driver(line.path, holding_points([2]), clock, unit_id=2)
        renamed = line_driver(str(alias), holding_points([1]), clock, unit_id=3)
        faster = line_driver(line.path, holding_points([1]), clock, unit_id=3, baud=9600)
        await first.connect()
        await same.connect()
        assert (await same.poll()).value.tolist() == [2.0]
        with pytest.raises(NotConnectedError, match=r"the same name of the port|cannot open"):
            await renamed.connect()
        with pytest.raises(AddressError, match=r"used in two ways.*9600"):
            await faster.connect()
        for driver in (first, same, renamed, faster):
            await driver.close()


async def test_a_cancelled_poll_leaves_no_answer_to_be_mistaken(clock: ManualClock) -> None:
    starts = [100, 200, 300]
    async with ScriptedLine(lambda question: line.later(0.005, question.frame())) as line:
        driver = line_driver(line.path, holding_points(starts), clock)
        await driver.connect()
        for _ in range(10):
            task = asyncio.create_task(driver.poll())
            await asyncio.sleep(0.003)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await driver.poll()).value.tolist() == starts
        await driver.close()
