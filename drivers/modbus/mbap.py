"""Framing of Modbus TCP: cuts the byte stream into frames inside one fixed buffer. Shared by client and server.

Source: MODBUS Messaging on TCP/IP Implementation Guide V1.0b, section 3.1.3. A header is transaction (2 bytes),
protocol 0 (2), length of what follows (2), unit (1); a whole unit is at most 260 bytes, so a longer claim is not
Modbus and ends the connection at once.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Final, cast

from drivers.modbus.pdu import MAX_PDU

HEADER_BYTES: Final = 7
MAX_FRAME: Final = HEADER_BYTES + MAX_PDU
_BUFFER_BYTES: Final = 32 * MAX_FRAME
"""Room for the largest window of replies in one read, and all that a connection ever buffers."""
_LENGTHS: Final = struct.Struct(">HHH")
_HEADER: Final = struct.Struct(">HHHB")


def frame(transaction: int, unit: int, pdu: bytes) -> bytes:
    """Put the header in front of a PDU."""
    return _HEADER.pack(transaction, 0, len(pdu) + 1, unit) + pdu


class MbapProtocol(asyncio.BufferedProtocol):
    """A connection that hands each whole frame to :meth:`frame_received`. Subclasses say what a frame means."""

    transport: asyncio.Transport | None = None

    def __init__(self) -> None:
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0

    @property
    def mid_frame(self) -> bool:
        """Whether the last bytes that came are not yet a whole frame."""
        return self._filled > 0

    def frame_received(self, transaction: int, unit: int, pdu: bytes) -> None:
        """Take one frame; ``pdu`` has 1 to 253 bytes."""

    def frames_done(self) -> None:
        """Called once after all frames of one read: the place to answer them in one write."""

    def framing_error(self, message: str) -> None:
        """The peer does not speak Modbus TCP; the stream cannot be cut any further. Must end the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        del exc
        self.transport = None

    def get_buffer(self, sizehint: int) -> memoryview:
        """Called by the event loop. Never empty: less than one frame is left over after each read."""
        del sizehint
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the event loop: cut and deliver what is complete, keep the rest."""
        end = self._filled + nbytes
        start = 0
        while end - start >= _LENGTHS.size and self.transport is not None:
            transaction, protocol, length = _LENGTHS.unpack_from(self._buffer, start)
            if protocol != 0 or not 2 <= length <= MAX_PDU + 1:
                self._filled = 0
                self.framing_error(
                    f"not a Modbus TCP header: protocol {protocol}, length {length} (must be 0 and 2..254)"
                )
                return
            stop = start + _LENGTHS.size + length
            if stop > end:
                break
            self.frame_received(transaction, self._buffer[start + 6], bytes(self._view[start + HEADER_BYTES : stop]))
            start = stop
        if start:
            self._buffer[: end - start] = self._buffer[start:end]
        self._filled = end - start
        self.frames_done()
