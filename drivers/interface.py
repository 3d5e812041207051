"""What a driver is: the one interface between the scan and any protocol.

A driver serves one device (one endpoint). It owns the connection and its reconnection, coalesces reads, keeps every transaction inside
a deadline, and never reports an old value as new. It does not schedule itself: the core calls ``poll``.
Third parties add a driver with an entry point in the group ``poetd.drivers`` that names a :class:`DriverPlugin`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from safety.values import Command, Quality, Reason

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]


class DeviceClock(Protocol):
    """The part of the injected clock a driver may use: control time for ages, wall seconds for network deadlines."""

    def monotonic(self) -> float:
        """Control seconds (may run faster than the wall in a demo)."""

    def utc(self) -> float:
        """UTC seconds since the epoch, on the control time's scale."""


@dataclass(frozen=True, slots=True)
class DevicePoint:
    """One point as the driver sees it. ``name`` is ``unit/point``; ``address`` is the driver's own model, already validated."""

    name: str
    address: BaseModel
    writable: bool = False
    priority: int | None = None


@dataclass(slots=True)
class PollResult:
    """What one poll brought, in the order of the driver's points. All arrays have shape (n_points,).

    ``value`` is in the point's declared unit (scale and offset applied); ``source_time`` is UTC seconds.
    A point that could not be read has quality BAD and the reason; its value is NaN, never the last one.
    """

    value: Floats
    quality: Bytes
    reason: Bytes
    source_time: Floats

    @classmethod
    def all_bad(cls, count: int, reason: Reason, utc: float) -> PollResult:
        """Every point bad for one reason: the device did not answer."""
        return cls(
            value=np.full(count, np.nan),
            quality=np.full(count, Quality.BAD, np.uint8),
            reason=np.full(count, reason, np.uint8),
            source_time=np.full(count, utc),
        )


class DeviceState(Enum):
    """The states of a device's connection."""

    IDLE = "idle"
    CONNECTING = "connecting"
    ONLINE = "online"
    DEGRADED = "degraded"
    """Online, but some points are quarantined or failing."""
    BACKOFF = "backoff"
    """Not reachable; the next attempt is scheduled."""
    CLOSED = "closed"


@dataclass(slots=True)
class Health:
    """What is known of a device. Times are control-clock seconds; None = never."""

    state: DeviceState = DeviceState.IDLE
    detail: str = ""
    polls: int = 0
    poll_errors: int = 0
    writes: int = 0
    write_errors: int = 0
    reconnects: int = 0
    last_good: float | None = None
    last_error: str = ""
    quarantined: tuple[str, ...] = ()
    latency_s: list[float] = field(default_factory=list)
    """The last transactions' latencies in wall seconds, bounded by the driver (≤ 512)."""


class Driver(ABC):
    """One device. Built once with all its points; the order of ``points`` is the order of every :class:`PollResult`."""

    def __init__(self, device: str, points: Sequence[DevicePoint], clock: DeviceClock) -> None:
        self.device = device
        self.points = tuple(points)
        self.clock = clock
        self.health = Health()

    @abstractmethod
    async def connect(self) -> None:
        """Connect, or return at once if connected. Raises DriverError; the caller backs off."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connection cleanly. Never raises."""

    @abstractmethod
    async def poll(self) -> PollResult:
        """Read every point once. A point's failure is in the result; raises DriverError only if the device as a whole failed."""

    @abstractmethod
    async def write(self, command: Command) -> None:
        """Send one command and wait for the device's acknowledgement.

        ``command.value is None`` relinquishes, where the protocol can. Raises TypeError for anything that is not a sealed Command,
        NotWritableError, DeviceRefusedError, DeadlineError, NotConnectedError, ProtocolError.
        """

    @abstractmethod
    async def read_back(self, point: str) -> float:
        """Read one point's present value in its declared unit, past any cache. Raises DriverError."""

    def can_relinquish(self, point: str) -> bool:
        """Whether writing None hands the point back to the equipment's own logic. Modbus cannot."""
        del point
        return False


DriverFactory = Callable[[str, BaseModel, Sequence[DevicePoint], DeviceClock], Driver]
"""(device name, the device's settings, points, clock) → driver. Must not connect."""


@runtime_checkable
class EndpointSettings(Protocol):
    """What a driver's settings model may tell the configuration check, so that one device is not configured twice."""

    @property
    def endpoint(self) -> str:
        """Names the one device these settings reach; equal for equal devices."""


@runtime_checkable
class LineSettings(Protocol):
    """What a settings model may tell the configuration check of a connection that several devices share."""

    @property
    def line(self) -> tuple[str, str]:
        """Names the connection, and how it is set. Two devices that name one connection must set it alike."""


@runtime_checkable
class PointAddress(Protocol):
    """What a driver's address model tells the configuration check. An address without these is never written: default deny."""

    @property
    def writable(self) -> bool:
        """Whether a point of this kind can be written at all."""

    @property
    def can_relinquish(self) -> bool:
        """Whether a write of None hands the point back to the equipment's own logic."""

    @property
    def span(self) -> tuple[str, float, float]:
        """What a write touches: an address space, the first cell, and one past the last. Two units may not write one cell.

        Parts of a cell that can be written apart from each other are fractions of it.
        """


@dataclass(frozen=True, slots=True)
class DriverPlugin:
    """What an entry point in ``poetd.drivers`` names. ``name`` is the YAML key in ``devices:`` and ``points:``.

    ``settings`` should be an :class:`EndpointSettings` and ``address`` a :class:`PointAddress`.
    ``load`` imports the driver's heavy modules only when a site uses it.
    """

    name: str
    settings: type[BaseModel]
    address: type[BaseModel]
    load: Callable[[], DriverFactory]
