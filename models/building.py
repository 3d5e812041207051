"""A simulated air handler with its zones, heat pump and chiller, as a :class:`models.plant.Plant`.

The physics is :mod:`models.kernels`; here are the names, the weather, the people, and what breaks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

import numpy as np

from models import kernels as k
from models.batch import JOULES_PER_KWH, LONGEST_STEP, AirHandlerBatch
from models.occupancy import OfficeHours
from models.parameters import SOLAR_SIDES, AirHandlerParameters, Floats, ZoneParameters, vary
from models.scenarios import SCENARIOS, Fault, Scenario
from models.weather import CLIMATES, Weather
from safety.values import PointSpec

DEFAULT_ZONES = ("north", "east", "south", "west")
MOST_ZONES = 200
DEFAULT_SETPOINT = 21.0
FAN_PROVEN = 0.1
"""Relative fan speed above which the current switch closes."""
BLOCKED_DUCT = 2.5
"""How many times higher the static pressure is with the fire dampers shut."""

_NAME = re.compile(r"^[a-z][a-z0-9_]{0,40}$")

# (name after the zone's, unit, low, high, writable, description)
_ZONE_POINTS = (
    ("temp", "Cel", -30.0, 60.0, False, "air temperature"),
    ("co2", "[ppm]", 0.0, 10_000.0, False, "CO2 of the room air"),
    ("occupied", "1", 0.0, 1.0, False, "someone is present"),
    ("setpoint", "Cel", 10.0, 35.0, True, "temperature the occupants ask for"),
    ("heating", "%", 0.0, 100.0, True, "fan coil's hot-water valve"),
    ("cooling", "%", 0.0, 100.0, True, "fan coil's chilled-water valve"),
    ("fan", "%", 0.0, 100.0, True, "fan coil's fan"),
)
_UNIT_POINTS = (
    ("outdoor_temp", "Cel", -50.0, 60.0, False, "outdoor air"),
    ("supply_temp", "Cel", -50.0, 80.0, False, "air behind the coils"),
    ("return_temp", "Cel", -50.0, 60.0, False, "air from the zones"),
    ("mixed_temp", "Cel", -50.0, 60.0, False, "air before the coils"),
    ("duct_static", "Pa", 0.0, 2500.0, False, "static pressure in the supply duct"),
    ("filter_dp", "Pa", 0.0, 1000.0, False, "pressure drop of the filter"),
    ("fan_status", "1", 0.0, 1.0, False, "current switch of the supply fan"),
    ("freezestat", "1", 0.0, 1.0, False, "low-limit thermostat: 1 = tripped"),
    ("building_occupied", "1", 0.0, 1.0, False, "someone is present in any zone"),
    ("hot_water_temp", "Cel", 0.0, 90.0, False, "heating water"),
    ("chilled_water_temp", "Cel", -5.0, 60.0, False, "chilled water"),
    ("energy_heating", "kW.h", 0.0, 1e9, False, "electricity of the heat pump"),
    ("energy_cooling", "kW.h", 0.0, 1e9, False, "electricity of the chiller"),
    ("energy_fans", "kW.h", 0.0, 1e9, False, "electricity of all fans"),
    ("heat_pump_starts", "1", 0.0, 1e9, False, "starts of the heat pump's compressor"),
    ("chiller_starts", "1", 0.0, 1e9, False, "starts of the chiller's compressor"),
    ("supply_fan", "1", 0.0, 1.0, True, "supply fan on"),
    ("fan_speed", "%", 0.0, 100.0, True, "supply fan's speed"),
    ("oa_damper", "%", 0.0, 100.0, True, "outdoor-air damper"),
    ("heating_valve", "%", 0.0, 100.0, True, "hot-water valve of the air handler"),
    ("cooling_valve", "%", 0.0, 100.0, True, "chilled-water valve of the air handler"),
)
_ZONE_COMMANDS = {"heating": k.C_HEAT, "cooling": k.C_COOL, "fan": k.C_FAN}
_UNIT_COMMANDS = {
    "supply_fan": k.K_FAN,
    "fan_speed": k.K_SPEED,
    "oa_damper": k.K_DAMPER,
    "heating_valve": k.K_HEAT,
    "cooling_valve": k.K_COOL,
}


class AirHandlerPlant:
    """One air handler, N zones with fan coils, a heat pump and a chiller.

    Every zone has ``<zone>_temp``, ``_co2``, ``_occupied`` and the writable ``_setpoint``, ``_heating``,
    ``_cooling``, ``_fan``. A command outside its range is limited to it, and NaN is ignored, as equipment does.
    Nothing moves on its own: without commands fans are off and valves shut. ``fan_status``, ``freezestat`` and the
    like are 0 or 1.
    """

    meters: Mapping[str, str] = MappingProxyType(
        {"heating": "energy_heating", "cooling": "energy_cooling", "fans": "energy_fans"}
    )
    starts: Mapping[str, str] = MappingProxyType({"heat_pump": "heat_pump_starts", "chiller": "chiller_starts"})

    def __init__(
        self,
        zones: int | str | Sequence[str] = DEFAULT_ZONES,
        climate: str = "temperate",
        scenario: str = "none",
        seed: int | None = None,
        spread: float = 0.0,
        air: float = 18.0,
    ) -> None:
        """Build the plant; it can be read after :meth:`reset`.

        Args:
            zones: names, as a sequence or separated by commas; or how many (``zone1``, ``zone2`` …).
            climate: one of ``models.weather.CLIMATES``.
            scenario: one of ``models.scenarios.SCENARIOS``; may bring its own climate.
            seed: if given, used in place of the seed of :meth:`reset`.
            spread: every parameter of every zone is drawn within ± this share of its nominal value.
            air: temperature of the zones at the start, °C.

        Raises:
            ValueError: an unknown climate or scenario, an impossible name, count or spread.
        """
        if climate not in CLIMATES:
            raise ValueError(f"climate {climate!r} is unknown: use one of {', '.join(CLIMATES)}")
        if scenario not in SCENARIOS:
            raise ValueError(f"scenario {scenario!r} is unknown: use one of {', '.join(SCENARIOS)}")
        if not 0.0 <= spread < 1.0:
            raise ValueError(f"spread {spread:g} is not a share: use 0 to below 1")
        self.zones = zone_names(zones)
        self._scenario: Scenario = SCENARIOS[scenario]
        self._climate = self._scenario.climate or climate
        self._seed = seed
        self._spread = spread
        self._air = air
        self._step_kernel: Callable[..., None] = k.step
        self.points: Mapping[str, PointSpec] = MappingProxyType(_point_specs(self.zones))
        self._readings: dict[str, float] = dict.fromkeys(self.points, math.nan)
        self._writable = frozenset(name for name, spec in self.points.items() if spec.writable)

    def use_kernels(self, load: Callable[[str], Any]) -> None:
        """Run on what ``load("models.kernels")`` returns (compiled kernels) from the next reset on; same results."""
        self._step_kernel = load("models.kernels").step

    def reset(self, *, seed: int, start: datetime) -> Mapping[str, float]:
        """Begin again at ``start`` (aware, UTC, read as local time) and return the readings of every point.

        Raises ValueError for a start without a time zone.
        """
        seed = seed if self._seed is None else self._seed
        count = len(self.zones)
        self._weather = Weather(self._climate, seed=seed, start=start)
        self._people = OfficeHours(count, seed=seed, start=start, first_day=self._scenario.arrivals(count))
        self._elapsed = 0.0
        random = np.random.default_rng([seed, 0xB1])
        nominal = ZoneParameters()
        sides = [SOLAR_SIDES[index % len(SOLAR_SIDES)] * nominal.solar_m2 for index in range(count)]
        zones = [vary(replace(nominal, solar_m2=sun), random, self._spread) for sun in sides]
        self.batch = AirHandlerBatch([AirHandlerParameters.for_zones(count)], zones, self._step_kernel)
        self._sky: Floats = self._weather.sample(np.zeros(1))
        self._use: Floats = np.zeros(count)
        self._people.at(0.0, self._use)
        self.batch.reset(self._sky, self._air)
        for name in self._writable:
            self._readings[name] = DEFAULT_SETPOINT if name.endswith("_setpoint") else 0.0
        return self._read()

    def step(self, commands: Mapping[str, float], dt: float) -> Mapping[str, float]:
        """Advance by ``dt`` seconds, 0 < dt ≤ 600, and return every reading; the mapping is the same object every time.

        Raises:
            ValueError: dt is out of range, or a command names a point that cannot be written.
        """
        if not 0.0 < dt <= LONGEST_STEP:
            raise ValueError(f"dt is {dt:g} s: use a step above 0 and at most {LONGEST_STEP:g} s")
        for name, value in commands.items():
            if name not in self._writable:
                raise ValueError(f"{name!r} is not a writable point of this plant")
            if not math.isnan(value):
                spec = self.points[name]
                self._readings[name] = min(max(float(value), spec.low), spec.high)
        for row, zone in enumerate(self.zones):
            for name, column in _ZONE_COMMANDS.items():
                self.batch.zone_command[row, column] = self._readings[f"{zone}_{name}"]
        for name, column in _UNIT_COMMANDS.items():
            self.batch.command[0, column] = self._readings[name]
        self._break(self._elapsed)
        self.batch.step(dt, self._sky, self._use)
        self._elapsed += dt
        self._sky = self._weather.sample(np.array([self._elapsed]))
        self._people.at(self._elapsed, self._use)
        return self._read()

    def _break(self, elapsed: float) -> None:
        for happening in self._scenario.happenings:
            if not happening.active(elapsed):
                continue
            if happening.fault is Fault.DAMPER_OPEN:
                self.batch.command[0, k.K_DAMPER] = 100.0
            elif happening.fault is Fault.FAN_BELT:
                self.batch.command[0, k.K_FAN] = 0.0

    def _read(self) -> Mapping[str, float]:
        readings = self._readings
        for zone, state, present in zip(self.zones, self.batch.zone_state.tolist(), self._use.tolist(), strict=True):
            readings[f"{zone}_temp"] = state[k.S_AIR]
            readings[f"{zone}_co2"] = state[k.S_CO2]
            readings[f"{zone}_occupied"] = present
        state = self.batch.state[0].tolist()
        output = self.batch.output[0].tolist()
        readings["outdoor_temp"] = float(self._sky[0, k.W_OUTDOOR])
        readings["supply_temp"] = state[k.H_COIL]
        readings["return_temp"] = output[k.O_RETURN]
        readings["mixed_temp"] = output[k.O_MIXED]
        readings["duct_static"] = output[k.O_STATIC]
        readings["filter_dp"] = output[k.O_FILTER]
        readings["fan_status"] = 1.0 if state[k.H_FAN] > FAN_PROVEN else 0.0
        readings["freezestat"] = state[k.H_FREEZESTAT]
        readings["building_occupied"] = float(self._use.max())
        readings["hot_water_temp"] = state[k.H_HOT]
        readings["chilled_water_temp"] = state[k.H_COLD]
        readings["energy_heating"] = state[k.H_E_HEAT] / JOULES_PER_KWH
        readings["energy_cooling"] = state[k.H_E_COOL] / JOULES_PER_KWH
        readings["energy_fans"] = state[k.H_E_FANS] / JOULES_PER_KWH
        readings["heat_pump_starts"] = state[k.H_PUMP_STARTS]
        readings["chiller_starts"] = state[k.H_CHILLER_STARTS]
        for happening in self._scenario.happenings:
            if not happening.active(self._elapsed):
                continue
            if happening.fault is Fault.SENSOR_LOST and happening.zone < len(self.zones):
                readings[f"{self.zones[happening.zone]}_{happening.point}"] = math.nan
            elif happening.fault is Fault.DUCT_BLOCKED:
                readings["duct_static"] *= BLOCKED_DUCT
        return readings


def zone_names(zones: int | str | Sequence[str]) -> tuple[str, ...]:
    """Zone names from a count, a comma-separated text or a sequence. Raises ValueError for an impossible name."""
    if isinstance(zones, int):
        names = tuple(f"zone{number + 1}" for number in range(zones))
    elif isinstance(zones, str):
        names = tuple(name.strip() for name in zones.split(","))
    else:
        names = tuple(zones)
    if not 1 <= len(names) <= MOST_ZONES:
        raise ValueError(f"{len(names)} zones: an air handler here has 1 to {MOST_ZONES}")
    if len(set(names)) != len(names):
        raise ValueError(f"two zones have one name: {', '.join(names)}")
    for name in names:
        if not _NAME.match(name):
            raise ValueError(f"zone name {name!r}: use a-z, 0-9 and _, beginning with a letter")
    return names


def _point_specs(zones: Sequence[str]) -> dict[str, PointSpec]:
    specs = [
        PointSpec(f"{zone}_{name}", unit, low, high, writable, f"{zone}: {text}")
        for zone in zones
        for name, unit, low, high, writable, text in _ZONE_POINTS
    ]
    specs += [PointSpec(*row) for row in _UNIT_POINTS]
    return {spec.name: spec for spec in specs}
