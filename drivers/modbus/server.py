"""A Modbus TCP server over register maps: serves a plant as if it were the real equipment. Bounded in every
direction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from drivers.errors import NotConnectedError
from drivers.modbus.mbap import MbapProtocol, frame
from drivers.modbus.pdu import ERROR_FLAG, ExceptionCode
from drivers.modbus.registers import RegisterMap

MAX_CONNECTIONS: Final = 16
IDLE_TIMEOUT_S: Final = 300.0

log = structlog.get_logger(__name__)


class _Session(MbapProtocol):
    """One client."""

    def __init__(self, server: ModbusServer) -> None:
        super().__init__()
        self._server = server
        self._replies: list[bytes] = []
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._server.admit(self):
            self._rest()
        else:
            self.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._idle is not None:
            self._idle.cancel()
        self._server.forget(self)

    def pause_writing(self) -> None:
        """A client that asks but does not read its answers is not listened to either."""
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.transport is not None:
            self.transport.resume_reading()

    def framing_error(self, message: str) -> None:
        log.debug("client dropped", why=message)
        self.drop()

    def frame_received(self, transaction: int, unit: int, pdu: bytes) -> None:
        self._replies.append(frame(transaction, unit, self._server.answer(unit, pdu)))

    def frames_done(self) -> None:
        if self._replies and self.transport is not None:
            self.transport.write(b"".join(self._replies))
            self._replies.clear()
            self._rest()

    def drop(self) -> None:
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.abort()

    def _rest(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(self._server.idle_timeout_s, self.drop)


class ModbusServer:
    """Serves ``units`` (unit id → register map) on one port. A unit id that is not there answers with a gateway
    exception.

    At most ``max_connections`` clients at once: one more is turned away. A client that is silent for
    ``idle_timeout_s`` is dropped.
    """

    def __init__(
        self,
        units: Mapping[int, RegisterMap],
        *,
        max_connections: int = MAX_CONNECTIONS,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        self.idle_timeout_s = idle_timeout_s
        self._units = dict(units)
        self._max_connections = max_connections
        self._sessions: set[_Session] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port it listens on, known after :meth:`start`."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one. Raises NotConnectedError if the address cannot be used."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: _Session(self), host, port)
        except OSError as error:
            raise NotConnectedError(
                f"cannot listen on {host}:{port} ({error.strerror or error}); choose a free port"
            ) from error

    async def close(self) -> None:
        """Stop listening and drop every client."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for session in list(self._sessions):
            session.drop()
        await server.wait_closed()

    def answer(self, unit: int, request: bytes) -> bytes:
        """Answer one request to one unit."""
        registers = self._units.get(unit)
        if registers is None:
            return bytes((request[0] | ERROR_FLAG, ExceptionCode.GATEWAY_TARGET_FAILED_TO_RESPOND))
        return registers.answer(request)

    def admit(self, session: _Session) -> bool:
        """Whether a new client still has a place."""
        if len(self._sessions) >= self._max_connections:
            log.warning("client turned away", connections=len(self._sessions))
            return False
        self._sessions.add(session)
        return True

    def forget(self, session: _Session) -> None:
        """A client is gone."""
        self._sessions.discard(session)
