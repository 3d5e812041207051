"""An RTU line for tests: a pseudo terminal with scripted slaves at its far end that can misbehave in any way."""

from __future__ import annotations

import asyncio
import os
import pty
import tty
from collections.abc import Callable, Sequence
from typing import Any

from drivers.interface import DeviceClock, DevicePoint
from drivers.modbus import rtu
from drivers.modbus.driver import ModbusDriver
from drivers.modbus.settings import ModbusSettings

Handler = Callable[["Question"], None]


def good_pdu(pdu: bytes) -> bytes:
    """The right answer: a register holds its own address, a bit is on at every third; a write is echoed."""
    function, start, count = pdu[0], int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
    if function in (1, 2):
        data = bytearray((count + 7) // 8)
        for k in range(count):
            data[k // 8] |= ((start + k) % 3 == 0) << k % 8
        return bytes((function, len(data))) + data
    if function in (3, 4):
        return bytes((function, 2 * count)) + b"".join((start + k & 0xFFFF).to_bytes(2, "big") for k in range(count))
    return pdu if function == 22 else pdu[:5]


class Question:
    """One request as a slave got it. ``at`` is when, in event-loop seconds."""

    def __init__(self, line: ScriptedLine, frame: bytes, at: float) -> None:
        self.line = line
        self.unit, self.pdu = frame[0], frame[1:-2]
        self.at = at

    @property
    def start(self) -> int:
        return int.from_bytes(self.pdu[1:3], "big")

    @property
    def count(self) -> int:
        return int.from_bytes(self.pdu[3:5], "big")

    def frame(self, pdu: bytes | None = None, *, unit: int | None = None) -> bytes:
        """An answer, right in everything that is not given."""
        return rtu.frame(self.unit if unit is None else unit, good_pdu(self.pdu) if pdu is None else pdu)

    def answer(self, pdu: bytes | None = None) -> None:
        self.line.say(self.frame(pdu))

    def refuse(self, code: int) -> None:
        self.answer(bytes((self.pdu[0] | 0x80, code)))


def healthy(question: Question) -> None:
    """The handler of healthy slaves."""
    question.answer()


class ScriptedLine:
    """Calls ``handler`` for every request to any unit. ``path`` is the port; ``questions`` keeps what came."""

    def __init__(self, handler: Handler = healthy) -> None:
        self.handler = handler
        self.questions: list[Question] = []
        self.damaged = 0
        """Bytes from the master that were no request."""

    async def __aenter__(self) -> ScriptedLine:
        self._ours, self._theirs = pty.openpty()
        tty.setraw(self._theirs)
        os.set_blocking(self._ours, False)
        self.path = os.ttyname(self._theirs)
        self._heard = bytearray()
        asyncio.get_running_loop().add_reader(self._ours, self._readable)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.unplug()

    def unplug(self) -> None:
        """The adapter is pulled out."""
        if self._ours >= 0:
            asyncio.get_running_loop().remove_reader(self._ours)
            os.close(self._ours)
            os.close(self._theirs)
            self._ours = -1

    def say(self, data: bytes) -> None:
        """Put bytes on the line."""
        if self._ours >= 0:
            os.write(self._ours, data)

    def later(self, delay_s: float, data: bytes) -> None:
        """Put bytes on the line after a while."""
        asyncio.get_running_loop().call_later(delay_s, self.say, data)

    def units(self) -> list[int]:
        return [question.unit for question in self.questions]

    def _readable(self) -> None:
        try:
            self._heard += os.read(self._ours, 4096)
        except OSError:
            return
        now = asyncio.get_running_loop().time()
        while self._heard:
            size = request_size(self._heard)
            if size > len(self._heard):
                return
            if rtu.crc16(self._heard[:size]) != 0:
                self.damaged += len(self._heard)
                self._heard.clear()
                return
            question = Question(self, bytes(self._heard[:size]), now)
            del self._heard[:size]
            self.questions.append(question)
            self.handler(question)


def request_size(heard: bytes | bytearray) -> int:
    """How long the request that begins here is, as a slave knows it: from the function."""
    if len(heard) < 2:
        return 8
    if heard[1] in (15, 16):
        return 9 + heard[6] if len(heard) > 6 else 9
    return 10 if heard[1] == 22 else 8


def line_settings(path: str, **settings: Any) -> ModbusSettings:
    """Settings of a fast line with a short deadline."""
    return ModbusSettings.model_validate({"serial": path, "baud": 115200, "parity": "N", "timeout": "80ms", **settings})


def line_driver(path: str, points: Sequence[DevicePoint], clock: DeviceClock, **settings: Any) -> ModbusDriver:
    """A driver for one slave of a line."""
    return ModbusDriver.build("device", line_settings(path, **settings), points, clock)
