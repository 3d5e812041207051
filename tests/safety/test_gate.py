"""The gate: default deny, the order of a write, one outcome for every ending, and giving back."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
from enforce_rig import fan, heating
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import DeadlineError, DeviceRefusedError, NotConnectedError
from safety.errors import DeniedError, LimitError, NoEnvelopeError, PriorityError, RelinquishError, StoreError
from safety.gate import WATCH_POLLS, Gate, Route
from safety.journal import Held, Journal
from safety.values import Command, WriteOutcome

HEAT = "z/heating"
FAN = "z/fan"
FREE = "z/free"
ENVELOPES = {HEAT: heating(fail_safe=5.0), FAN: fan(), FREE: heating(name=FREE, fail_safe=None)}
ROUTES = {
    HEAT: Route("ahu", "modbus", "{}", '{"holding": 4}', resolution=0.1),
    FAN: Route("ahu", "bacnet", "{}", '{"object": "bo,1"}', priority=12, read_back=False),
    FREE: Route("ahu", "bacnet", "{}", '{"object": "ao,1"}', priority=12),
}


class Port:
    """A device that remembers what happened in which order, together with the journal."""

    def __init__(self, book: Journal, relinquishes: bool = False) -> None:
        self.book = book
        self.relinquishes = relinquishes
        self.values: dict[str, float] = {HEAT: 33.0, FAN: 0.0, FREE: 44.0}
        self.log: list[str] = []
        self.write_error: Exception | None = None
        self.read_error: Exception | None = None
        self.takes: float | None = None
        self.delay: asyncio.Event | None = None

    async def write(self, command: Command) -> None:
        if self.delay is not None:
            await self.delay.wait()
        self.log.append(f"write {command.value} held={self.book.is_held(command.point)}")
        if self.write_error is not None:
            raise self.write_error
        if command.value is not None:
            self.values[command.point] = command.value if self.takes is None else self.takes

    async def read_back(self, point: str) -> float:
        self.log.append(f"read held={self.book.is_held(point)}")
        if self.read_error is not None:
            raise self.read_error
        return self.values[point]

    def can_relinquish(self, point: str) -> bool:
        return self.relinquishes and point != HEAT


@pytest.fixture
def book(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.sqlite")


@pytest.fixture
def gate(book: Journal) -> Gate:
    return Gate(ENVELOPES, ROUTES, book)


@pytest.fixture
def port(book: Journal) -> Port:
    return Port(book)


def test_default_deny(gate: Gate, book: Journal) -> None:
    with pytest.raises(NoEnvelopeError, match="declare it under outputs"):
        gate.admit("z/unknown", 0.0)
    with pytest.raises(NoEnvelopeError):
        Gate(ENVELOPES, {}, book).admit(HEAT, 0.0)
    with pytest.raises(NoEnvelopeError):
        Gate({}, ROUTES, book).admit(HEAT, 0.0)


def test_nothing_can_be_widened_afterwards(book: Journal) -> None:
    envelopes, routes = dict(ENVELOPES), dict(ROUTES)
    gate = Gate(envelopes, routes, book)
    envelopes["z/other"] = heating()
    routes["z/other"] = ROUTES[HEAT]
    with pytest.raises(NoEnvelopeError):
        gate.admit("z/other", 0.0)


@given(st.floats())
def test_only_what_the_envelope_permits_is_admitted(value: float) -> None:
    gate = Gate(ENVELOPES, ROUTES, Journal.__new__(Journal))
    for point in (HEAT, FAN):
        if ENVELOPES[point].permits(value):
            assert gate.admit(point, value).value == value
        else:
            with pytest.raises(LimitError):
                gate.admit(point, value)


def test_messages_name_limits_and_levels(gate: Gate) -> None:
    with pytest.raises(LimitError, match=r"limits \[0, 100\], allowed any"):
        gate.admit(HEAT, 500.0)
    with pytest.raises(LimitError, match="allowed 0, 1"):
        gate.admit(FAN, 0.5)


def test_relinquish_only_where_declared(gate: Gate) -> None:
    assert gate.admit(FREE, None).value is None
    with pytest.raises(RelinquishError, match="fail_safe is 5"):
        gate.admit(HEAT, None)


@pytest.mark.parametrize("priority", [-1, 0, 1, 2, 5, 6, 8, 17])
def test_priorities_of_people_and_life_safety_are_refused(gate: Gate, book: Journal, priority: int) -> None:
    with pytest.raises(PriorityError, match="life safety"):
        gate.admit(FAN, 1.0, priority)
    with pytest.raises(PriorityError):
        Gate(ENVELOPES, {FAN: Route("a", "b", "{}", "{}", priority=priority)}, book)
    with pytest.raises(PriorityError):
        gate.release_command(Held(FAN, "a", "b", "{}", "{}", None, True, priority))


def test_priority_and_sequence(gate: Gate) -> None:
    first, second, third = gate.admit(FAN, 1.0), gate.admit(FAN, 1.0, 9), gate.admit(HEAT, 1)
    assert (first.priority, second.priority, third.priority) == (12, 9, None)
    assert first.sequence < second.sequence < third.sequence
    assert type(third.value) is float


async def test_the_order_of_the_first_and_the_second_write(gate: Gate, book: Journal, port: Port) -> None:
    result = await gate.write(port, HEAT, 50.0)
    assert port.log == ["read held=False", "write 50.0 held=True", "read held=True"]
    assert (result.outcome, result.read_back, result.requested) == (WriteOutcome.HELD, 50.0, 50.0)
    assert result.latency_s >= 0.0
    assert book.get(HEAT) == Held(HEAT, "ahu", "modbus", "{}", '{"holding": 4}', 33.0, False, None)
    port.log.clear()
    await gate.write(port, HEAT, 60.0)
    assert port.log == ["write 60.0 held=True", "read held=True"]
    assert book.holding()[0].before == 33.0


@pytest.mark.parametrize("error", [DeadlineError("late"), OSError("reset"), None])
async def test_what_cannot_be_read_before_is_restored_to_fail_safe(
    gate: Gate, book: Journal, port: Port, error: Exception | None
) -> None:
    port.read_error = error
    port.values[HEAT] = math.nan
    await gate.write(port, HEAT, 50.0)
    assert book.holding()[0].before == 5.0


async def test_a_point_with_no_way_back_is_never_written(gate: Gate, port: Port) -> None:
    port.read_error = DeadlineError("late")
    result = await gate.write(port, FREE, 50.0)
    assert result.outcome is WriteOutcome.DENIED
    assert "must not be written" in result.detail
    assert port.log == ["read held=False"]


async def test_no_write_without_the_journal(gate: Gate, book: Journal, port: Port) -> None:
    book.close()
    result = await gate.write(port, HEAT, 50.0)
    assert result.outcome is WriteOutcome.DENIED
    assert "check the disk" in result.detail
    assert port.log == ["read held=False"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 100.1, None])
async def test_a_denied_write_sends_nothing(gate: Gate, port: Port, value: float | None) -> None:
    result = await gate.write(port, HEAT, value)
    assert result.outcome is WriteOutcome.DENIED
    assert port.log == []


async def test_unknown_points_are_denied_and_leave_nothing_behind(gate: Gate, port: Port) -> None:
    for n in range(5):
        assert (await gate.write(port, f"z/{n}", 1.0)).outcome is WriteOutcome.DENIED
    assert gate._locks == {}
    with pytest.raises(NoEnvelopeError, match="may not be held"):
        await gate.hold({"z/unknown": port})


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (DeviceRefusedError("code 2"), WriteOutcome.REJECTED),
        (DeadlineError("late"), WriteOutcome.UNREACHABLE),
        (NotConnectedError("away"), WriteOutcome.UNREACHABLE),
        (TimeoutError("late"), WriteOutcome.UNREACHABLE),
        (ConnectionResetError("reset"), WriteOutcome.UNREACHABLE),
    ],
)
async def test_every_failure_is_an_outcome_and_stays_in_the_journal(
    gate: Gate, book: Journal, port: Port, error: Exception, outcome: WriteOutcome
) -> None:
    port.write_error = error
    result = await gate.write(port, HEAT, 50.0)
    assert result.outcome is outcome
    assert type(error).__name__ in result.detail
    assert book.is_held(HEAT), "the device may or may not hold the value"


async def test_a_bug_in_a_driver_is_not_an_outcome(gate: Gate, port: Port) -> None:
    port.write_error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await gate.write(port, HEAT, 50.0)


async def test_read_back_tolerance_is_the_device_resolution(gate: Gate, port: Port) -> None:
    port.takes = 49.95
    assert (await gate.write(port, HEAT, 50.0)).outcome is WriteOutcome.HELD
    port.takes = 49.9  # the next step of the register: met once as "held", when the tolerance was a whole step
    result = await gate.write(port, HEAT, 50.0)
    assert result.outcome is WriteOutcome.OVERRIDDEN
    assert "reads 49.9" in result.detail
    port.takes = math.nan
    assert (await gate.write(port, HEAT, 50.0)).outcome is WriteOutcome.OVERRIDDEN


async def test_acknowledged_where_it_cannot_be_read_back(gate: Gate, port: Port) -> None:
    assert (await gate.write(port, FAN, 1.0)).outcome is WriteOutcome.ACKNOWLEDGED
    await gate.write(port, HEAT, 50.0)
    port.read_error = DeadlineError("late")
    result = await gate.write(port, HEAT, 51.0)
    assert result.outcome is WriteOutcome.ACKNOWLEDGED
    assert "reading back failed: late" in result.detail


async def test_first_holds_of_a_scan_are_one_batch(
    gate: Gate, book: Journal, port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    record = book.hold_many
    monkeypatch.setattr(book, "hold_many", lambda entries: (batches.append(len(entries)), record(entries)))
    await gate.hold({HEAT: port, FAN: port, FREE: port})
    await gate.hold({HEAT: port})
    await gate.write(port, HEAT, 50.0)
    assert batches == [3]


async def test_writes_to_one_point_keep_their_order(gate: Gate, port: Port) -> None:
    await gate.write(port, HEAT, 1.0)
    port.log.clear()
    port.delay = asyncio.Event()
    slow = asyncio.create_task(gate.write(port, HEAT, 80.0))
    await asyncio.sleep(0)
    trip = asyncio.create_task(gate.write(port, HEAT, 0.0))
    await asyncio.sleep(0)
    port.delay.set()
    await asyncio.gather(slow, trip)
    assert [line.split()[1] for line in port.log if line.startswith("write")] == ["80.0", "0.0"]
    assert port.values[HEAT] == 0.0


async def test_relinquishing(gate: Gate, book: Journal) -> None:
    port = Port(book, relinquishes=True)
    await gate.write(port, FREE, 50.0)
    assert book.get(FREE) == Held(FREE, "ahu", "bacnet", "{}", '{"object": "ao,1"}', 44.0, True, 12)
    result = await gate.write(port, FREE, None)
    assert (result.outcome, result.requested) == (WriteOutcome.ACKNOWLEDGED, None)
    assert port.log[-1] == "write None held=True"
    assert not book.is_held(FREE)
    assert gate.observe(FREE, 44.0) is None


async def test_the_release_relinquishes_where_it_can(gate: Gate, book: Journal) -> None:
    port = Port(book, relinquishes=True)
    await gate.write(port, FAN, 1.0)
    (held,) = book.holding()
    assert (await Gate({}, {}, book).release(port, held)).outcome is WriteOutcome.ACKNOWLEDGED
    assert port.log[-1] == "write None held=True"
    assert book.holding() == []


async def test_a_protocol_that_cannot_relinquish_gets_the_old_value_back(gate: Gate, book: Journal, port: Port) -> None:
    assert (await gate.write(port, FREE, None)).detail == "nothing held: there is nothing to give back"
    await gate.write(port, FREE, 50.0)
    assert (await gate.write(port, FREE, None)).outcome is WriteOutcome.ACKNOWLEDGED
    assert port.values[FREE] == 44.0
    assert not book.is_held(FREE)


async def test_the_release_restores_what_was_there_even_outside_our_envelope(
    gate: Gate, book: Journal, port: Port
) -> None:
    port.values[HEAT] = 140.0
    await gate.write(port, HEAT, 50.0)
    port.write_error = NotConnectedError("away")
    (held,) = book.holding()
    away = Gate({}, {}, book)
    assert (await away.release(port, held)).outcome is WriteOutcome.UNREACHABLE
    assert book.is_held(HEAT), "not given back: it stays in the journal"
    port.write_error = None
    assert (await away.release(port, held)).outcome is WriteOutcome.ACKNOWLEDGED
    assert port.values[HEAT] == 140.0
    assert book.holding() == []


async def test_an_entry_without_a_way_back_is_denied(gate: Gate, port: Port) -> None:
    for before in (None, math.nan):
        held = Held(HEAT, "a", "b", "{}", "{}", before, False, None)
        with pytest.raises(RelinquishError, match="by hand"):
            gate.release_command(held)
        assert (await gate.release(port, held)).outcome is WriteOutcome.DENIED
    assert port.log == []


async def test_given_back_but_not_struck_is_said(gate: Gate, book: Journal, port: Port) -> None:
    await gate.write(port, HEAT, 50.0)
    (held,) = book.holding()
    book.close()
    result = await gate.release(port, held)
    assert result.outcome is WriteOutcome.ACKNOWLEDGED
    assert "still in the journal" in result.detail


async def test_the_hold_watch(gate: Gate, port: Port) -> None:
    assert gate.observe(HEAT, 1.0) is None
    await gate.write(port, HEAT, 50.0)
    assert WATCH_POLLS == 3
    polls = [33.0, 50.0, 33.0, 33.0, math.nan, 33.0, 33.0, 33.0, 50.05, 50.0]
    assert [gate.observe(HEAT, value) for value in polls] == [
        None, None, None, None, None, WriteOutcome.OVERRIDDEN, None, None, WriteOutcome.HELD, None,
    ]  # fmt: skip


async def test_writing_again_does_not_hide_an_override(gate: Gate, port: Port) -> None:
    await gate.write(port, FAN, 1.0)
    assert [gate.observe(FAN, 0.0) for _ in range(3)][-1] is WriteOutcome.OVERRIDDEN
    await gate.write(port, FAN, 1.0)
    assert gate.observe(FAN, 1.0) is WriteOutcome.HELD
    await gate.write(port, HEAT, 50.0)
    for _ in range(3):
        gate.observe(HEAT, 0.0)
    await gate.write(port, HEAT, 50.0)
    assert gate.observe(HEAT, 50.0) is None, "the read-back has already said so"


def test_every_denial_is_one_error_tree() -> None:
    assert issubclass(NoEnvelopeError, DeniedError)
    assert not issubclass(StoreError, DeniedError)
