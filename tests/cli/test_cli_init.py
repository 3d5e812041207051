"""poetd init: the site it writes passes the check, and nothing is ever overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.config import load

FILES = {"site.yaml", "zones/office.yaml", "site_functions.py"}


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_new_site_passes_the_check(tmp_path: Path) -> None:
    folder = tmp_path / "My Site"
    result = CliRunner().invoke(main, ["init", str(folder)])
    assert result.exit_code == 0, result.output
    assert written(folder) == FILES
    checked = CliRunner().invoke(main, ["check", str(folder / "site.yaml")])
    assert checked.exit_code == 0, checked.output
    assert "site my-site\n" in checked.output
    assert f"poetd check {folder / 'site.yaml'}" in result.output


def test_what_was_written_as_json(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["init", str(tmp_path / "site"), "--json"])
    assert set(json.loads(result.output)["wrote"]) == {str(tmp_path / "site" / name) for name in FILES}


def test_every_output_of_the_new_site_has_a_value_to_fail_to(tmp_path: Path) -> None:
    CliRunner().invoke(main, ["init", str(tmp_path)])
    (unit,) = load(tmp_path / "site.yaml").units
    assert unit.outputs.keys() == {"heating_valve", "cooling_valve", "fan_speed"}
    assert all(output.fail_safe is not None for output in unit.outputs.values())


@pytest.mark.parametrize("present", sorted(FILES))
def test_nothing_is_overwritten(tmp_path: Path, present: str) -> None:
    (tmp_path / "zones").mkdir()
    (tmp_path / present).write_text("mine")
    result = CliRunner().invoke(main, ["init", str(tmp_path)])
    assert result.exit_code == 1
    assert present in result.output
    assert written(tmp_path) == {present}
    assert (tmp_path / present).read_text() == "mine"


@pytest.mark.parametrize(("folder", "name"), [("Büro 3", "b-ro-3"), ("---", "site"), ("a" * 80, "a" * 64)])
def test_the_site_is_called_like_its_folder(tmp_path: Path, folder: str, name: str) -> None:
    CliRunner().invoke(main, ["init", str(tmp_path / folder)])
    assert load(tmp_path / folder / "site.yaml").site.site == name
