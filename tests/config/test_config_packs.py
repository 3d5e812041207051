"""Interlock packs: found, bound to points, expanded in place; the shipped pack is sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import Problem, load
from agent.config.packs import SHIPPED

Files = dict[str, str]
Find = Callable[..., tuple[Problem, ...]]

PACK = """\
pack: own
interlocks:
  cold:
    - {name: cold, when: supply < 4 Cel and not fan, clear_when: supply > 7 Cel, trip: {valve: 100}, source: me}
  both:
    - {name: one, when: supply < 4 Cel, trip: {valve: 100}}
    - {name: two, when: supply < 1 Cel, trip: {valve: 100}}
"""


@pytest.fixture
def packed(files: Files) -> Files:
    """The good site with a pack of its own."""
    files["interlocks/own.yaml"] = PACK
    return files


def use(files: Files, row: str) -> Files:
    """The office takes one more row, before its own."""
    return {
        **files,
        "zones/office.yaml": files["zones/office.yaml"].replace("interlocks:\n", f"interlocks:\n  - {row}\n"),
    }


def test_roles_become_points_and_outputs(packed: Files, write: Callable[[Files], Path]) -> None:
    site = use(packed, "{use: own.cold, name: coil, bind: {supply: temp, valve: heating, fan: lab/fan}}")
    site["zones/lab.yaml"] += '  fan: {device: ahu2, modbus: {discrete: 6}, unit: "1", range: [0, 1]}\n'
    office = next(unit for unit in load(write(site)).units if unit.name == "office")
    row, own = office.interlock_rows
    assert (row.name, row.when, row.clear_when) == ("coil", "temp < 4 Cel and not lab/fan", "temp > 7 Cel")
    assert (row.trip, row.source) == ({"heating": 100.0}, "me")
    assert own.name == "hot"


def test_a_role_is_the_point_of_the_same_name_unless_bound(packed: Files, write: Callable[[Files], Path]) -> None:
    site = use(packed, "{use: own.cold, bind: {supply: temp, valve: heating}}")
    office = next(unit for unit in load(write(site)).units if unit.name == "office")
    assert office.interlock_rows[0].when == "temp < 4 Cel and not fan"


def test_several_rows_keep_their_names_behind_the_new_one(packed: Files, write: Callable[[Files], Path]) -> None:
    site = use(packed, "{use: own.both, name: coil, bind: {supply: temp, valve: heating}}")
    office = next(unit for unit in load(write(site)).units if unit.name == "office")
    assert [row.name for row in office.interlock_rows] == ["coil_one", "coil_two", "hot"]


def test_a_row_that_does_not_fit_is_reported_at_its_use(packed: Files, problems: Find) -> None:
    (problem,) = problems(use(packed, "{use: own.cold, bind: {supply: occupied, valve: heating}}"))
    assert (problem.line, problem.column) == (16, 11)
    assert problem.message.startswith("interlock cold: Cel measures temperature")


def test_places_after_a_pack_of_several_rows_stay_right(packed: Files, problems: Find) -> None:
    site = use(packed, "{use: own.both, bind: {supply: temp, valve: heating}}")
    site["zones/office.yaml"] = site["zones/office.yaml"].replace("temp > 45", "tmep > 45")
    (problem,) = problems(site)
    assert (problem.line, problem.column) == (17, 23)


@pytest.mark.parametrize(
    ("good", "bad", "where", "message"),
    [
        ("when: supply < 4 Cel and not fan", "when: supply & fan", "4:33", "cannot read '& fan'"),
        ("pack: own", "pack: mine", "1:7", "the pack calls itself 'mine', the file 'own.yaml'"),
        ("source: me", "sorce: me", "4:102", "unknown key 'sorce'"),
        ("trip: {valve: 100}}\n    - {name: two", "trip: {}}\n    - {name: two", "6:47", "trip needs at least 1"),
    ],
)
def test_a_mistake_in_a_pack_is_reported_once_in_the_pack(
    packed: Files, problems: Find, good: str, bad: str, where: str, message: str
) -> None:
    assert good in PACK
    packed["interlocks/own.yaml"] = PACK.replace(good, bad, 1)
    site = use(use(packed, "{use: own.cold}"), "{use: own.both}")
    (problem,) = problems(site)
    assert (problem.file.name, f"{problem.line}:{problem.column}") == ("own.yaml", where)
    assert problem.message.startswith(message)


def test_the_sites_own_pack_goes_before_the_shipped_one(packed: Files, write: Callable[[Files], Path]) -> None:
    packed["interlocks/hvac.yaml"] = PACK.replace("pack: own", "pack: hvac")
    load(write(use(packed, "{use: hvac.cold, bind: {supply: temp, valve: heating}}")))


def test_unexpanded_packs_are_never_taken_for_no_interlocks() -> None:
    from agent.config.unit import UnitConfig

    unit = UnitConfig.model_validate({"zone": "a", "interlocks": [{"use": "hvac.fan_proof"}]})
    with pytest.raises(TypeError, match="not expanded"):
        _ = unit.interlock_rows


def test_the_thresholds_of_freeze_protection_are_those_of_guideline_36() -> None:
    from agent.config.interlock import Pack
    from agent.config.yaml_tree import parse

    hvac = Pack.model_validate(parse((SHIPPED / "hvac.yaml").read_text(encoding="utf-8")))
    stages = {
        row.name: (row.when, row.delay, row.clear_delay, row.latch) for row in hvac.interlocks["freeze_protection"]
    }
    assert stages == {
        "freeze_stage_1": ("supply_temp < 4.4 Cel", 300.0, 300.0, "auto"),
        "freeze_stage_2": ("supply_temp < 3.3 Cel", 300.0, 3600.0, "auto"),
        "freeze_stage_3_long": ("supply_temp < 3.3 Cel", 900.0, 0.0, "manual"),
        "freeze_stage_3_deep": ("supply_temp < 1 Cel", 300.0, 0.0, "manual"),
    }
