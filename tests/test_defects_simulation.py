"""Regression tests for the first implementation's defects 7 and 8, as far as this code has what they were about.

Defect 7: the simulation models existed in no code, the demo printed "25 % savings" from a constant, and its closed loop used 66 % more
energy than the building's own control in mild weather.
Defect 8: a checksum that could never verify refused every import, nothing was signed, and names such as ``importance`` and ``profile`` were
rejected because they contain "import" and "file". There are no parameter packages here yet; what is stored and what names may be is tested.
"""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import agent
from agent.config.loader import load
from agent.config.unit import UnitConfig
from agent.plants.load import load_plant
from agent.runtime.lockstep import LockStep
from agent.runtime.simulation_report import report
from agent.train.messages import Proposal
from agent.train.parameters import ParameterSet
from agent.train.store import LearningStore

DEMO = Path(agent.__file__).resolve().parent.parent / "configs" / "demo"
SPRING = datetime(2026, 4, 20, tzinfo=UTC)
OURS, FIXED = "building_management.zone_temperature", "site_functions:control_hvac_zone"


def simulate(folder: Path, function: str, days: float = 1.0, meter: float = 1.0) -> dict[str, Any]:
    """The demo building in mild spring weather with one function in every zone; ``meter`` scales what the plant's meters count."""
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (folder / "zones").glob("*.yaml"):
        text = re.sub(r"^function: .*$", f"function: {function}", file.read_text(), flags=re.M)
        file.write_text(re.sub(r"^(?:parameters|train):.*?(?=^\S|\Z)", "", text, flags=re.M | re.S))
    site = folder / "site.yaml"
    site.write_text(site.read_text().replace("scenario: winter_morning", "climate: mild"))
    loaded = load(site)
    assert loaded.site.plant is not None
    plant = load_plant(loaded.site.plant.use, loaded.site.plant.options)
    if meter != 1.0:
        step = plant.step
        counters = list(plant.meters.values())  # type: ignore[attr-defined]
        plant.step = lambda commands, dt: {  # type: ignore[method-assign]
            name: value * meter if name in counters else value for name, value in step(commands, dt).items()
        }
    run = LockStep(loaded, plant, "python", 1, SPRING)
    return report(run, run.run(days), 1.0)


def test_defect_7_the_closed_loop_does_not_use_more_energy_in_mild_weather(tmp_path: Path) -> None:
    ours, fixed = simulate(tmp_path / "ours", OURS), simulate(tmp_path / "fixed", FIXED)
    assert fixed["energy_kwh"]["total"] > 0.5
    assert ours["energy_kwh"]["total"] <= fixed["energy_kwh"]["total"]
    assert sum(zone["discomfort_kelvin_h"] for zone in ours["zones"]) < 0.5 * sum(
        zone["occupied_h"] for zone in ours["zones"]
    )


def test_defect_7_every_figure_comes_from_the_plant(tmp_path: Path) -> None:
    """A plant whose meters count threefold is reported threefold: no figure is written into the report."""
    once = simulate(tmp_path / "once", FIXED, days=0.25)["energy_kwh"]
    threefold = simulate(tmp_path / "threefold", FIXED, days=0.25, meter=3.0)["energy_kwh"]
    assert once["total"] > 0.1
    assert threefold == pytest.approx({use: 3.0 * kwh for use, kwh in once.items()}, rel=1e-6)


def test_defect_8_what_was_stored_is_accepted_when_it_is_read_back(tmp_path: Path) -> None:
    unit = parameters_of("setback")
    with LearningStore(tmp_path / "learning.db") as store:
        learned = store.propose("east", "setback", 4.0, factory=3.0, reason="a reason", utc=1e9, standard_error=None)
        store.activate("east", "setback", learned.version)
    restarted = ParameterSet([unit])
    assert restarted.load(tmp_path / "learning.db") == []
    assert restarted.value("east", "setback") == 4.0


def test_defect_8_what_was_tampered_with_is_not(tmp_path: Path) -> None:
    path = tmp_path / "learning.db"
    with LearningStore(path) as store:
        learned = store.propose("east", "setback", 4.0, factory=3.0, reason="a reason", utc=1e9, standard_error=None)
        store.activate("east", "setback", learned.version)
    data = bytearray(path.read_bytes())
    data[100:400] = b"\xff" * 300
    path.write_bytes(data)
    restarted = ParameterSet([parameters_of("setback")])
    (told,) = restarted.load(path)
    assert "factory values are in force" in told
    assert restarted.value("east", "setback") == 3.0


@pytest.mark.parametrize("name", ["importance", "profile", "reimport", "file_level", "execution_rate", "evaluation"])
def test_defect_8_a_name_is_only_a_name(name: str) -> None:
    parameters = ParameterSet([parameters_of(name)])
    answer = parameters.apply(Proposal("east", name, 3.5, 1, "a reason", None), 0.0)
    assert answer.applied
    assert parameters.value("east", name) == 3.5


def parameters_of(name: str) -> UnitConfig:
    return UnitConfig.model_validate(
        {
            "zone": "east",
            "parameters": {name: {"value": 3.0, "range": [1.0, 8.0], "max_step": 1.0}},
            "train": {"ewma": {"parameter": name, "feedback": "y", "target": 17.0, "gain": 2.0, "window": "1min"}},
        }
    )
