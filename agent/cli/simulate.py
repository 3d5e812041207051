"""``poetd simulate SITE``: the same loop on the site's plant, in lock-step."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from agent.cli.output import fail_on_config, json_option, number, print_json, print_table


@click.command()
@click.argument("site", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--days", type=click.FloatRange(min=0.001, max=3660), default=1.0, show_default=True)
@click.option("--start", default="2026-01-12T00:00", show_default=True, help="UTC time at which the plant starts.")
@click.option("--seed", type=int, default=1, show_default=True, help="The plant's random seed: same seed, same run.")
@json_option
def command(site: Path, days: float, start: str, seed: int, as_json: bool) -> None:
    """Simulate SITE for some days and report energy, comfort, starts, trips and violations.

    The site's control functions run in this process. Exit code 1 if a command left its envelope.
    """
    from agent import kernels
    from agent.config.loader import load
    from agent.plants.errors import PlantError
    from agent.plants.load import load_plant
    from agent.poet.errors import PoetError
    from agent.runtime import log
    from agent.runtime.errors import RuntimeFault
    from agent.runtime.lockstep import LockStep
    from agent.runtime.simulation_report import report
    from safety.errors import SafetyError

    log.configure("simulate", "warning")
    with fail_on_config():
        loaded = load(site)
    if loaded.site.plant is None:
        raise click.ClickException(
            f"{site} names no plant: add plant: {{use: models.building:AirHandlerPlant}} or your own module:Class"
        )
    try:
        begin = datetime.fromisoformat(start)
        begin = begin.replace(tzinfo=UTC) if begin.tzinfo is None else begin.astimezone(UTC)
        plant = load_plant(loaded.site.plant.use, loaded.site.plant.options, loaded.search_path)
        mode, _why = kernels.choose_mode(loaded.site.kernels)
        run = LockStep(loaded, plant, mode, seed, begin)
        began = time.perf_counter()
        recording = run.run(days, _progress_bar(as_json))
        wall_s = time.perf_counter() - began
    except (PlantError, PoetError, RuntimeFault, SafetyError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    result = report(run, recording, wall_s)
    print_json(result) if as_json else _show(result)
    sys.exit(1 if result["violations"] else 0)


def _progress_bar(quiet: bool) -> Any:
    """A bar with the time left on a terminal, nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        return lambda _share: None
    began = time.perf_counter()

    def show(share: float) -> None:
        left = (time.perf_counter() - began) * (1.0 - share) / share if share > 0.0 else 0.0
        click.echo(f"\r{share:6.1%}  {left:5.0f} s left" + ("\n" if share >= 1.0 else ""), nl=False, err=True)

    return show


def _show(result: dict[str, Any]) -> None:
    click.echo(
        f"{result['site']}: {result['days']:g} days in {result['wall_s']:.1f} s "
        f"({number(result['zone_days_per_s'], 1)} zone-days/s), {result['trips']} trips, {result['violations']} violations"
    )
    print_table("energy", ["use", "kWh"], [[use, number(kwh)] for use, kwh in result["energy_kwh"].items()])
    print_table(
        "comfort while occupied",
        ["zone", "function", "runs as", "hours", "K·h outside", "hours outside", "mean PPD %"],
        [
            [
                zone["unit"],
                zone["function"],
                zone["runs_as"],
                number(zone["occupied_h"], 1),
                number(zone["discomfort_kelvin_h"]),
                number(zone["hours_outside"], 1),
                number(zone["mean_ppd_percent"], 1),
            ]
            for zone in result["zones"]
        ],
    )
    if result["compressor_starts"]:
        print_table("compressor starts", ["machine", "starts"], list(result["compressor_starts"].items()))
    if result["verdicts"]:
        print_table("why commands were limited", ["verdict", "commands"], list(result["verdicts"].items()))
    if result["learned"]:
        print_table(
            "learned",
            ["hour", "unit", "parameter", "value", "why"],
            [
                [number(row["t_s"] / 3600, 1), row["unit"], row["parameter"], number(row["value"], 3), row["why"]]
                for row in result["learned"]
            ],
        )
