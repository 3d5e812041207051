"""A small site that is right in every respect, and a way to break one thing in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import ConfigErrors, Problem, load

SITE = """\
site: demo
include: [zones/*.yaml]
devices:
  ahu1: {poll: 1s, modbus: {host: 10.0.0.5}}
  ahu2: {poll: 1s, modbus: {host: 10.0.0.6}}
"""

OFFICE = """\
zone: office
scan: 5s
deadline: 200ms
points:
  temp: {device: ahu1, modbus: {input: 0, type: f32}, unit: Cel, range: [-10, 50], stale_after: 30s}
  setpoint: {device: ahu1, modbus: {holding: 10, type: f32}, unit: Cel, range: [10, 30], fallback: 21}
  occupied: {device: ahu1, modbus: {discrete: 0}, unit: "1", range: [0, 1]}
  heating: {device: ahu1, modbus: {holding: 100, scale: 0.1}, unit: "%", range: [0, 100], writable: true}
  fan: {device: ahu1, modbus: {coil: 3}, unit: "1", range: [0, 1], writable: true}
inputs: {current_temp: temp, occupancy: {point: occupied}, outdoor_temp: lab/outdoor, bonus: 3}
outputs:
  heating: {limits: [0, 100], max_rate: 5/min, fail_safe: 0}
  fan: {fail_safe: off, allowed: [off, on], min_on: 5min}
exclusive: [[heating, fan]]
interlocks:
  - {name: hot, when: temp > 45 Cel, trip: {heating: 0}, latch: manual}
parameters:
  bias: {value: 0, range: [-2, 2]}
train: {mode: on, ewma: {parameter: bias, feedback: temp, target: setpoint, gain: 1.0}}
comfort: {temperature: temp, occupied: occupied}
"""

LAB = """\
tool: lab
points:
  outdoor: {device: ahu2, modbus: {input: 6, type: f32}, unit: Cel, range: [-40, 60]}
"""

Files = dict[str, str]


@pytest.fixture
def files() -> Files:
    """The good site: file name → text. Change it, then ``read`` it."""
    return {"site.yaml": SITE, "zones/lab.yaml": LAB, "zones/office.yaml": OFFICE}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Files], Path]:
    """Writes the files and returns the path of the site file."""

    def writer(files: Files) -> Path:
        for name, text in files.items():
            target = tmp_path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        return tmp_path / "site.yaml"

    return writer


@pytest.fixture
def problems(write: Callable[[Files], Path]) -> Callable[..., tuple[Problem, ...]]:
    """Every problem of a site; none if it is right."""

    def find(files: Files, *, functions: bool = False) -> tuple[Problem, ...]:
        try:
            load(write(files), functions=functions)
        except ConfigErrors as error:
            return error.problems
        return ()

    return find
