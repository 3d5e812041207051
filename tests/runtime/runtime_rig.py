"""A small site of three zones on two devices, as text, as program and as engine; devices and workers that are only memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agent import kernels
from agent.config.loader import LoadedSite, load
from agent.poet.batch import CallStatus
from agent.runtime import tables
from agent.runtime.clock import ManualClock
from agent.runtime.engine import Engine
from agent.runtime.image import private_arrays
from agent.runtime.operate.protocol import FunctionInfo
from agent.runtime.program import Group, Program, build
from drivers.errors import NotConnectedError
from drivers.interface import DevicePoint, Driver, PollResult
from safety.values import Command, Quality, Reason, WriteResult

SITE = """\
site: rig
include: [zones/*.yaml]
devices:
  ahu1: {poll: 1s, modbus: {host: 127.0.0.1, port: 1502}}
  ahu2: {poll: 1s, modbus: {host: 127.0.0.1, port: 1503}}
"""

EAST = """\
zone: east
function: site_functions:control
scan: 5s
points:
  temp: {device: ahu1, modbus: {input: 0, type: f32}, unit: Cel, range: [-10, 50], stale_after: 30s}
  setpoint: {device: ahu2, modbus: {holding: 10, type: f32}, unit: Cel, range: [10, 30], stale_after: 30s}
  heating: {device: ahu1, modbus: {holding: 0, type: f32}, unit: "%", range: [0, 100], writable: true}
  fan: {device: ahu1, modbus: {holding: 2, type: f32}, unit: "1", range: [0, 1], writable: true}
outputs:
  heating: {limits: [0, 100], fail_safe: 5}
  fan: {limits: [0, 1], allowed: [0, 1], fail_safe: off}
interlocks:
  - {name: hot, when: temp > 45 Cel, trip: {heating: 0}}
parameters: {bias: {value: 0.5, range: [-2, 2]}, gain: 10.0}
fallback: {hold: 2}
"""

WEST = EAST.replace("zone: east", "zone: west").replace("input: 0", "input: 20").replace("holding: 10", "holding: 30")
WEST = WEST.replace("holding: 0", "holding: 20").replace("holding: 2,", "holding: 22,").replace("hold: 2", "hold: 0")

WATCHED = """\
zone: cellar
points:
  level: {device: ahu2, modbus: {input: 40, type: f32}, unit: m, range: [0, 5], stale_after: 30s}
  pump: {device: ahu2, modbus: {holding: 40, type: f32}, unit: "1", range: [0, 1], writable: true}
outputs:
  pump: {limits: [0, 1], allowed: [0, 1], fail_safe: off, min_off: 1min}
interlocks:
  - {name: flood, when: level > 2 m, trip: {pump: on}}
"""

ZONES = {"east": EAST, "west": WEST, "cellar": WATCHED}

CONTROL = FunctionInfo(
    "site_functions:control",
    ok=True,
    parameters=("temp", "setpoint", "bias", "gain"),
    fields=("heating", "fan"),
    kind="python",
)


def write_site(folder: Path, zones: Mapping[str, str] = ZONES, site: str = SITE) -> Path:
    """Write the files; returns the site file."""
    (folder / "zones").mkdir(parents=True, exist_ok=True)
    for name, text in zones.items():
        (folder / "zones" / f"{name}.yaml").write_text(text, encoding="utf-8")
    (folder / "site.yaml").write_text(site, encoding="utf-8")
    return folder / "site.yaml"


def site_of(folder: Path, zones: Mapping[str, str] = ZONES, site: str = SITE) -> LoadedSite:
    """The loaded site."""
    return load(write_site(folder, zones, site))


def program_of(folder: Path, zones: Mapping[str, str] = ZONES, *functions: FunctionInfo) -> Program:
    """The program, with ``control`` unless other functions are given."""
    return build(site_of(folder, zones), {info.spec: info for info in functions or (CONTROL,)})


def engine_of(program: Program) -> Engine:
    """An engine on plain Python kernels and private arrays."""
    arrays = private_arrays([*program.private_blocks(), *program.shared_blocks()])
    enforcer = tables.enforcer(program, kernels.load("safety.kernels", "python"))
    return Engine(program, arrays, kernels.load("agent.poet.perceive_kernels", "python"), enforcer)


@dataclass
class Bench:
    """An engine under the test's hand: readings in, outputs out."""

    engine: Engine
    clock: ManualClock = field(default_factory=lambda: ManualClock(1000.0))

    @property
    def program(self) -> Program:
        return self.engine.program

    def read(self, **values: float) -> None:
        """Readings arrive now, good; ``east__temp`` is ``east/temp``. NaN is a bad one."""
        for name, value in values.items():
            at = np.asarray([self.program.point_index[name.replace("__", "/")]])
            bad = value != value
            self.engine.ingest(
                at,
                np.asarray([value]),
                np.asarray([Quality.BAD if bad else Quality.GOOD], np.uint8),
                np.asarray([Reason.DEVICE_ERROR if bad else Reason.OK], np.uint8),
                np.asarray([self.clock.utc()]),
                self.clock.monotonic(),
            )

    def read_all(self, value: float = 20.0) -> None:
        """Every point reads something believable."""
        for row in self.program.points:
            low, high = row.config.range
            self.read(**{row.name.replace("/", "__"): min(max(value, low), high) if row.unit == "Cel" else low})

    def answer(self, group: Group, columns: Any, **fields: float) -> None:
        """What a worker would leave in the image for these columns."""
        arrays = self.engine._arrays
        for name, value in fields.items():
            arrays[f"g{group.index}.out"][group.function.fields.index(name), columns] = value
        arrays[f"g{group.index}.status"][columns] = CallStatus.OK

    def out(self, name: str) -> float:
        """What Enforce lets through."""
        return float(self.engine.enforcer.out[self.program.output_index[name]])

    def state(self, name: str) -> int:
        """The request's state."""
        return int(self.engine.request_state[self.program.output_index[name]])


class MemoryLanes:
    """Workers that compute at once, or when told: ``hold`` keeps the runs."""

    def __init__(self, engine: Engine, function: Callable[..., tuple[float, ...]]) -> None:
        self.engine = engine
        self.function = function
        self.ready = True
        self.hold = False
        self.kept: list[tuple[int, Any, Callable[[Any, bool], None]]] = []

    def run(self, group: int, columns: Any, deadline_s: float, expires_s: float, answer: Any) -> None:
        del deadline_s, expires_s
        if self.hold:
            self.kept.append((group, columns, answer))
        else:
            self.work(group, columns)
            answer(columns, True)

    def work(self, group: int, columns: Any) -> None:
        """Compute into the image."""
        arrays = self.engine._arrays
        for column in columns:
            args = arrays[f"g{group}.args"][:, column]
            arrays[f"g{group}.out"][:, column] = self.function(*args)
            arrays[f"g{group}.status"][column] = CallStatus.OK

    def let_go(self, ok: bool = True) -> None:
        """Answer everything that is kept."""
        kept, self.kept = self.kept, []
        for group, columns, answer in kept:
            if ok:
                self.work(group, columns)
            answer(columns, ok)


class MemoryDriver(Driver):
    """A device that is a dictionary. ``away`` makes it unreachable; ``relinquishes`` gives it that ability."""

    def __init__(self, device: str, points: Any, clock: Any) -> None:
        super().__init__(device, points, clock)
        self.values = {point.name: 0.0 for point in points}
        self.away = False
        self.relinquishes = False
        self.log: list[tuple[str, float | None]] = []
        self.closed = False
        self.fault: Exception | None = None

    def _reach(self) -> None:
        if self.fault is not None:
            raise self.fault
        if self.away:
            raise NotConnectedError(f"{self.device} is away")

    async def connect(self) -> None:
        self._reach()

    async def close(self) -> None:
        self.closed = True

    async def poll(self) -> PollResult:
        await asyncio.sleep(0)
        self._reach()
        value = np.asarray([self.values[point.name] for point in self.points])
        count = len(value)
        return PollResult(
            value,
            np.full(count, Quality.GOOD, np.uint8),
            np.full(count, Reason.OK, np.uint8),
            np.full(count, self.clock.utc()),
        )

    async def write(self, command: Command) -> None:
        self._reach()
        self.log.append((command.point, command.value))
        if command.value is not None:
            self.values[command.point] = command.value

    async def read_back(self, point: str) -> float:
        self._reach()
        return self.values[point]

    def can_relinquish(self, point: str) -> bool:
        del point
        return self.relinquishes


def memory_driver(device: str, names: list[str], clock: Any) -> MemoryDriver:
    """A driver for points that need no address."""
    return MemoryDriver(device, [DevicePoint(name, None, writable=True) for name in names], clock)  # type: ignore[arg-type]


class MemoryTask:
    """A device task that only remembers what it was asked to write."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, float | None]] = []

    def request_write(self, output: int, value: float | None) -> None:
        self.requests.append((output, value))

    def take(self) -> dict[int, float | None]:
        """The last request of each output since the last call."""
        taken, self.requests = dict(self.requests), []
        return taken


class SilentGate:
    """A gate that has seen nothing; the scan loop only asks it about polls."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float]] = []
        self.outcome: Any = None

    def observe(self, point: str, polled: float) -> Any:
        self.seen.append((point, polled))
        return self.outcome


Written = list[tuple[int, WriteResult]]
