"""Equipment for fault tests: named Modbus values on a real socket, every write kept in order, stopped and started at will."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from drivers.modbus.registers import Register, RegisterMap
from drivers.modbus.server import ModbusServer
from drivers.modbus.settings import ModbusAddress

HOST = "127.0.0.1"
PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Write:
    """One write as the equipment saw it. ``at`` is the machine's monotonic time."""

    at: float
    name: str
    value: float


class RegisterBank:
    """Serves f32 values by name over Modbus TCP, unit id 1, from a thread of its own.

    ``inputs`` go to the input table, ``outputs`` to the holding table, two registers each, from address 0.
    """

    def __init__(self, inputs: dict[str, float], outputs: dict[str, float]) -> None:
        self._lock = threading.Lock()
        self._first = {**inputs, **outputs}
        self._values = dict(self._first)
        self._writes: list[Write] = []
        self.addresses: dict[str, str] = {}
        registers = []
        for table, names in (("input", inputs), ("holding", outputs)):
            for place, name in enumerate(names):
                address = ModbusAddress.model_validate({table: 2 * place, "type": "f32"})
                self.addresses[name] = f"{{{table}: {2 * place}, type: f32}}"
                registers.append(
                    Register(address, self._reader(name), self._writer(name) if table == "holding" else None)
                )
        self._map = RegisterMap(registers)
        self._server: ModbusServer | None = None
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="register-bank", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    def start(self) -> None:
        """Listen; after :meth:`stop` on the same port again."""
        server = ModbusServer({1: self._map})
        self._call(server.start(HOST, self.port))
        self.port = server.port
        self._server = server

    def stop(self) -> None:
        """Close the port and drop every client, as a power cut does."""
        server, self._server = self._server, None
        if server is not None:
            self._call(server.close())

    def lose_setpoints(self) -> None:
        """Everything is as it was before anyone wrote: what volatile registers do in a power cut."""
        with self._lock:
            self._values = dict(self._first)

    def set(self, name: str, value: float) -> None:
        """Change a value at the equipment. Not counted as a write."""
        with self._lock:
            self._values[name] = value

    def get(self, name: str) -> float:
        """The present value."""
        with self._lock:
            return self._values[name]

    def values(self, *names: str) -> tuple[float, ...]:
        """Several present values."""
        with self._lock:
            return tuple(self._values[name] for name in names)

    @property
    def writes(self) -> list[Write]:
        """Every write so far, in order."""
        with self._lock:
            return list(self._writes)

    def writes_of(self, name: str, since: int = 0) -> list[float]:
        """The values written to one point, from the ``since``-th write of the whole bank on."""
        return [write.value for write in self.writes[since:] if write.name == name]

    def _reader(self, name: str) -> Any:
        return lambda: self.get(name)

    def _writer(self, name: str) -> Any:
        def write(value: float) -> None:
            with self._lock:
                self._values[name] = value
                self._writes.append(Write(time.monotonic(), name, value))

        return write

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)
