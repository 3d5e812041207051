"""Commands against a running agent on real equipment: one agent for all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from site_rig import BEFORE_COOLING, BEFORE_HEATING, Site, Zone, site, wait_until

from agent.cli import main

FUNCTIONS = """
from agent.domains.building_management import HVACCommand

def control(temp, mode):
    return HVACCommand(40.0 if temp < 21 else 0.0, 0.0, 20.0, "Heating")
"""
ZONES = [
    Zone(
        "east",
        "control",
        extra="interlocks:\n  - {name: hot, when: temp > 45 Cel, trip: {heating: 0}, latch: manual}\n",
    ),
    Zone("west", "control"),
]


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    with site(ZONES, FUNCTIONS, settings={"kernels": "python"}) as one:
        for zone in ZONES:
            one.set(zone.name, "temp", 19.0)
        one.agent.start()
        one.agent.await_scans()
        for zone in ZONES:
            one.await_outputs(zone.name, 40.0, 0.0)
        yield one


def run(running: Site, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, [*arguments, "--run-dir", str(running.agent.run_dir)])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output


def ask(running: Site, *arguments: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(run(running, *arguments, "--json"))
    return content


def test_status_shows_devices_and_units(running: Site) -> None:
    status = ask(running, "status")
    assert (status["site"], status["kernels"]) == ("faults", "python")
    assert status["scans"] > 0 and status["operate"]["ready"]
    (device,) = status["devices"]
    assert (device["device"], device["state"]) == ("plc", "online")
    assert device["polls"] > 0 and device["writes"] >= 4
    east = status["units"][0]
    assert (east["unit"], east["runs_as"], east["text"]) == ("east", "python", "Heating")
    heating = next(output for output in east["outputs"] if output["output"] == "heating")
    assert (heating["commanded"], heating["outcome"]) == (40.0, "held")
    text = run(running, "status")
    assert "site faults" in text and "plc" in text and "heating=40" in text


def test_points_show_value_quality_and_age(running: Site) -> None:
    points = {point["point"]: point for point in ask(running, "points")["points"]}
    assert points["west/temp"]["value"] == 19.0 and points["west/temp"]["quality"] == "good"
    assert 0.0 <= points["west/temp"]["age_s"] < 30.0
    assert {point["point"].split("/")[0] for point in ask(running, "points", "west")["points"]} == {"west"}
    assert "west/temp" in run(running, "points", "west")
    assert "no unit is called 'attic'" in run(running, "points", "attic", code=1)


def test_trip_latches_and_is_reset_with_a_name_and_a_reason(running: Site) -> None:
    assert "no interlock is tripped (1 watched)" in run(running, "trips")
    assert "east/hot" in run(running, "trips", "--all")
    running.set("east", "temp", 46.0)
    running.await_outputs("east", 0.0, 0.0)
    tripped = ask(running, "trips")["interlocks"][0]
    assert (tripped["status"], tripped["cause"]) == ("tripped", "temp > 45 Cel")
    by = ("--by", "night shift", "--reason", "cooled down")
    assert "still live" in run(running, "trips", "--reset", "east/hot", *by, code=1)
    running.set("east", "temp", 19.0)
    wait_until("the cause to go", lambda: ask(running, "trips")["interlocks"][0]["status"] == "resettable")
    assert running.outputs("east")[0] == 0.0, "latched"
    assert "outputs follow the next command" in run(running, "trips", "--reset", "east/hot", *by)
    running.await_outputs("east", 40.0, 0.0)
    history = ask(running, "trips", "--history")["history"]
    assert [row["event"] for row in history][:2] == ["reset", "resettable"]
    assert "night shift" in run(running, "trips", "--history")


def test_read_asks_the_equipment_itself(running: Site) -> None:
    result = CliRunner().invoke(main, ["read", str(running.file), "east/*", "--json"])
    assert result.exit_code == 0, result.output
    values = {row["point"]: row["value"] for row in json.loads(result.stdout)["points"]}
    assert values == {"east/temp": 19.0, "east/mode": 0.0, "east/heating": 40.0, "east/cooling": 0.0}


def test_release_by_hand_leaves_a_running_agent_alone(running: Site) -> None:
    result = CliRunner().invoke(main, ["release", "--state-dir", str(running.agent.state_dir)])
    assert result.exit_code == 1 and "stop it first" in result.output
    assert running.outputs("west") == (40.0, 0.0)


def test_second_agent_on_the_same_site_is_refused_and_disturbs_nothing(running: Site) -> None:
    second = running.poetd(
        "run", str(running.file), "--run-dir", str(running.agent.run_dir), "--state-dir", str(running.agent.state_dir)
    )
    assert second.returncode == 1 and "another poetd" in second.stderr
    assert running.outputs("west") == (40.0, 0.0)
    assert ask(running, "status")["operate"]["ready"]


def test_stop_gives_everything_back(running: Site) -> None:
    """Last: the agent of this module ends here."""
    assert running.agent.stop() == 0
    for zone in ZONES:
        assert running.outputs(zone.name) == (BEFORE_HEATING, BEFORE_COOLING)
    assert running.agent.held() == []
