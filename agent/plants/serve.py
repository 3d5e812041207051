"""Serve a plant over Modbus TCP: one server per endpoint of the site, or one with the automatic map."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from agent.config.loader import LoadedSite
from agent.plants.binding import automatic_map, bind_site
from agent.plants.errors import PlantBindingError
from agent.plants.runner import PlantRunner
from drivers.errors import AddressError, NotConnectedError
from drivers.modbus.registers import Register, RegisterMap
from drivers.modbus.server import ModbusServer
from drivers.modbus.settings import ModbusAddress, ModbusSettings
from models.plant import Plant
from safety.errors import UnitError

TICK_S = 0.1
"""Wall seconds between steps: an agent that scans every second sees ten values in between."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """One value on the wire: which plant point, where, in which unit."""

    point: str
    address: ModbusAddress
    unit: str


@dataclass(slots=True)
class Endpoint:
    """What listens on one port: Modbus unit id → its values. ``port`` is 0 for any free one."""

    port: int
    units: dict[int, list[Served]] = field(default_factory=dict)


def site_endpoints(loaded: LoadedSite, plant: Plant) -> list[Endpoint]:
    """The endpoints of the site's Modbus devices, with every point the plant stands behind.

    A register that several zones read is one value. Points on other protocols, and points without a counterpart, are
    left out.

    Raises:
        PlantBindingError: nothing to serve, or one register with two meanings.
    """
    bound = bind_site(loaded, plant)
    by_port: dict[int, Endpoint] = {}
    owners: dict[tuple[int, int, str, int], tuple[str, Served]] = {}
    for name, (_unit, point) in loaded.points.items():
        settings = loaded.site.devices[point.device].settings
        address = point.address
        if name not in bound or not isinstance(settings, ModbusSettings) or not isinstance(address, ModbusAddress):
            continue
        if settings.medium != "tcp":
            continue
        served = Served(bound[name], address, point.unit)
        place = (settings.port, settings.unit_id, address.table, address.number)
        other, shared = owners.setdefault(place, (name, served))
        if shared is not served:
            if shared != served:
                raise PlantBindingError(
                    f"{name} and {other} share {address.table} {address.number} of {point.device}, but stand for "
                    f"{served.point} and {shared.point} or differ in type or unit: one register can hold one value"
                )
            continue
        endpoint = by_port.setdefault(settings.port, Endpoint(settings.port))
        endpoint.units.setdefault(settings.unit_id, []).append(served)
    if not by_port:
        raise PlantBindingError("the site has no Modbus device whose points the plant knows: nothing to serve")
    return list(by_port.values())


def automatic_endpoint(plant: Plant, port: int) -> Endpoint:
    """One endpoint, unit id 1, with the automatic map."""
    addresses = automatic_map(plant.points)
    return Endpoint(port, {1: [Served(name, address, plant.points[name].unit) for name, address in addresses.items()]})


class PlantServer:
    """Serves a running plant on its endpoints until it is closed."""

    def __init__(
        self, runner: PlantRunner, endpoints: list[Endpoint], *, wall: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises PlantBindingError if a unit cannot be converted or two values overlap on the wire."""
        self._runner = runner
        self._wall = wall
        self._ports = [endpoint.port for endpoint in endpoints]
        self._servers = [ModbusServer(self._maps(endpoint.units)) for endpoint in endpoints]

    @property
    def ports(self) -> list[int]:
        """The ports it listens on, in the order of the endpoints, known after :meth:`start`."""
        return [server.port for server in self._servers]

    async def start(self, host: str) -> None:
        """Listen on every endpoint. Raises NotConnectedError, with nothing left open, if one port cannot be had."""
        started: list[ModbusServer] = []
        try:
            for server, port in zip(self._servers, self._ports, strict=True):
                await server.start(host, port)
                started.append(server)
        except NotConnectedError:
            for server in started:
                await server.close()
            raise

    async def run(self, duration_s: float | None = None) -> None:
        """Step the plant until cancelled, or for ``duration_s`` wall seconds. Raises PlantFailedError."""
        began = last = self._wall()
        while duration_s is None or last - began < duration_s:
            await asyncio.sleep(TICK_S)
            now = self._wall()
            dropped = self._runner.advance(now - last)
            if dropped > 0.0:
                log.warning(
                    "plant fell behind", dropped_s=round(dropped, 1), remedy="a lower --speed or a larger plant step"
                )
            last = now

    async def close(self) -> None:
        """Stop listening and drop every client."""
        for server in self._servers:
            await server.close()

    def _maps(self, units: Mapping[int, list[Served]]) -> dict[int, RegisterMap]:
        try:
            return {unit: RegisterMap([self._register(served) for served in values]) for unit, values in units.items()}
        except AddressError as error:
            raise PlantBindingError(str(error)) from error

    def _register(self, served: Served) -> Register:
        try:
            read = self._runner.reader(served.point, served.unit)
            write = self._runner.writer(served.point, served.unit) if served.address.writable else None
        except UnitError as error:
            raise PlantBindingError(f"{served.point}: {error}") from error
        return Register(served.address, read, write)
