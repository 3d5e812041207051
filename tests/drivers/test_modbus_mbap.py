"""The framing: any cut of the stream gives the same frames, and nothing that is not Modbus is buffered or believed."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.mbap import MAX_FRAME, MbapProtocol, frame


class Recorder(MbapProtocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[tuple[int, int, bytes]] = []
        self.errors: list[str] = []
        self.reads = 0
        self.connection_made(asyncio.Transport())

    def frame_received(self, transaction: int, unit: int, pdu: bytes) -> None:
        self.frames.append((transaction, unit, pdu))

    def frames_done(self) -> None:
        self.reads += 1

    def framing_error(self, message: str) -> None:
        self.errors.append(message)
        self.transport = None

    def feed(self, data: bytes) -> None:
        while data:
            room = self.get_buffer(-1)
            assert len(room) >= MAX_FRAME
            taken = data[: len(room)]
            room[: len(taken)] = taken
            self.buffer_updated(len(taken))
            data = data[len(taken) :]


FRAMES = st.lists(
    st.tuples(st.integers(0, 65535), st.integers(0, 255), st.binary(min_size=1, max_size=253)), max_size=60
)


@given(frames=FRAMES, data=st.data())
def test_any_cut_gives_the_same_frames(frames: list[tuple[int, int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(frame(*parts) for parts in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    recorder = Recorder()
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        recorder.feed(stream[start:stop])
    assert recorder.frames == frames
    assert not recorder.errors


def test_byte_by_byte() -> None:
    recorder = Recorder()
    for byte in frame(7, 1, b"\x03\x02\x12\x34") * 3:
        recorder.feed(bytes([byte]))
    assert recorder.frames == [(7, 1, b"\x03\x02\x12\x34")] * 3


@pytest.mark.parametrize("length", [0, 1, 255, 256, 65535])
def test_an_impossible_length_ends_the_connection_before_a_byte_of_it_is_awaited(length: int) -> None:
    recorder = Recorder()
    recorder.feed(b"\x00\x01\x00\x00" + length.to_bytes(2, "big"))
    assert len(recorder.errors) == 1
    assert f"length {length}" in recorder.errors[0]


def test_the_longest_frame_is_accepted() -> None:
    recorder = Recorder()
    recorder.feed(frame(1, 1, bytes(253)))
    assert len(recorder.frames) == 1


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\xff" * 8])
def test_another_protocol_is_recognised_at_once(greeting: bytes) -> None:
    recorder = Recorder()
    recorder.feed(greeting)
    assert len(recorder.errors) == 1
    assert not recorder.frames


def test_nothing_is_delivered_after_the_end() -> None:
    recorder = Recorder()
    recorder.feed(b"\xff" * 8 + frame(1, 1, b"\x03\x02\x00\x00"))
    assert not recorder.frames


@given(st.binary(max_size=4000))
def test_noise_never_raises_and_never_grows(noise: bytes) -> None:
    recorder = Recorder()
    for start in range(0, len(noise), 512):
        if recorder.transport is None:
            break
        recorder.feed(noise[start : start + 512])
    assert all(1 <= len(pdu) <= 253 for _, _, pdu in recorder.frames)
