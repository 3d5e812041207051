"""One device at run time: polls it for ever, writes to it through the gate, backs off while it is away.

A device costs nobody but itself: two tasks (poll, write) with deadlines inside the driver, and one pending value per output, so that
nothing can queue up while the device does not answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Mapping
from typing import Protocol

from agent.runtime import log
from agent.runtime.clock import Clock
from drivers.backoff import Backoff
from drivers.errors import AuthenticationError, DriverError
from drivers.interface import DeviceState, Driver, PollResult
from safety.gate import Gate
from safety.values import Reason, WriteOutcome, WriteResult

WRITE_RETRY_S = 0.2
"""Between two tries of a write that found no device: the poll task's backoff decides when the device is back."""


class Listener(Protocol):
    """What the scan loop wants to hear of a device."""

    def polled(self, device: str, result: PollResult) -> None:
        """A poll has ended, well or badly."""

    def written(self, output: int, result: WriteResult) -> None:
        """A write has ended in one of its outcomes."""


class DeviceTask:
    """Runs one driver. ``poll_s`` is control seconds; the driver's deadlines are wall seconds."""

    def __init__(
        self,
        driver: Driver,
        poll_s: float,
        clock: Clock,
        gate: Gate,
        listener: Listener,
        output_names: Mapping[int, str],
        phase: float = 0.5,
    ) -> None:
        """``phase``: the device's place in its poll period, 0..1. Devices spread over it do not all come at once, nor with the scans."""
        self.driver = driver
        self.name = driver.device
        self.poll_s = poll_s
        self._phase = phase
        self._clock = clock
        self._gate = gate
        self._listener = listener
        self._output_names = output_names
        self._pending: dict[int, float | None] = {}
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._online = asyncio.Event()
        self._backoff = Backoff()
        self._log = log.get("core").bind(device=self.name)
        self._failing = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start both tasks. They end only by :meth:`stop`."""
        self._tasks = [
            asyncio.create_task(self._poll_forever(), name=f"poll {self.name}"),
            asyncio.create_task(self._write_forever(), name=f"write {self.name}"),
        ]

    def request_write(self, output: int, value: float | None) -> None:
        """Write this as soon as the device takes it; a newer value replaces one still waiting."""
        self._pending[output] = value
        self._wake.set()

    async def drain(self, timeout_s: float) -> None:
        """Stop taking part in the scan but keep the connection, for the release of what we hold."""
        self._stopping.set()
        self._wake.set()
        self._online.set()
        if self._tasks:
            _done, pending = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in pending:
                task.cancel()
            if pending:
                await asyncio.wait(pending, timeout=1.0)

    @property
    def failed_task(self) -> BaseException | None:
        """The exception that ended a task, if one did: a defect of ours, never a device's fault."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                return task.exception()
        return None

    async def _pause(self, wall_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), wall_s)

    async def _poll_forever(self) -> None:
        while not self._stopping.is_set():
            began = self._clock.monotonic()
            try:
                await self.driver.connect()
                result = await self.driver.poll()
            except DriverError as error:
                self._lost(error)
                wait = (
                    self._backoff.auth_failure() if isinstance(error, AuthenticationError) else self._backoff.failure()
                )
                await self._pause(wait)
                continue
            self._found()
            self._listener.polled(self.name, result)
            wait = self._slot_after(began) - self._clock.monotonic()
            await self._pause(max(wait, 0.0) / self._clock.speed)

    def _slot_after(self, began: float) -> float:
        """When the poll after one begun at ``began`` is due: at this device's place in its period."""
        return (math.floor(began / self.poll_s - self._phase) + 1.0 + self._phase) * self.poll_s

    def _lost(self, error: DriverError) -> None:
        self._online.clear()
        self._listener.polled(
            self.name, PollResult.all_bad(len(self.driver.points), Reason.DEVICE_UNREACHABLE, self._clock.utc())
        )
        self.driver.health.state = DeviceState.BACKOFF
        self.driver.health.last_error = str(error)
        if self._failing:
            self._log.debug("device_still_away", error=str(error))
        else:
            self._log.warning(
                "device_away", error=str(error), effect="its points are bad; outputs fed by them go to fail-safe"
            )
            self._failing = True

    def _found(self) -> None:
        self._backoff.success()
        self._online.set()
        if self._failing:
            self._log.info("device_back")
            self._failing = False

    async def _write_forever(self) -> None:
        while not self._stopping.is_set():
            await self._wake.wait()
            self._wake.clear()
            await self._online.wait()
            while self._pending and self._online.is_set() and not self._stopping.is_set():
                output = next(iter(self._pending))
                value = self._pending.pop(output)
                result = await self._gate.write(self.driver, self._output_names[output], value)
                if result.outcome is WriteOutcome.UNREACHABLE and output not in self._pending:
                    self._pending[output] = value
                    self._wake.set()
                    self._listener.written(output, result)
                    break
                self._listener.written(output, result)
            if self._pending and not self._stopping.is_set():
                await self._pause(WRITE_RETRY_S)
