"""What a loaded site is: units in order, paths absolute, places that can be looked up later."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import ConfigErrors, load
from agent.config.unit import UnitConfig

Files = dict[str, str]
Write = Callable[[Files], Path]


def test_units_points_and_files_in_order(files: Files, write: Write, tmp_path: Path) -> None:
    files["site.yaml"] += "units:\n  - {zone: hall, scan: 1s}\n"
    loaded = load(write(files))
    assert [unit.name for unit in loaded.units] == ["hall", "lab", "office"]
    assert [unit.name for unit in loaded.site.units] == ["hall"]
    assert list(loaded.points)[:3] == ["lab/outdoor", "office/temp", "office/setpoint"]
    unit, point = loaded.points["office/heating"]
    assert unit.name == "office"
    assert point.writable
    assert loaded.files == tuple(tmp_path / name for name in ("site.yaml", "zones/lab.yaml", "zones/office.yaml"))
    assert loaded.root == tmp_path


def test_off_and_on_are_values_where_values_are_expected(files: Files, write: Write) -> None:
    office = next(unit for unit in load(write(files)).units if unit.name == "office")
    assert office.outputs["fan"].fail_safe == 0.0
    assert office.outputs["fan"].allowed == (0.0, 1.0)
    assert office.train is not None
    assert office.train.mode == "on"


def test_an_input_may_be_a_point_a_binding_or_a_constant(files: Files, write: Write) -> None:
    files["zones/office.yaml"] = files["zones/office.yaml"].replace("bonus: 3", "bonus: 3, enable: on, extra: true")
    inputs = next(unit for unit in load(write(files)).units if unit.name == "office").inputs
    assert inputs["current_temp"] == "temp"
    assert (inputs["bonus"], inputs["enable"], inputs["extra"]) == (3.0, 1.0, 1.0)


def test_paths_are_relative_to_the_site_file(
    files: Files, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files["site.yaml"] += (
        "state_dir: var\nrun_dir: /run/x\npython_path: [., zones]\n"
        "mqtt: {username: me, password_file: secret, tls: {ca_file: ca.pem}}\n"
    )
    monkeypatch.chdir(write(files).parent)
    loaded = load(Path("site.yaml"))
    assert (loaded.site.state_dir, loaded.site.run_dir) == (tmp_path / "var", Path("/run/x"))
    assert loaded.search_path == (tmp_path, tmp_path / "zones")
    assert loaded.site.mqtt is not None
    assert loaded.site.mqtt.password_file == tmp_path / "secret"
    assert loaded.site.mqtt.tls is not None
    assert loaded.site.mqtt.tls.ca_file == tmp_path / "ca.pem"
    assert loaded.site.mqtt.tls.key_file is None


def test_functions_are_looked_for_beside_the_site_file_by_default(files: Files, write: Write, tmp_path: Path) -> None:
    assert load(write(files)).search_path == (tmp_path,)


def test_a_file_that_two_patterns_match_is_read_once(files: Files, write: Write) -> None:
    files["site.yaml"] = files["site.yaml"].replace("[zones/*.yaml]", "[zones/office.yaml, zones/*.yaml]")
    assert [unit.name for unit in load(write(files)).units] == ["office", "lab"]


def test_a_problem_found_later_can_be_reported_at_its_line(files: Files, write: Write) -> None:
    loaded = load(write(files))
    problem = loaded.places["office"].problem(("outputs", "heating", "max_rate"), "too fast", "slow down")
    assert (problem.file.name, problem.line, problem.column) == ("office.yaml", 12, 41)


def test_the_collector_is_paused_and_then_as_before(
    files: Files, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    during: list[bool] = []
    check = UnitConfig.model_validate_json

    def spy(*args: object, **kwargs: object) -> UnitConfig:
        during.append(gc.isenabled())
        return check(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(UnitConfig, "model_validate_json", spy)
    path = write(files)
    assert gc.isenabled()
    load(path)
    assert gc.isenabled()
    assert during == [False, False]
    with pytest.raises(ConfigErrors):
        load(path.parent / "none.yaml")
    assert gc.isenabled()
    gc.disable()
    try:
        load(path)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_loading_never_imports_the_sites_functions(files: Files, write: Write, tmp_path: Path) -> None:
    files["zones/office.yaml"] += "function: site_functions:control\n"
    files["site_functions.py"] = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n"
    load(write(files))
    assert not (tmp_path / "ran").exists()


def test_models_are_frozen(files: Files, write: Write) -> None:
    loaded = load(write(files))
    with pytest.raises(ValueError, match="frozen"):
        loaded.units[0].scan = 1.0
    with pytest.raises(TypeError):
        loaded.points["lab/outdoor"] = loaded.points["office/temp"]  # type: ignore[index]
