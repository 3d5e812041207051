"""The demo's live view: a table on a terminal, lines elsewhere. Pure functions of what the agent says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

QUALITY_STYLE = {"good": "green", "uncertain": "yellow", "bad": "bold red"}
NOTABLE = 8
"""Happenings shown below the table."""


@dataclass
class Snapshot:
    """One look at the running agent."""

    status: dict[str, Any]
    points: dict[str, dict[str, Any]]
    trips: list[dict[str, Any]]
    received: int
    rate: float


@dataclass
class Chronicle:
    """What has happened: the changes between one snapshot and the next, in words."""

    lines: list[str] = field(default_factory=list)
    tripped: set[str] = field(default_factory=set)
    trips: int = 0
    bad: set[str] = field(default_factory=set)
    learned: dict[str, float] = field(default_factory=dict)

    def update(self, shot: Snapshot) -> list[str]:
        """Note what changed; returns the new lines."""
        clock = shot.status["utc"][11:19]
        fresh: list[str] = []
        tripped = {row["interlock"] for row in shot.trips if row["tripped"] and row["status"] != "startup"}
        causes = {row["interlock"]: row["cause"] for row in shot.trips}
        for name in sorted(tripped - self.tripped):
            self.trips += 1
            fresh.append(f"{clock}  TRIP {name}: {causes[name]}")
        fresh += [f"{clock}  cleared {name}" for name in sorted(self.tripped - tripped)]
        self.tripped = tripped
        bad = {name for name, point in shot.points.items() if point["quality"] == "bad"}
        fresh += [
            f"{clock}  {name} is bad ({shot.points[name]['reason']}): its zone goes to fail-safe"
            for name in sorted(bad - self.bad)
        ]
        fresh += [f"{clock}  {name} is good again" for name in sorted(self.bad - bad)]
        self.bad = bad
        for unit in shot.status["units"]:
            for name, value in unit["parameters"].items():
                key = f"{unit['unit']}/{name}"
                if key in self.learned and self.learned[key] != value:
                    fresh.append(f"{clock}  learned {key}: {self.learned[key]:.2f} -> {value:.2f}")
                self.learned[key] = value
        self.lines = (self.lines + fresh)[-200:]
        return fresh


def _value(points: dict[str, dict[str, Any]], name: str, digits: int = 1) -> Text:
    point = points.get(name)
    if point is None or point["value"] is None:
        return Text("–" if point is None else point["reason"], style="red")
    return Text(f"{point['value']:.{digits}f}", style=QUALITY_STYLE[point["quality"]])


def zone_rows(shot: Snapshot) -> list[tuple[str, Text, Text, Text, str, str, Text]]:
    """Per unit: name, temperature, set-point, occupied, what the function says, outputs, verdicts."""
    rows = []
    for unit in shot.status["units"]:
        name = unit["unit"]
        air_handler = f"{name}/supply_temp" in shot.points
        temperature = _value(shot.points, f"{name}/supply_temp" if air_handler else f"{name}/temp")
        setpoint = Text("16.0") if air_handler else _value(shot.points, f"{name}/setpoint")
        occupied = shot.points.get(f"{name}/building_occupied" if air_handler else f"{name}/occupied")
        people = "–" if occupied is None or occupied["value"] is None else ("yes" if occupied["value"] > 0.5 else "no")
        outputs = "  ".join(
            f"{output['output']} {'released' if output['commanded'] is None else format(output['commanded'], '.0f')}"
            for output in unit["outputs"]
        )
        verdicts = sorted(
            {verdict for output in unit["outputs"] for verdict in output["verdict"] if verdict != "dead_band"}
        )
        serious = {"tripped", "fail_safe", "input_bad", "deadline_missed", "function_failed"}
        style = "bold red" if serious & set(verdicts) else "yellow"
        rows.append(
            (name, temperature, setpoint, Text(people), unit["text"], outputs, Text(", ".join(verdicts), style=style))
        )
    return rows


def render(shot: Snapshot, chronicle: Chronicle, subscribe: str, left: str) -> RenderableType:
    """The whole screen."""
    status = shot.status
    table = Table(expand=True)
    for column in ("unit", "°C", "set", "people", "the function says", "commands", "verdicts"):
        table.add_column(column)
    for name, temperature, setpoint, people, text, outputs, verdicts in zone_rows(shot):
        table.add_row(name, temperature, setpoint, people, text, outputs, verdicts)
    tripped = ", ".join(sorted(chronicle.tripped)) or "none"
    outdoor = shot.points.get("air-handler/outdoor_temp", {}).get("value")
    facts = Text.assemble(
        f"plant time {status['utc'][:19].replace('T', ' ')} ({status['speed']:.0f}x)   outdoors {outdoor or 0.0:.1f} °C   ",
        ("trips: ", "bold"),
        (tripped, "bold red" if chronicle.tripped else "green"),
        f"\nscans {status['scans']} (missed {status['missed']})   limited {status['limited']}   writes {status['writes']}   "
        f"telemetry {shot.received} messages, {shot.rate:.0f}/s   {left}",
    )
    happenings = Text("\n".join(chronicle.lines[-NOTABLE:]) or "nothing yet")
    return Group(
        facts,
        table,
        Panel(happenings, title="what happened", title_align="left"),
        Text.assemble(("subscribe:  ", "bold"), subscribe),
        Text("Ctrl-C stops; every point is given back.", style="dim"),
    )


def line(shot: Snapshot, chronicle: Chronicle) -> str:
    """One line for a log."""
    status = shot.status
    zones = "  ".join(
        f"{row[0]} {row[1].plain}°C" + (f" [{row[6].plain}]" if row[6].plain else "") for row in zone_rows(shot)
    )
    tripped = ", ".join(sorted(chronicle.tripped)) or "none"
    return (
        f"{status['utc'][11:19]}  {zones}  trips: {tripped}  scans {status['scans']}  limited {status['limited']}  "
        f"writes {status['writes']}  telemetry {shot.received} ({shot.rate:.0f}/s)"
    )
