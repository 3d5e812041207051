"""The dry proof test: finds readings by itself, passes what keeps its promise, and says what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from agent.cli import main
from agent.config import load
from agent.proof.drive import Proof, prove
from agent.proof.inputs import around, search
from agent.proof.report import as_html, prove_site
from safety import kernels
from safety.envelope import Envelope
from safety.expressions import compile_condition
from safety.interlocks import Interlock

OUTPUTS = (Envelope("u/fan", 0.0, 1.0, 0.0, min_off_s=60.0), Envelope("u/valve", 0.0, 100.0, None))
UNITS = {"u/temp": "Cel", "u/other_temp": "[degF]", "u/static": "Pa", "u/running": "1", "u/mode": "1"}
RANGES = {
    "u/temp": (-40.0, 80.0),
    "u/other_temp": (-40.0, 180.0),
    "u/static": (0.0, 2500.0),
    "u/running": (0.0, 1.0),
    "u/mode": (0.0, 5.0),
}


def proof(when: str, **more: object) -> Proof:
    row = Interlock("u/row", when, (("u/fan", 0.0), ("u/valve", None)), "u", **more)  # type: ignore[arg-type]
    return prove(row, OUTPUTS, UNITS, RANGES, 0.1)


@pytest.mark.parametrize(
    "when",
    [
        "static > 750 Pa", "static <= 100", "100 < static < 750", "not (static < 2 kPa or running)", "running", "not running",
        "temp > other_temp", "mode == 3", "mode != 3", "temp < 4.4 and running and static > 100", "other_temp < 35.1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("manual", [False, True])
@pytest.mark.parametrize(
    ("delay", "clear_delay"), [(0.0, 0.0), (0.05, 0.15), (30.0, 0.0), (0.0, 3600.0), (300.0, 86_400.0)]
)
def test_a_row_that_keeps_its_promise_passes(when: str, manual: bool, delay: float, clear_delay: float) -> None:
    done = proof(when, manual=manual, delay_s=delay, clear_delay_s=clear_delay)
    assert done.passed, done.steps
    names = [step.name for step in done.steps]
    assert names[:4] == ["clear", "trip", "hold", "clearing"]
    assert ("reset" in names) is manual
    assert sum(name.startswith("bad ") for name in names) >= 1
    trip = done.steps[1]
    assert trip.after_s is not None and delay <= trip.after_s + 1e-9 <= delay + 0.3


def test_what_is_injected_is_just_past_the_threshold() -> None:
    assert proof("static > 750 Pa").injected == {"u/static": 752.5}
    assert proof("temp < 4.4 and not running").injected == {"u/temp": pytest.approx(4.28), "u/running": 0.0}


@pytest.mark.parametrize(
    ("when", "clear_when", "says"),
    [
        ("temp > 90 Cel", None, "the row trips"),
        ("static >= 0 Pa", None, "the row clears"),
        ("temp > 20", "temp > 30", "the row clears"),
        ("running and not running", None, "the row trips"),
    ],
)
def test_a_row_that_can_never_trip_or_never_clear_fails(when: str, clear_when: str | None, says: str) -> None:
    done = proof(when, clear_when=clear_when)
    assert not done.passed
    (step,) = done.steps
    assert step.detail.endswith(says)


def test_a_row_that_trips_too_early_or_forces_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safety.kernels.TRIP_DELAY", kernels.CLEAR_DELAY)
    done = proof("static > 750", delay_s=30.0)
    assert not done.passed
    assert "trip" in [step.name for step in done.steps if not step.passed]


@given(
    limits=st.lists(st.floats(-30.0, 70.0), min_size=1, max_size=3),
    signs=st.lists(st.sampled_from("<>"), min_size=3, max_size=3),
)
def test_whatever_is_found_is_inside_the_ranges_and_what_was_wanted(limits: list[float], signs: list[str]) -> None:
    text = " or ".join(f"temp {sign} {limit}" for sign, limit in zip(signs, limits, strict=False))
    condition = compile_condition(text, UNITS, "u")
    candidates = around([condition], RANGES)
    assert all(-40.0 <= value <= 80.0 for value in candidates["u/temp"])
    found = search(candidates, lambda readings: readings["u/temp"] < limits[0])
    assert found is not None and found["u/temp"] < limits[0]
    assert search(candidates, lambda _readings: False) is None


SITE = "site: bench\ninclude: [zones/*.yaml]\ndevices:\n  plc: {poll: 1s, modbus: {host: 192.0.2.1}}\n"
ZONE = """\
zone: hall
points:
  duct_static: {device: plc, modbus: {input: 0, type: f32}, unit: Pa, range: [0, 2500]}
  supply_fan: {device: plc, modbus: {coil: 0}, unit: "1", range: [0, 1], writable: true}
outputs:
  supply_fan: {limits: [0, 1], allowed: [0, 1], fail_safe: off, min_off: 3min}
interlocks:
  - {use: hvac.duct_static_high}
  - {name: never, when: duct_static > 2500 Pa, trip: {supply_fan: off}}
"""


def written(folder: Path, zone: str) -> Path:
    (folder / "zones").mkdir()
    (folder / "zones" / "hall.yaml").write_text(zone, encoding="utf-8")
    (folder / "site.yaml").write_text(SITE, encoding="utf-8")
    return folder / "site.yaml"


def test_the_command_reports_every_row_and_fails_if_one_does(tmp_path: Path) -> None:
    site, page = written(tmp_path, ZONE), tmp_path / "report.html"
    result = CliRunner().invoke(main, ["interlock", "test", str(site), "--json", "--html", str(page)])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert [(row["interlock"], row["passed"]) for row in report["interlocks"]] == [
        ("hall/duct_static_high", True),
        ("hall/never", False),
    ]
    assert not report["passed"]
    assert "FAILED" in page.read_text(encoding="utf-8")
    table = CliRunner().invoke(main, ["interlock", "test", str(site)])
    assert "2 interlocks, 1 failed" in table.stdout


def test_a_site_whose_rows_all_pass(tmp_path: Path) -> None:
    site = written(tmp_path, "\n".join(ZONE.splitlines()[:-1]) + "\n")
    result = CliRunner().invoke(main, ["interlock", "test", str(site)])
    assert result.exit_code == 0, result.output
    proofs = prove_site(load(site))
    assert [step.name for step in proofs[0].steps] == [
        "clear",
        "trip",
        "hold",
        "clearing",
        "reset",
        "bad hall/duct_static",
    ]
    assert "FAILED" not in as_html("bench", "now", proofs)


def test_nothing_in_a_report_can_be_read_as_markup() -> None:
    done = Proof("u/<b>", "a < 1", {}, proof("running").steps)
    assert "<b>" not in as_html("<script>", "", [done])
    assert "<script>" not in as_html("<script>", "", [done])


def test_a_site_with_mistakes_is_not_tested(tmp_path: Path) -> None:
    site = written(tmp_path, ZONE.replace("unit: Pa", "unit: Cel"))
    assert CliRunner().invoke(main, ["interlock", "test", str(site)]).exit_code == 78


def test_the_demo_passes() -> None:
    site = Path(__file__).parents[2] / "configs" / "demo" / "site.yaml"
    assert all(one.passed for one in prove_site(load(site, functions=False)))
