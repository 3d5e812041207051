"""Where the configured hosts are: names become IPv4 addresses."""

from __future__ import annotations

import asyncio
import socket

from drivers.bacnet.frames import Host, Station
from drivers.bacnet.settings import BacnetSettings, mac_bytes
from drivers.errors import NotConnectedError


async def host_address(host: str, port: int, timeout_s: float) -> Host:
    """A name's first IPv4 address. Raises NotConnectedError if it is unknown."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            found = await loop.getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM)
    except (OSError, TimeoutError) as error:
        raise NotConnectedError(
            f"{host}:{port}: the name is unknown ({error}); check host and the name service"
        ) from error
    address, number = found[0][4][:2]
    return str(address), int(number)


async def find_station(settings: BacnetSettings) -> Station:
    """Where the device is. Raises NotConnectedError."""
    host = await host_address(settings.host, settings.port, settings.timeout * (settings.retries + 1))
    mac = b"" if settings.address is None else mac_bytes(settings.address)
    return Station(host, settings.network or 0, mac)
