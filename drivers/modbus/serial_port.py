"""A serial port as an asyncio transport: raw bytes, 8 data bits, no flow control, for this process alone. POSIX only."""

from __future__ import annotations

import asyncio
import fcntl
import os
import termios
from typing import Final

from drivers.errors import NotConnectedError
from drivers.modbus.serial_setup import SerialSetup

_READ_BYTES: Final = 4096
_PARITY: Final = {"N": 0, "E": termios.PARENB, "O": termios.PARENB | termios.PARODD}


class SerialTransport(asyncio.Transport):
    """An open port. Hands what comes to ``protocol.data_received``; a port that fails is closed and reported once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._descriptor = descriptor
        self._protocol = protocol
        self._open = True
        protocol.connection_made(self)
        loop.add_reader(descriptor, self._readable)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Hand one frame to the port. A frame fits into an idle port's buffer; a port that takes less is stuck."""
        if not self._open:
            return
        try:
            taken = os.write(self._descriptor, data)
        except OSError as error:
            self._end(error)
            return
        if taken < len(data):
            self._end(OSError(f"the port took {taken} of {len(data)} bytes"))

    def abort(self) -> None:
        """Close at once; bytes on their way are lost."""
        self._end(None)

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if data:
            self._protocol.data_received(data)
        else:
            self._end(OSError("the port is gone"))

    def _end(self, error: OSError | None) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        # Not called from here: the protocol may be in the middle of writing.
        self._loop.call_soon(self._protocol.connection_lost, error)


def open_port(path: str, setup: SerialSetup) -> int:
    """Open and set a serial port; returns its file descriptor.

    Raises:
        NotConnectedError: no such port, no permission, in use by another program, not a serial port, or it cannot be
            set like this.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise NotConnectedError(
            f"{path}: cannot open ({error.strerror}); check that the adapter is plugged in and that the daemon's user "
            "may use it (group dialout)"
        ) from error
    try:
        # Both: the first keeps out other poetd processes, root's too; the second every other program.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.ioctl(descriptor, termios.TIOCEXCL)
        _set(descriptor, setup)
    except BlockingIOError as error:
        os.close(descriptor)
        raise NotConnectedError(
            f"{path}: in use already; a line has one master: stop the other program, and give all devices of the line "
            "the same name of the port"
        ) from error
    except (OSError, termios.error) as error:
        os.close(descriptor)
        raise NotConnectedError(
            f"{path}: cannot be set to {setup} ({error}); check that it is a serial port and supports this"
        ) from error
    return descriptor


def _set(descriptor: int, setup: SerialSetup) -> None:
    speed: int = getattr(termios, f"B{setup.baud}")
    control = termios.CS8 | termios.CREAD | termios.CLOCAL | _PARITY[setup.parity]
    if setup.stop_bits == 2:
        control |= termios.CSTOPB
    # A byte with wrong parity is thrown away: the frame is then too short, and its checksum wrong as well.
    input_flags = termios.INPCK | termios.IGNPAR if setup.parity != "N" else termios.IGNPAR
    characters = termios.tcgetattr(descriptor)[6]
    characters[termios.VMIN], characters[termios.VTIME] = 0, 0
    termios.tcsetattr(descriptor, termios.TCSANOW, [input_flags, 0, control, 0, speed, speed, characters])
    if termios.tcgetattr(descriptor)[4] != speed:
        raise OSError(f"the port does not do {setup.baud} baud")
    termios.tcflush(descriptor, termios.TCIOFLUSH)
