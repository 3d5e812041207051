"""What ``poetd simulate`` reports of a recorded run: energy by use, comfort by zone, starts, trips, violations, learning."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from agent.runtime.lockstep import LockStep, Recording
from agent.runtime.program import point_name
from models.report import discomfort, energy_by_use, starts_by_machine


def report(run: LockStep, recording: Recording, wall_s: float) -> dict[str, Any]:
    """One JSON object. Energies in kWh, discomfort in K·h, PPD in %, times in s."""
    program = run.program
    times = recording.times[: recording.steps]
    values = recording.values[: recording.steps]
    end = run.clock.monotonic()
    counters = {name: np.asarray(series) for name, series in recording.plant_values.items()}
    energy = energy_by_use(counters, getattr(run.plant, "meters", {}))
    zones = []
    for unit in program.units:
        comfort = unit.config.comfort
        if comfort is None:
            continue
        occupied = None
        if comfort.occupied is not None:
            occupied = values[:, program.point_index[point_name(unit.config, comfort.occupied)]]
        temperature = values[:, program.point_index[point_name(unit.config, comfort.temperature)]]
        judged = discomfort(times, temperature, occupied, comfort.low, comfort.high, end)
        zones.append(
            {
                "unit": unit.name,
                "function": unit.config.function,
                "runs_as": run.functions[unit.config.function].kind if unit.config.function else None,
                "occupied_h": judged.occupied_h,
                "discomfort_kelvin_h": judged.kelvin_hours,
                "hours_outside": judged.hours_outside,
                "mean_ppd_percent": judged.mean_ppd if math.isfinite(judged.mean_ppd) else None,
            }
        )
    return {
        "site": program.loaded.site.site,
        "days": end / 86_400.0,
        "wall_s": wall_s,
        "zone_days_per_s": len(zones) * end / 86_400.0 / wall_s if wall_s > 0.0 else None,
        "energy_kwh": {**energy, "total": sum(energy.values())},
        "compressor_starts": starts_by_machine(counters, getattr(run.plant, "starts", {})),
        "zones": zones,
        "trips": recording.trips,
        "violations": recording.violations,
        "limited": recording.limited,
        "verdicts": dict(sorted(recording.verdicts.items())),
        "learned": [
            {"t_s": t, "unit": unit, "parameter": name, "value": value, "why": why}
            for t, unit, name, value, why in recording.learned
        ],
    }
