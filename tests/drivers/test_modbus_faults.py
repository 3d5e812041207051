"""Broken peers on real sockets: whatever they do, a poll ends in true values or an error, never in a wrong value."""

from __future__ import annotations

import asyncio
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import ManualClock
from gates import open_journal, wide_gate
from modbus_peers import Request, ScriptedServer, driver_for, healthy, holding_points
from structlog.testing import capture_logs

from drivers.errors import DeadlineError, DeviceRefusedError, DriverError, NotConnectedError, ProtocolError
from drivers.interface import DeviceState, PollResult
from drivers.modbus.endpoint import Endpoint, shared_endpoint
from drivers.modbus.link import ABANDONED_KEPT
from drivers.modbus.pdu import read_reply_length, read_request
from drivers.modbus.routes import TcpRoute
from drivers.modbus.transaction import GIVE_UP_AFTER, Transaction
from safety.values import Quality, Reason

pytestmark = pytest.mark.fault


def assert_true_or_bad(result: PollResult, starts: list[int]) -> None:
    """The device's registers hold their own address: a good value is exactly that, any other is NaN."""
    for value, quality, start in zip(result.value, result.quality, starts, strict=True):
        assert value == start if quality == Quality.GOOD else np.isnan(value)


async def ask(endpoint: Endpoint, start: int, count: int = 1, timeout_s: float = 0.1, unit: int = 1) -> Transaction:
    transaction = Transaction(unit, read_request("holding", start, count), read_reply_length("holding", count))
    await endpoint.exchange([transaction], timeout_s)
    return transaction


REPLY_BYTES = 9 + 2 * 3


@pytest.mark.parametrize("cut", range(REPLY_BYTES))
@pytest.mark.parametrize("then", ["close", "reset", "silence"])
async def test_a_reply_cut_at_every_byte(clock: ManualClock, cut: int, then: str) -> None:
    async def cutting(request: Request) -> None:
        request.writer.write(request.frame()[:cut])
        if then == "close":
            request.writer.close()
        elif then == "reset":
            request.reset()

    starts = [1, 2, 3]
    async with ScriptedServer(cutting) as server:
        driver = driver_for(server.port, holding_points(starts), clock, timeout="30ms")
        await driver.connect()
        with pytest.raises((NotConnectedError, DeadlineError)):
            await driver.poll()
        assert driver.health.state is DeviceState.BACKOFF
        server.handler = healthy
        await driver.connect()
        result = await driver.poll()
        assert result.value.tolist() == starts
        await driver.close()


async def test_a_dribbling_reply_misses_the_deadline_of_the_whole_transaction(clock: ManualClock) -> None:
    """One byte every 50 ms resets a timeout between bytes for ever; the deadline is for the whole."""

    async def dribble(request: Request) -> None:
        for byte in request.frame():
            request.writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    async with ScriptedServer(dribble) as server:
        driver = driver_for(server.port, holding_points([1, 2, 3]), clock, timeout="120ms")
        await driver.connect()
        with pytest.raises(DeadlineError, match=r"within 0\.12 s"):
            await driver.poll()
        await driver.close()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda r: r.frame(transaction=r.transaction ^ 0x0100), "nobody asked"),
        (lambda r: r.frame(transaction=r.transaction + 1), "nobody asked"),
        (lambda r: r.frame(unit=r.unit + 1), "answer from unit 2"),
        (lambda r: r.frame(b"\x04" + r.good_pdu()[1:]), "function 4"),
        (lambda r: r.frame(b"\x84\x02"), "function 132"),
        (lambda r: r.frame(r.good_pdu() + b"\x00\x00"), "answer of 10 bytes"),
        (lambda r: r.frame(r.good_pdu()[:-2]), "answer of 6 bytes"),
        (lambda r: r.frame(b"\x03\x08" + r.good_pdu()[2:]), "says 8 bytes"),
        (lambda r: r.frame(b"\x83"), "answer of 1 bytes"),
        (lambda r: r.frame(b"\x83\x02\x00"), "answer of 3 bytes"),
        (lambda r: b"\x00\x01\x00\x00\xff\xff" + bytes(60), "length 65535"),
        (lambda r: b"\x00\x01\x00\x07" + r.frame()[4:], "protocol 7"),
        (lambda r: b"HTTP/1.1 400 Bad Request\r\n\r\n", "not a Modbus TCP header"),
    ],
)
async def test_an_answer_to_another_question_is_a_protocol_error(clock: ManualClock, wrong, message: str) -> None:
    async def liar(request: Request) -> None:
        request.writer.write(wrong(request))

    async with ScriptedServer(liar) as server:
        driver = driver_for(server.port, holding_points([1, 2, 3]), clock)
        await driver.connect()
        with pytest.raises(ProtocolError, match=message):
            await driver.poll()
        server.handler = healthy
        await driver.connect()
        assert (await driver.poll()).value.tolist() == [1.0, 2.0, 3.0]
        await driver.close()


async def test_a_huge_length_claim_is_dropped_at_the_header(clock: ManualClock) -> None:
    """The peer sends six bytes that promise 64 KiB and keeps the connection open: nothing waits for them."""

    async def promise(request: Request) -> None:
        request.writer.write(struct.pack(">HHH", request.transaction, 0, 0xFFFF))

    async with ScriptedServer(promise) as server:
        driver = driver_for(server.port, holding_points([1]), clock, timeout="60s")
        await driver.connect()
        async with asyncio.timeout(5.0):
            with pytest.raises(ProtocolError):
                await driver.poll()
            while server.open:
                await asyncio.sleep(0.001)
        await driver.close()


@pytest.mark.parametrize("window", [1, 4])
async def test_a_late_reply_never_answers_another_request(clock: ManualClock, window: int) -> None:
    """Seen elsewhere: after an outer timeout every value was the one before. Here a late answer is thrown away."""
    held: list[bytes] = []
    late = True

    async def lagging(request: Request) -> None:
        if late and request.number % 3 == 0:
            held.append(request.frame())
            return
        for frame in held:
            request.writer.write(frame)
        held.clear()
        request.answer()

    starts = list(range(0, 1500, 100))
    async with ScriptedServer(lagging) as server:
        driver = driver_for(server.port, holding_points(starts), clock, timeout="25ms", window=window)
        for _ in range(6):
            await driver.connect()
            try:
                assert_true_or_bad(await driver.poll(), starts)
            except DriverError:
                held.clear()
        late = False
        await driver.connect()
        assert_true_or_bad(await driver.poll(), starts)
        await driver.close()


async def test_a_late_reply_is_recognised_by_its_transaction_id() -> None:
    requests: list[Request] = []

    async def first_late(request: Request) -> None:
        requests.append(request)
        if len(requests) == 2:
            requests[0].answer()
        if len(requests) >= 2:
            request.answer()

    async with ScriptedServer(first_late) as server:
        endpoint = shared_endpoint(TcpRoute("127.0.0.1", server.port))
        await endpoint.open(server, 1, 1.0)
        first = await ask(endpoint, 100, timeout_s=0.02)
        assert isinstance(first.error, DeadlineError)
        second = await ask(endpoint, 200, timeout_s=2.0)
        assert second.reply == b"\x03\x02\x00\xc8"
        assert endpoint.late_replies == 1
        assert endpoint.connected
        await endpoint.leave(server)


async def test_answers_out_of_order_find_their_questions(clock: ManualClock) -> None:
    """With a window the device may answer in any order; ids, not places, say what belongs together."""
    waiting: list[Request] = []

    async def backwards(request: Request) -> None:
        waiting.append(request)
        if len(waiting) == 4:
            for one in reversed(waiting):
                one.answer()
            waiting.clear()

    starts = list(range(0, 1600, 100))
    async with ScriptedServer(backwards) as server:
        driver = driver_for(server.port, holding_points(starts), clock, window=4)
        await driver.connect()
        assert (await driver.poll()).value.tolist() == starts
        await driver.close()


async def test_a_dead_device_costs_two_deadlines_not_one_per_block(clock: ManualClock) -> None:
    async def silent(request: Request) -> None:
        del request

    async with ScriptedServer(silent) as server:
        driver = driver_for(server.port, holding_points(range(0, 5000, 50)), clock, timeout="20ms")
        await driver.connect()
        with pytest.raises(DeadlineError, match="check power"):
            await driver.poll()
        assert len(server.requests) == GIVE_UP_AFTER
        with pytest.raises(NotConnectedError):
            await driver.poll()
        await driver.close()


async def test_one_dead_unit_behind_a_gateway_does_not_stop_the_others(clock: ManualClock) -> None:
    async def half_dead(request: Request) -> None:
        if request.unit != 9:
            request.answer()

    async with ScriptedServer(half_dead) as server:
        points = holding_points(range(0, 2000, 50))
        dead = driver_for(server.port, points, clock, unit_id=9, timeout="30ms")
        alive = [driver_for(server.port, points, clock, unit_id=unit, timeout="30ms") for unit in (1, 2)]
        for driver in (dead, *alive):
            await driver.connect()
        for _ in range(3):
            outcomes = await asyncio.gather(*(driver.poll() for driver in (dead, *alive)), return_exceptions=True)
            assert isinstance(outcomes[0], DeadlineError)
            for result in outcomes[1:]:
                assert isinstance(result, PollResult)
                assert (result.quality == Quality.GOOD).all()
        assert server.connections == 1
        assert [request.unit for request in server.requests].count(9) == 3 * GIVE_UP_AFTER
        for driver in (dead, *alive):
            await driver.close()


async def test_a_gateways_own_exceptions_mean_unreachable(clock: ManualClock) -> None:
    async def gateway(request: Request) -> None:
        request.refuse(11) if request.pdu[1] else request.answer()

    async with ScriptedServer(gateway) as server:
        driver = driver_for(server.port, holding_points([0, 256]), clock)
        await driver.connect()
        for _ in range(4):
            result = await driver.poll()
        assert result.reason.tolist() == [Reason.OK, Reason.DEVICE_UNREACHABLE]
        assert driver.health.quarantined == ()
        await driver.close()


@pytest.mark.parametrize("code", range(1, 12))
async def test_every_exception_ends_in_a_refusal_with_its_name(clock: ManualClock, code: int) -> None:
    async def refuse(request: Request) -> None:
        request.refuse(code)

    async with ScriptedServer(refuse) as server:
        driver = driver_for(server.port, holding_points([1]), clock)
        await driver.connect()
        with pytest.raises(DeviceRefusedError, match=rf"127\.0\.0\.1:{server.port} unit 1: exception {code}, "):
            await driver.poll()
        assert driver.health.quarantined == ()
        await driver.close()


async def test_a_reset_in_the_middle_of_a_poll(clock: ManualClock) -> None:
    async def third(request: Request) -> None:
        request.reset() if request.number == 2 else request.answer()

    starts = list(range(0, 500, 100))
    async with ScriptedServer(third) as server:
        driver = driver_for(server.port, holding_points(starts), clock)
        await driver.connect()
        result = await driver.poll()
        assert result.quality.tolist() == [Quality.GOOD] * 2 + [Quality.BAD] * 3
        assert set(result.reason[2:]) == {Reason.DEVICE_UNREACHABLE}
        assert_true_or_bad(result, starts)
        assert driver.health.state is DeviceState.DEGRADED
        await driver.connect()
        assert (await driver.poll()).value.tolist() == starts
        assert driver.health.reconnects == 1
        await driver.close()


async def test_the_server_restarts_between_polls(clock: ManualClock) -> None:
    async with ScriptedServer() as server:
        driver = driver_for(server.port, holding_points([1, 2]), clock)
        await driver.connect()
        for round_ in range(3):
            assert (await driver.poll()).value.tolist() == [1.0, 2.0]
            await server.stop()
            with pytest.raises(NotConnectedError):
                await driver.poll()
            with pytest.raises(NotConnectedError, match="cannot connect"):
                await driver.connect()
            await server.start()
            await driver.connect()
            assert driver.health.reconnects == round_ + 1
        await driver.close()


async def test_a_port_that_accepts_and_hangs_up(clock: ManualClock) -> None:
    """All connection slots of the device are taken: it closes at once."""

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    driver = driver_for(server.sockets[0].getsockname()[1], holding_points([1]), clock)
    await driver.connect()
    with pytest.raises(NotConnectedError):
        await driver.poll()
    await driver.close()
    server.close()
    await server.wait_closed()


async def test_a_host_that_swallows_the_handshake_is_given_up() -> None:
    """A listener whose queue is full drops the handshake: only the deadline of connecting ends it."""
    listener = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    endpoint = Endpoint(TcpRoute("127.0.0.1", listener.sockets[0].getsockname()[1]))

    async def never(*_args: object, **_kwargs: object) -> None:
        await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    original = loop.create_connection
    loop.create_connection = never  # type: ignore[method-assign,assignment]
    try:
        with pytest.raises(NotConnectedError, match=r"no connection within 0\.02 s; check"):
            await endpoint.open(listener, 1, 0.02)
    finally:
        loop.create_connection = original  # type: ignore[method-assign]
    listener.close()
    await listener.wait_closed()


async def test_an_unknown_host_name_is_said_so(clock: ManualClock) -> None:
    driver = driver_for(502, holding_points([1]), clock, host="no-such-host.invalid")
    with pytest.raises(NotConnectedError, match="no-such-host"):
        await driver.connect()
    await driver.close()


async def test_a_cancelled_request_leaves_nothing_behind() -> None:
    held: list[Request] = []

    async def hold(request: Request) -> None:
        held.append(request)

    async with ScriptedServer(hold) as server:
        endpoint = shared_endpoint(TcpRoute("127.0.0.1", server.port))
        await endpoint.open(server, 1, 1.0)
        task = asyncio.create_task(ask(endpoint, 5, timeout_s=5.0))
        while not held:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held[0].answer()
        server.handler = healthy
        assert (await ask(endpoint, 6, timeout_s=5.0)).reply == b"\x03\x02\x00\x06"
        assert endpoint.late_replies == 1
        await endpoint.leave(server)


async def test_forgotten_ids_stay_bounded_and_an_ancient_answer_is_not_believed() -> None:
    held: list[Request] = []

    async def odd_ones(request: Request) -> None:
        if request.number % 2:
            request.answer()
        else:
            held.append(request)

    async with ScriptedServer(odd_ones) as server:
        endpoint = shared_endpoint(TcpRoute("127.0.0.1", server.port))
        await endpoint.open(server, 1, 1.0)
        for k in range(ABANDONED_KEPT + 1):
            assert isinstance((await ask(endpoint, k, timeout_s=0.002)).error, DeadlineError)
            assert (await ask(endpoint, k, timeout_s=5.0)).reply is not None
        held[1].answer()
        assert (await ask(endpoint, 0, timeout_s=0.05)).error is not None
        assert endpoint.late_replies == 1
        held[0].answer()
        while endpoint.connected:
            await asyncio.sleep(0.001)
        await endpoint.leave(server)


async def test_the_shorter_deadline_of_a_second_device_is_kept(clock: ManualClock) -> None:
    """Two devices share a socket; the patient one's request is out first and must not stretch the other's deadline."""
    held: list[Request] = []

    async def hold(request: Request) -> None:
        held.append(request)

    async with ScriptedServer(hold) as server:
        endpoint = shared_endpoint(TcpRoute("127.0.0.1", server.port))
        await endpoint.open(server, 2, 1.0)
        patient = asyncio.create_task(ask(endpoint, 1, timeout_s=60.0))
        while not held:
            await asyncio.sleep(0)
        async with asyncio.timeout(5.0):
            hasty = await ask(endpoint, 2, timeout_s=0.02)
        assert isinstance(hasty.error, DeadlineError)
        held[0].answer()
        assert (await patient).reply == b"\x03\x02\x00\x01"
        await endpoint.leave(server)
    del clock


async def test_a_write_without_an_answer_is_not_sent_again(clock: ManualClock, tmp_path: Path) -> None:
    """The device may hold the value or not: that is for the gate to say, and for nobody to repeat blindly."""

    async def silent(request: Request) -> None:
        del request

    async with ScriptedServer(silent) as server:
        driver = driver_for(server.port, holding_points([1]), clock, timeout="30ms")
        await driver.connect()
        with open_journal(tmp_path) as journal, pytest.raises(DeadlineError):
            await driver.write(wide_gate(journal, ["ahu/r1"]).admit("ahu/r1", 5.0))
        assert len(server.requests) == 1
        await driver.close()


async def test_failures_are_counted_and_not_logged_at_every_poll(clock: ManualClock) -> None:
    async def refuse(request: Request) -> None:
        request.refuse(4)

    async with ScriptedServer(refuse) as server:
        driver = driver_for(server.port, holding_points([1]), clock)
        await driver.connect()
        with capture_logs() as logs:
            for _ in range(5):
                with pytest.raises(DeviceRefusedError):
                    await driver.poll()
        assert not [entry for entry in logs if entry["log_level"] in ("warning", "error")]
        assert (driver.health.polls, driver.health.poll_errors) == (5, 5)
        assert "server device failure" in driver.health.last_error
        await driver.close()


@pytest.mark.parametrize("seed", range(40))
async def test_noise_ends_in_an_error_and_never_in_a_value(clock: ManualClock, seed: int) -> None:
    noise = random.Random(seed)

    async def babble(request: Request) -> None:
        frame = bytearray(request.frame())
        for _ in range(noise.randint(1, 4)):
            # Damage the header or the function, never only the data: that no protocol without a checksum can see.
            frame[noise.choice((0, 1, 2, 3, 4, 5, 6, 7, 8))] ^= noise.randint(1, 255)
        request.writer.write(bytes(frame) + noise.randbytes(noise.randint(0, 40)))

    starts = [1, 2, 3]
    async with ScriptedServer(babble) as server:
        driver = driver_for(server.port, holding_points(starts), clock, timeout="20ms")
        for _ in range(3):
            await driver.connect()
            try:
                assert_true_or_bad(await driver.poll(), starts)
            except DriverError as error:
                assert str(error)
        server.handler = healthy
        for _ in range(2):
            await driver.connect()
            try:
                result = await driver.poll()
            except DriverError:
                continue
        assert result.value.tolist() == starts
        await driver.close()


async def test_a_request_on_a_closed_link_ends_at_once() -> None:
    async with ScriptedServer() as server:
        endpoint = shared_endpoint(TcpRoute("127.0.0.1", server.port))
        with pytest.raises(NotConnectedError, match="connect first"):
            await ask(endpoint, 1)
        await endpoint.open(server, 1, 1.0)
        await endpoint.exchange([], 1.0)
        assert not server.requests
        await endpoint.leave(server)
        with pytest.raises(NotConnectedError, match="connect first"):
            await ask(endpoint, 1)
