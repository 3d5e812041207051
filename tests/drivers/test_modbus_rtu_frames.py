"""RTU framing and the memory of owed answers: known frames, and properties over all frames, cuts and noise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer import FramerRTU
from rtu_peers import good_pdu

from drivers.modbus import pdu, rtu
from drivers.modbus.rtu import Expected, find_reply
from drivers.modbus.slaves import LATE_S, REST_CAP_S, REST_LEAST_S, REST_TIMES, Slave, Slaves

READS = [
    (table, count)
    for table, most in (("coil", 2000), ("discrete", 2000), ("holding", 125), ("input", 125))
    for count in (1, 2, most)
]


def asked(table: str, start: int, count: int) -> tuple[bytes, Expected]:
    request = pdu.read_request(table, start, count)  # type: ignore[arg-type]
    return request, Expected.answer_to(request, pdu.read_reply_length(table, count))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("frame", "source"),
    [
        ("0207" + "4112", "MODBUS over Serial Line V1.02, 6.2.2: CRC of 02 07"),
        ("01030000000a" + "c5cd", "any Modbus master: ten registers from 0"),
        ("1103006b0003" + "7687", "Modicon PI-MBUS-300's example, registers 40108-40110 of slave 17"),
    ],
)
def test_published_frames(frame: str, source: str) -> None:
    raw = bytes.fromhex(frame)
    assert rtu.frame(raw[0], raw[1:-2]) == raw, source
    assert rtu.crc16(raw) == 0


@given(st.binary(min_size=1, max_size=256))
def test_the_checksum_is_pymodbuss(data: bytes) -> None:
    assert rtu.crc16(data) == int.from_bytes(FramerRTU.compute_CRC(data).to_bytes(2, "big"), "little")


@given(unit=st.integers(1, 247), read=st.sampled_from(READS), start=st.integers(0, 60000))
def test_an_answer_is_found_when_its_last_byte_is_there_and_not_before(
    unit: int, read: tuple[str, int], start: int
) -> None:
    request, expected = asked(read[0], start, read[1])
    frame = rtu.frame(unit, good_pdu(request))
    for size in {*range(12), len(frame) // 2, len(frame) - 1} - {len(frame)}:
        if size < len(frame):
            assert find_reply(frame[:size], unit, expected, complete=False) is None
    assert find_reply(frame, unit, expected, complete=False) == frame[1:-2]


@given(unit=st.integers(1, 247), start=st.integers(0, 60000), code=st.integers(1, 11), read=st.sampled_from(READS))
def test_an_exception_is_found(unit: int, start: int, code: int, read: tuple[str, int]) -> None:
    request, expected = asked(read[0], start, read[1])
    frame = rtu.frame(unit, bytes((request[0] | 0x80, code)))
    assert find_reply(frame, unit, expected, complete=False) == bytes((request[0] | 0x80, code))


@given(
    unit=st.integers(1, 247),
    noise=st.binary(max_size=40),
    trail=st.binary(max_size=10),
    start=st.integers(0, 60000),
    count=st.integers(1, 20),
)
def test_an_answer_is_found_behind_noise_once_nothing_more_comes(
    unit: int, noise: bytes, trail: bytes, start: int, count: int
) -> None:
    request, expected = asked("holding", start, count)
    good = good_pdu(request)
    found = find_reply(noise + rtu.frame(unit, good) + trail, unit, expected, complete=True)
    # Noise that is itself a whole frame with the right checksum is possible, and then comes first.
    assert found == good or (found is not None and rtu.frame(unit, found) in noise + rtu.frame(unit, good))


@given(st.integers(1, 247), st.integers(0, 60000), st.integers(1, 125), st.data())
def test_no_one_or_two_flipped_bits_are_believed(unit: int, start: int, count: int, data: st.DataObject) -> None:
    """CRC-16 finds every one and two wrong bits within a frame."""
    request, expected = asked("input", start, count)
    frame = bytearray(rtu.frame(unit, good_pdu(request)))
    for bit in data.draw(st.sets(st.integers(0, 8 * len(frame) - 1), min_size=1, max_size=2)):
        frame[bit // 8] ^= 1 << bit % 8
    assert find_reply(frame, unit, expected, complete=True) is None


@given(unit=st.integers(1, 247), other=st.integers(1, 247), count=st.integers(1, 125), wrong=st.integers(1, 125))
def test_answers_to_other_questions_are_not_believed(unit: int, other: int, count: int, wrong: int) -> None:
    _request, expected = asked("holding", 0, count)
    for table, answered in (("input", count), ("holding", wrong), ("coil", count)):
        if (table, answered) != ("holding", count):
            strange = rtu.frame(unit, good_pdu(asked(table, 0, answered)[0]))
            assert find_reply(strange, unit, expected, complete=True) is None
    if other != unit:
        stranger = rtu.frame(other, good_pdu(asked("holding", 0, count)[0]))
        assert find_reply(stranger, unit, expected, complete=True) is None


@given(st.binary(max_size=300), st.integers(1, 247))
def test_bytes_that_are_no_frame_are_never_an_answer(data: bytes, unit: int) -> None:
    for count in (1, 7):
        _request, expected = asked("holding", 0, count)
        found = find_reply(data, unit, expected, complete=True)
        assert found is None or rtu.frame(unit, found) in data


@pytest.mark.parametrize(
    ("request_", "same", "other"),
    [
        (
            pdu.write_request("holding", 7, b"\x00\x05", multiple=False),
            b"\x06\x00\x07\x00\x05",
            b"\x06\x00\x07\x00\x06",
        ),
        (pdu.write_request("coil", 7, b"\x01", multiple=False), b"\x05\x00\x07\xff\x00", b"\x05\x00\x07\x00\x00"),
        (pdu.write_request("holding", 7, bytes(8), multiple=True), b"\x10\x00\x07\x00\x04", b"\x10\x00\x08\x00\x04"),
        (pdu.mask_request(7, 0x10, True), b"\x16\x00\x07\xff\xef\x00\x10", b"\x16\x00\x07\xff\xef\x00\x00"),
    ],
)
def test_only_the_echo_of_this_very_write_acknowledges_it(request_: bytes, same: bytes, other: bytes) -> None:
    expected = Expected.answer_to(request_, len(same))
    assert find_reply(rtu.frame(9, same), 9, expected, complete=False) == same
    assert find_reply(rtu.frame(9, other), 9, expected, complete=True) is None


def test_data_that_looks_like_an_answer_is_not_cut_out_of_one_that_is_still_coming() -> None:
    _request, expected = asked("holding", 0, 8)
    inner = rtu.frame(1, b"\x83\x02")  # five bytes, valid, inside the registers' data
    whole = rtu.frame(1, b"\x03\x10" + inner + bytes(11))
    for size in range(1, len(whole)):
        assert find_reply(whole[:size], 1, expected, complete=False) is None
    assert find_reply(whole, 1, expected, complete=False) == whole[1:-2]


A, B = asked("holding", 10, 1)[1], asked("holding", 20, 2)[1]
WRITE = Expected.answer_to(pdu.write_request("holding", 3, b"\0\1", multiple=False), 5)


def test_an_owed_answer_makes_equal_questions_mistakable_until_another_is_answered() -> None:
    slave = Slave()
    slave.owes(A, 100.0)
    assert slave.mistakable(A, 101.0)
    assert not slave.mistakable(B, 101.0)
    slave.answered(A, 101.0, refused=False)
    assert slave.mistakable(A, 101.0), "this may have been the late answer: the other one is owed now"
    slave.answered(B, 102.0, refused=False)
    assert not slave.mistakable(A, 102.0), "a slave answers in order: nothing older can come"


def test_an_exception_of_the_same_function_may_be_the_late_one() -> None:
    slave = Slave()
    slave.owes(A, 100.0)
    slave.answered(B, 101.0, refused=True)
    assert not slave.mistakable(A, 101.0), "asked first: it came now, or never will"
    assert slave.mistakable(B, 101.0), "if it was the late one, the answer to B is still to come"
    slave.answered(WRITE, 102.0, refused=True)
    assert not slave.mistakable(B, 102.0)


def test_a_probe_that_was_owed_itself_settles_what_was_asked_before_it() -> None:
    slave = Slave()
    slave.owes(A, 100.0)
    slave.owes(B, 101.0)
    slave.answered(B, 102.0, refused=False)
    assert not slave.mistakable(A, 102.0), "whichever B it was, A was asked before"
    assert slave.mistakable(B, 102.0), "the other B may come"
    slave.answered(A, 103.0, refused=False)
    assert not slave.mistakable(B, 103.0)


def test_an_owed_answer_is_forgotten_when_no_slave_is_that_late() -> None:
    slave = Slave()
    slave.owes(A, 100.0)
    assert slave.mistakable(A, 100.0 + LATE_S - 0.01)
    assert not slave.mistakable(A, 100.0 + LATE_S)


def test_one_miss_is_forgiven_and_more_are_rests_that_grow_to_a_cap() -> None:
    slave = Slave()
    slave.missed(0.0, 0.5)
    assert slave.rest_left(0.0, urgent=False) == 0.0
    rests = []
    for _ in range(100):
        slave.missed(0.0, 0.5)
        rests.append(slave.rest_left(0.0, urgent=False))
        assert slave.rest_left(0.0, urgent=True) == REST_TIMES * 0.5
    assert rests[:4] == [2.0, 4.0, 8.0, 16.0]
    hasty = Slave()
    hasty.missed(0.0, 1e-6)
    hasty.missed(0.0, 1e-6)
    assert hasty.rest_left(0.0, urgent=True) == REST_LEAST_S
    assert rests == sorted(rests)
    assert rests[-1] == REST_CAP_S
    slave.answered(A, 1.0, refused=True)
    assert slave.rest_left(1.0, urgent=False) == slave.rest_left(1.0, urgent=True) == 0.0


@given(
    st.lists(
        st.tuples(st.sampled_from("lbox"), st.integers(0, 3)),
        max_size=30,
    )
)
def test_no_late_answer_is_ever_taken_for_another_question(script: list[tuple[str, int]]) -> None:
    """A slave that answers in order but at any time, and a master that follows the rules of ``Slave``.

    The queue is what the slave still has to say. ``l``: the answer is lost to the master, it comes later; ``b``: late
    ones come first; ``x``: refused; ``o``: in time. Questions 0 and 1 have equal answers, 2 and 3 as well.
    """
    shapes = [
        asked("holding", 10, 1)[1],
        asked("holding", 20, 1)[1],
        asked("input", 30, 2)[1],
        asked("input", 40, 2)[1],
    ]
    slave, now = Slave(), 0.0
    queue: list[tuple[Expected, int, bool]] = []
    for step, question in script:
        now += 0.1
        expected = shapes[question]
        if slave.mistakable(expected, now):
            continue
        queue.append((expected, question, step == "x"))
        if step == "l":
            slave.owes(expected, now)
            continue
        # The master takes the first answer that fits; an exception fits by its function alone.
        while queue:
            shape, answers, refused = queue.pop(0)
            if shape == expected or (refused and shape.function == expected.function):
                assert refused or answers == question
                slave.answered(expected, now, refused=refused)
                break


def test_a_line_makes_its_slaves_when_asked() -> None:
    slaves = Slaves()
    assert slaves[7] is slaves[7]
    assert slaves[7] is not slaves[8]
