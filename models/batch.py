"""Many air handlers at once: the arrays of the thermal kernel, and a loop that simulates years under a control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models import kernels as k
from models.parameters import AirHandlerParameters, Floats, ZoneParameters, air_handler_row, zone_row

JOULES_PER_KWH = 3.6e6
LONGEST_STEP = 600.0
"""Seconds. The integration is stable beyond, but actuators and compressors would no longer be resolved."""

StepKernel = Callable[..., None]
"""``models.kernels.step``, plain or compiled."""


class AirHandlerBatch:
    """B air handlers with Z zones each. All arrays are public: a control reads ``zone_state`` and writes the commands.

    ``step_kernel`` is ``models.kernels.step`` or a compiled form of it; all forms give the same bits.
    """

    def __init__(
        self,
        handlers: Sequence[AirHandlerParameters],
        zones: Sequence[ZoneParameters],
        step_kernel: StepKernel = k.step,
    ) -> None:
        """``zones`` has Z zones for each handler, in order. Raises ValueError if they cannot be shared out evenly."""
        if not handlers or not zones or len(zones) % len(handlers):
            raise ValueError(f"{len(zones)} zones cannot be shared evenly among {len(handlers)} air handlers")
        count, rows = len(handlers), len(zones)
        self.zones_each = rows // count
        self.step_kernel = step_kernel
        self.parameter: Floats = np.array([air_handler_row(handler) for handler in handlers])
        self.zone_parameter: Floats = np.array([zone_row(zone) for zone in zones])
        self.command: Floats = np.zeros((count, k.AIR_HANDLER_COMMANDS))
        self.zone_command: Floats = np.zeros((rows, k.ZONE_COMMANDS))
        self.state: Floats = np.zeros((count, k.AIR_HANDLER_STATES))
        self.zone_state: Floats = np.zeros((rows, k.ZONE_STATES))
        self.output: Floats = np.zeros((count, k.AIR_HANDLER_OUTPUTS))
        self.zone_flow: Floats = np.zeros((rows, k.ZONE_FLOWS))

    def reset(self, weather: Floats, air: float = 19.0) -> None:
        """Everything off, zones at ``air`` °C, envelopes in balance with the weather, tanks at their targets.

        ``weather``: (B, WEATHER_COLUMNS).
        """
        outdoor = weather[:, k.W_OUTDOOR]
        self.command[:] = 0.0
        self.zone_command[:] = 0.0
        self.state[:] = 0.0
        self.output[:] = 0.0
        self.zone_flow[:] = 0.0
        self.zone_state[:] = 0.0
        self.zone_state[:, k.S_AIR] = air
        self.zone_state[:, k.S_MASS] = air
        self.zone_state[:, k.S_CO2] = k.OUTDOOR_CO2
        inside = self.zone_parameter[:, k.Z_HAE]
        outside = self.zone_parameter[:, k.Z_HEO]
        share = np.divide(outside, inside + outside, out=np.zeros_like(inside), where=inside + outside > 0.0)
        self.zone_state[:, k.S_ENVELOPE] = air + share * (np.repeat(outdoor, self.zones_each) - air)
        self.state[:, k.H_COIL] = air
        slope = self.parameter[:, k.A_HOT_SLOPE] * np.maximum(20.0 - outdoor, 0.0)
        self.state[:, k.H_HOT] = np.minimum(self.parameter[:, k.A_HOT] + slope, k.HOT_LIMIT)
        self.state[:, k.H_COLD] = self.parameter[:, k.A_COLD]
        self.output[:, k.O_RETURN] = air
        self.output[:, k.O_MIXED] = air

    def step(self, dt: float, weather: Floats, use: Floats) -> None:
        """Advance by ``dt`` seconds. ``weather``: (B, WEATHER_COLUMNS); ``use``: (B·Z,). One kernel call."""
        self.step_kernel(
            dt,
            weather,
            use,
            self.zone_parameter,
            self.zone_command,
            self.zone_state,
            self.zone_flow,
            self.parameter,
            self.command,
            self.state,
            self.output,
        )

    @property
    def energy_kwh(self) -> dict[str, Floats]:
        """Electricity since the reset by use: heating, cooling, fans; each of shape (B,)."""
        columns = {"heating": k.H_E_HEAT, "cooling": k.H_E_COOL, "fans": k.H_E_FANS}
        return {use: self.state[:, column] / JOULES_PER_KWH for use, column in columns.items()}

    @property
    def starts(self) -> dict[str, Floats]:
        """Compressor starts since the reset by machine, each of shape (B,)."""
        return {"heat_pump": self.state[:, k.H_PUMP_STARTS].copy(), "chiller": self.state[:, k.H_CHILLER_STARTS].copy()}


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What a simulated period cost. Shapes (B,) by use or machine, and (B·Z,) by zone."""

    hours: float
    energy_kwh: dict[str, Floats]
    starts: dict[str, Floats]
    discomfort_k_h: Floats
    """Kelvin-hours outside the comfort band while occupied."""
    stuffy_h: Floats
    """Occupied hours above the CO2 limit."""


@dataclass(frozen=True, slots=True)
class Comfort:
    """What counts as discomfort: the band of the operative temperature in °C and the CO2 limit in ppm."""

    low: float = 20.0
    high: float = 26.0
    co2: float = 1200.0


OFFICE = Comfort()


def simulate(
    batch: AirHandlerBatch,
    control: Callable[[float, Floats, Floats], None],
    weather: Floats,
    use: Floats,
    dt: float,
    judge: Callable[..., None],
    comfort: Comfort = OFFICE,
    air: float = 19.0,
) -> BatchResult:
    """Simulate every air handler over the whole weather under a control, which is called once per step for all of them.

    Args:
        batch: reset at the beginning.
        control: ``control(dt, weather, use)`` reads the batch's states and writes its commands.
        weather: (steps, B, WEATHER_COLUMNS).
        use: (steps, B·Z).
        dt: seconds per step, 0 < dt ≤ ``LONGEST_STEP``.
        judge: ``models.control_kernels.judge``, plain or compiled.
        comfort: the band.
        air: temperature the zones begin with, °C.

    Raises:
        ValueError: dt or a shape is wrong.
    """
    steps, rows = weather.shape[0], batch.zone_state.shape[0]
    if not 0.0 < dt <= LONGEST_STEP:
        raise ValueError(f"dt is {dt:g} s: use a step above 0 and at most {LONGEST_STEP:g} s")
    if weather.shape[1:] != (batch.state.shape[0], k.WEATHER_COLUMNS) or use.shape != (steps, rows):
        handlers = batch.state.shape[0]
        raise ValueError(
            f"weather {weather.shape} and use {use.shape} do not fit {handlers} air handlers, {rows} zones"
        )
    batch.reset(weather[0], air)
    tally: npt.NDArray[np.float64] = np.zeros((rows, 2))
    for now in range(steps):
        control(dt, weather[now], use[now])
        batch.step(dt, weather[now], use[now])
        judge(dt, use[now], batch.zone_state, comfort.low, comfort.high, comfort.co2, tally)
    return BatchResult(steps * dt / 3600.0, batch.energy_kwh, batch.starts, tally[:, 0].copy(), tally[:, 1].copy())
