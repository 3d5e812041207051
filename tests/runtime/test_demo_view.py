"""The demo: what it shows is what the agent says, and its children cannot outlive it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agent.demo.errors import DemoError
from agent.demo.stage import Stage, free_port
from agent.demo.view import Chronicle, Snapshot, line, render, zone_rows


def snapshot(**changes: Any) -> Snapshot:
    """East is warm, its heating limited; the air handler runs."""

    def point(value: float | None, quality: str = "good", reason: str = "ok") -> dict[str, Any]:
        return {"value": value, "quality": quality, "reason": reason}

    points = {
        "east/temp": point(21.25),
        "east/setpoint": point(22.0),
        "east/occupied": point(1.0),
        "air-handler/supply_temp": point(16.0),
        "air-handler/outdoor_temp": point(-3.5),
        "air-handler/building_occupied": point(0.0),
        **changes.pop("points", {}),
    }
    units = [
        {
            "unit": "air-handler",
            "text": "Running",
            "parameters": {},
            "outputs": [{"output": "supply_fan", "commanded": None, "verdict": ["tripped", "fail_safe"]}],
        },
        {
            "unit": "east",
            "text": "Heating",
            "parameters": {"bias": changes.pop("bias", 0.5)},
            "outputs": [{"output": "heating", "commanded": 40.4, "verdict": ["rate_limited", "dead_band"]}],
        },
    ]
    status = {
        "utc": "2026-01-12T06:13:26.000Z",
        "speed": 60.0,
        "scans": 12,
        "missed": 1,
        "limited": 3,
        "writes": 9,
        "units": units,
    }
    trips = changes.pop("trips", [])
    assert not changes
    return Snapshot(status, points, trips, received=42, rate=7.0)


def trip(name: str, *, tripped: bool, status: str = "tripped") -> dict[str, Any]:
    return {"interlock": name, "tripped": tripped, "status": status, "cause": "supply_temp < 5.5 Cel"}


def test_rows_show_temperature_commands_and_verdicts() -> None:
    air, east = zone_rows(snapshot())
    assert (air[0], air[1].plain, air[3].plain, air[5]) == ("air-handler", "16.0", "no", "supply_fan released")
    assert air[6].plain == "fail_safe, tripped" and "bold red" in str(air[6].style)
    assert (east[1].plain, east[2].plain, east[3].plain, east[4]) == ("21.2", "22.0", "yes", "Heating")
    assert (east[5], east[6].plain) == ("heating 40", "rate_limited"), "a dead band is nothing to worry about"


def test_lost_sensor_shows_its_reason_instead_of_a_number() -> None:
    lost = {"east/temp": {"value": None, "quality": "bad", "reason": "stale"}}
    assert zone_rows(snapshot(points=lost))[1][1].plain == "stale"


def test_chronicle_notes_what_changed_once() -> None:
    chronicle = Chronicle()
    assert chronicle.update(snapshot()) == []
    hot = trip("air-handler/freeze", tripped=True)
    startup = trip("east/hot", tripped=True, status="startup")
    lost = {"east/temp": {"value": None, "quality": "bad", "reason": "stale"}}
    assert chronicle.update(snapshot(trips=[hot, startup], points=lost, bias=0.7)) == [
        "06:13:26  TRIP air-handler/freeze: supply_temp < 5.5 Cel",
        "06:13:26  east/temp is bad (stale): its zone goes to fail-safe",
        "06:13:26  learned east/bias: 0.50 -> 0.70",
    ]
    assert chronicle.update(snapshot(trips=[hot], points=lost, bias=0.7)) == []
    cleared = chronicle.update(snapshot(bias=0.7))
    assert cleared == ["06:13:26  cleared air-handler/freeze", "06:13:26  east/temp is good again"]
    assert chronicle.trips == 1


def test_chronicle_is_bounded() -> None:
    chronicle = Chronicle()
    for number in range(300):
        chronicle.update(snapshot(bias=float(number)))
    assert len(chronicle.lines) == 200


def test_screen_and_line_hold_the_essentials() -> None:
    chronicle = Chronicle()
    chronicle.update(snapshot(trips=[trip("air-handler/freeze", tripped=True)]))
    screen = io.StringIO()
    Console(file=screen, width=200).print(render(snapshot(), chronicle, "mosquitto_sub -t x", "12 s left"))
    for word in (
        "east",
        "21.2",
        "Heating",
        "air-handler/freeze",
        "mosquitto_sub -t x",
        "12 s left",
        "-3.5 °C",
        "42 messages",
    ):
        assert word in screen.getvalue()
    assert "trips: air-handler/freeze" in line(snapshot(), chronicle)
    assert "\n" not in line(snapshot(), chronicle)


def test_stage_gives_its_copy_of_the_site_free_ports(tmp_path: Path) -> None:
    with Stage(60.0, datetime(2026, 1, 12, tzinfo=UTC)) as stage:
        stage.broker.port = free_port()
        stage.write_site()
        text = stage.site.read_text()
        assert str(stage.plant_port) in text and str(stage.broker.port) in text
        assert "15020" not in text and "18830" not in text
        folder = stage.site.parent.parent
    assert not folder.exists(), "nothing is left behind"


def test_agent_that_ends_at_once_is_reported_with_its_last_words() -> None:
    with Stage(60.0, datetime(2026, 1, 12, tzinfo=UTC)) as stage:
        stage.site.parent.mkdir()
        stage.site.write_text("site: [\n")
        with pytest.raises(DemoError, match="the agent ended with exit code 78"):
            stage.start_agent(0.0)
        assert not stage.agent_running
        with pytest.raises(DemoError, match="the plant server ended with exit code"):
            stage.start_plant()


@pytest.mark.timeout(240)
def test_whole_demo_runs_reports_and_leaves_nothing_running() -> None:
    """The first start on a machine compiles the plant, hence the patience."""
    done = subprocess.run(
        [sys.executable, "-m", "agent", "demo", "--seconds", "3", "--json"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["every_point_given_back"] is True
    assert summary["scans"] > 0 and summary["polls"] > 0 and summary["writes"] > 0 and summary["published"] > 0


@pytest.mark.timeout(240)
def test_killed_demo_takes_its_children_along(tmp_path_factory: pytest.TempPathFactory) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "agent", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path_factory.mktemp("d"))},
    )
    assert demo.stdout is not None
    for said in demo.stdout:
        if said.startswith("subscribe"):
            break
    children = descendants(demo.pid)
    assert len(children) >= 5, "broker, plant, supervisor, core, operate"
    demo.kill()
    demo.communicate()
    deadline = time.monotonic() + 60.0
    while left := {pid for pid in children if running(pid)}:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def descendants(pid: int) -> set[int]:
    """Every process below ``pid``."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            text = Path(f"/proc/{one}/task/{one}/children").read_text(encoding="ascii")
        except OSError:
            continue
        fresh = {int(child) for child in text.split()} - found
        found |= fresh
        waiting += fresh
    return found


def running(pid: int) -> bool:
    """Whether the process runs; a zombie has ended."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] not in "ZX"
    except (ProcessLookupError, FileNotFoundError):
        return False
