"""Bulk points from CSV: the same points as in YAML, and mistakes at their cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import ConfigErrors, Problem, load

Files = dict[str, str]
Find = Callable[..., tuple[Problem, ...]]

HEADER = "name,device,unit,low,high,modbus.input,modbus.type,stale_after,title\n"


@pytest.fixture
def bulk(files: Files) -> Files:
    """The good site, with a unit whose points stand in a CSV file."""
    files["zones/meters.yaml"] = "tool: meters\npoints_csv: meters.csv\n"
    files["zones/meters.csv"] = (
        HEADER
        + "# a comment, then a blank line\n\n"
        + "power,ahu1,kW,0,500,100,f32,30s,\n"
        + 'starts, ahu1 ,1,0,1e6,102,u32,,"Starts, all"\n'
    )
    return files


def test_points_are_those_of_the_yaml(bulk: Files, write: Callable[[Files], Path]) -> None:
    loaded = load(write(bulk))
    power, starts = loaded.points["meters/power"][1], loaded.points["meters/starts"][1]
    assert (power.device, power.unit, power.range, power.stale_after, power.title) == (
        "ahu1",
        "kW",
        (0.0, 500.0),
        30.0,
        "",
    )
    assert (starts.unit, starts.range, starts.title) == ("1", (0.0, 1e6), "Starts, all")
    assert starts.address.model_dump(include={"input", "type"}) == {"input": 102, "type": "u32"}
    assert write(bulk).parent / "zones/meters.csv" in loaded.files


def test_points_of_both_files_are_one_unit(bulk: Files, write: Callable[[Files], Path]) -> None:
    bulk["zones/meters.yaml"] += (
        "points:\n  gas: {device: ahu1, modbus: {input: 200}, unit: m3, range: [0, 10]}\n"
        "interlocks:\n  - {name: a, when: power > 400 kW and gas > 3 m3, trip: {valve: 0}}\n"
        "outputs: {valve: {limits: [0, 1], fail_safe: 0}}\n"
    )
    bulk["zones/meters.csv"] = bulk["zones/meters.csv"].replace("title\n", "title,writable,modbus.coil\n", 1)
    bulk["zones/meters.csv"] += "valve,ahu1,1,0,1,,,,,true,7\n"
    unit = {unit.name: unit for unit in load(write(bulk)).units}["meters"]
    assert set(unit.points) == {"power", "starts", "gas", "valve"}


@pytest.mark.parametrize(
    ("good", "bad", "where", "message", "fix"),
    [
        ("kW", "kw", "4:12", "unknown unit 'kw'", "write kW"),
        ("power,ahu1", "power,ahu3", "4:7", "there is no device 'ahu3'", "did you mean ahu2?"),
        ("0,500", "500,0", "4:15", "range [500, 0] is empty", "give the lower number first"),
        ("0,500", "0,lots", "4:17", 'range[1] must be a number, not "lots"', "write a number"),
        ("100,f32", "100,f31", "4:25", None, "did you mean f32?"),
        ("power,", "Power,", "4:1", "the name 'Power' has a form that is not allowed", None),
        ("power,", ",", "4:1", "the point has no name", "give it a name of a-z, 0-9 and _"),
        ("starts,", "power,", "5:1", "the point 'power' is given twice in this file", "keep one of them"),
        (
            '"Starts, all"',
            "Starts, all",
            "5:39",
            "10 cells, but only 9 columns",
            "put text that contains a comma in quotes",
        ),
        ('"Starts, all"', '"Starts', "5:1", "not valid CSV: unexpected end of data", None),
        ("modbus.input", "modbus.inptu", "1:27", "unknown column 'modbus.inptu'", "did you mean modbus.input?"),
        (",title", ",title,low", "1:70", "the column 'low' is given twice", "keep one of them"),
        ("name,", "names,", "1:1", "unknown column 'names'", "did you mean name?"),
        (",30s,", ",30,", "4:29", "30 is not a duration", None),
    ],
)
def test_a_mistake_has_the_place_of_its_cell(
    bulk: Files, problems: Find, good: str, bad: str, where: str, message: str | None, fix: str | None
) -> None:
    assert good in bulk["zones/meters.csv"]
    bulk["zones/meters.csv"] = bulk["zones/meters.csv"].replace(good, bad, 1)
    first = problems(bulk)[0]
    assert (first.file.name, f"{first.line}:{first.column}") == ("meters.csv", where)
    assert message is None or first.message == message
    assert fix is None or first.remedy == fix
    assert first.text == bulk["zones/meters.csv"].split("\n")[first.line - 1]


def test_semicolons_are_recognised(bulk: Files, problems: Find) -> None:
    bulk["zones/meters.csv"] = bulk["zones/meters.csv"].replace(",", ";")
    assert problems(bulk)[0].remedy == "separate the columns by commas"


def test_an_empty_file_says_how_to_begin(bulk: Files, problems: Find) -> None:
    bulk["zones/meters.csv"] = "\n# nothing\n"
    (problem,) = problems(bulk)
    assert problem.message == "the file is empty"
    assert problem.remedy.startswith("begin with a line of column names")


def test_a_missing_file_is_reported_where_it_is_named(bulk: Files, problems: Find) -> None:
    bulk["zones/meters.yaml"] = "tool: meters\npoints_csv: gone.csv\n"
    (problem,) = problems(bulk)
    assert (problem.file.name, problem.line, problem.column) == ("meters.yaml", 2, 13)
    assert problem.message == "gone.csv: the file does not exist"


def test_a_point_in_both_files_is_reported_in_the_yaml(bulk: Files, problems: Find) -> None:
    bulk["zones/meters.yaml"] += "points:\n  power: {device: ahu1, modbus: {input: 1}, unit: kW, range: [0, 10]}\n"
    (problem,) = problems(bulk)
    assert (problem.file.name, problem.line, problem.column) == ("meters.yaml", 4, 3)
    assert problem.message == "the point 'power' is in meters.csv too"


def test_a_broken_csv_point_is_not_reported_where_it_is_used(bulk: Files, write: Callable[[Files], Path]) -> None:
    bulk["zones/meters.csv"] = bulk["zones/meters.csv"].replace("0,500", "0,lots")
    bulk["zones/office.yaml"] = bulk["zones/office.yaml"].replace("bonus: 3", "bonus: meters/power")
    with pytest.raises(ConfigErrors) as caught:
        load(write(bulk))
    assert len(caught.value.problems) == 1
