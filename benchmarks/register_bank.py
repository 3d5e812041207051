"""A Modbus TCP server that is nothing but registers: the quiet other end of the agent's benchmarks.

Run: python benchmarks/register_bank.py PORT [PORT...]; prints "ready" when every port listens. Ends with its standard input.
"""

from __future__ import annotations

import asyncio
import struct
import sys

SIZE = 65_536


class Bank(asyncio.Protocol):
    """One connection to one bank of input and holding registers (one array for both)."""

    def __init__(self, words: bytearray) -> None:
        self._words = words
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 8:
            length = struct.unpack_from(">H", self._buffer, 4)[0]
            if len(self._buffer) < 6 + length:
                return
            frame, self._buffer = self._buffer[: 6 + length], self._buffer[6 + length :]
            pdu = self._answer(frame[7:])
            self._transport.write(frame[:4] + struct.pack(">HB", len(pdu) + 1, frame[6]) + pdu)

    def _answer(self, pdu: bytes) -> bytes:
        function = pdu[0]
        start, count = struct.unpack_from(">HH", pdu, 1)
        if function in (3, 4):
            return struct.pack(">BB", function, 2 * count) + self._words[2 * start : 2 * (start + count)]
        if function == 6:
            self._words[2 * start : 2 * start + 2] = pdu[3:5]
            return pdu
        if function == 16:
            self._words[2 * start : 2 * (start + count)] = pdu[6 : 6 + 2 * count]
            return pdu[:5]
        return struct.pack(">BB", function | 0x80, 1)


def preset() -> bytearray:
    """Every pair of registers reads as the float 18.5: a zone that wants heat."""
    return bytearray(struct.pack(">f", 18.5) * (SIZE // 2))


async def serve(ports: list[int]) -> None:
    """Serve one bank per port until standard input closes."""
    loop = asyncio.get_running_loop()
    for port in ports:
        words = preset()
        await loop.create_server(lambda words=words: Bank(words), "127.0.0.1", port)  # type: ignore[misc]
    print("ready", flush=True)
    closed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), closed.set)
    await closed.wait()


if __name__ == "__main__":
    asyncio.run(serve([int(port) for port in sys.argv[1:]]))
