"""The ways to a device: Modbus TCP, the same inside TLS, RTU frames over TCP, RTU on a serial port."""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from drivers.errors import AuthenticationError
from drivers.modbus.bus import Bus
from drivers.modbus.link import Link
from drivers.modbus.serial_port import SerialTransport, open_port
from drivers.modbus.serial_setup import NETWORK_TIMING, SerialSetup
from drivers.modbus.settings import ModbusSettings, ModbusTls
from drivers.modbus.slaves import Slaves
from drivers.modbus.tls import client_context
from drivers.modbus.transaction import Batch


class Connection(Protocol):
    """One open connection, whatever it runs over. Once ``alive`` is False it stays so."""

    window: int
    shared: bool
    late_replies: int

    @property
    def alive(self) -> bool:
        """Whether requests can be sent."""

    def submit(self, batch: Batch, *, urgent: bool = False) -> None:
        """Queue a batch; see ``batch.done``."""

    def abandon(self, batch: Batch) -> None:
        """Forget a batch whose caller was cancelled."""

    async def close(self) -> None:
        """End it; never raises."""


class Route(ABC):
    """How to connect. Equal routes lead to the same place in the same way."""

    @property
    @abstractmethod
    def where(self) -> str:
        """The place in words; equal for routes that cannot be used side by side."""

    @abstractmethod
    async def connect(self, slaves: Slaves) -> Connection:
        """Open a connection. ``slaves`` is what the line's earlier connections have learnt.

        Raises:
            OSError, NotConnectedError, AuthenticationError
        """


@dataclass(frozen=True)
class TcpRoute(Route):
    """Modbus TCP."""

    host: str
    port: int

    @property
    def where(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def connect(self, slaves: Slaves) -> Connection:
        del slaves
        loop = asyncio.get_running_loop()
        _transport, link = await loop.create_connection(lambda: Link(self.where, loop), self.host, self.port)
        return link


@dataclass(frozen=True)
class TlsRoute(TcpRoute):
    """Modbus/TCP Security."""

    tls: ModbusTls

    async def connect(self, slaves: Slaves) -> Connection:
        del slaves
        loop = asyncio.get_running_loop()
        context = await asyncio.to_thread(client_context, self.tls)
        try:
            _transport, link = await loop.create_connection(
                lambda: Link(self.where, loop, secure=True),
                self.host,
                self.port,
                ssl=context,
                server_hostname=self.tls.server_name or self.host,
            )
        except ssl.SSLError as error:
            raise AuthenticationError(
                f"{self.where}: TLS failed ({error}); check ca_file, the device's certificate and server_name, "
                "and that this port speaks TLS"
            ) from error
        return link


@dataclass(frozen=True)
class RtuRoute(TcpRoute):
    """RTU frames over TCP, to a transparent serial server."""

    async def connect(self, slaves: Slaves) -> Connection:
        loop = asyncio.get_running_loop()
        _transport, bus = await loop.create_connection(
            lambda: Bus(self.where, NETWORK_TIMING, slaves, loop, remote=True), self.host, self.port
        )
        return bus


@dataclass(frozen=True)
class SerialRoute(Route):
    """A serial port of this machine. ``path`` may be a link that leads elsewhere after the adapter was plugged in again."""

    path: str
    setup: SerialSetup

    @property
    def where(self) -> str:
        return self.path

    async def connect(self, slaves: Slaves) -> Connection:
        loop = asyncio.get_running_loop()
        bus = Bus(self.path, self.setup.timing, slaves, loop, remote=False)
        SerialTransport(loop, open_port(self.path, self.setup), bus)
        return bus


def route_to(settings: ModbusSettings) -> Route:
    """The route that the settings ask for."""
    if settings.serial is not None:
        return SerialRoute(settings.serial, settings.serial_setup)
    host = settings.host
    assert host is not None
    if settings.tls is not None:
        return TlsRoute(host, settings.port, settings.tls)
    return RtuRoute(host, settings.port) if settings.rtu else TcpRoute(host, settings.port)
