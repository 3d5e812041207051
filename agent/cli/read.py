"""``poetd read SITE [POINT...]``: points straight from their devices, once. Reads only; writes nothing."""

from __future__ import annotations

import asyncio
import fnmatch
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.output import fail_on_config, json_option, number, print_json, print_table

if TYPE_CHECKING:
    from agent.config.loader import LoadedSite


@click.command()
@click.argument("site", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("points", nargs=-1)
@json_option
def command(site: Path, points: tuple[str, ...], as_json: bool) -> None:
    """Read POINTS (unit/point, * allowed; default: all) of SITE from their devices. No agent needs to run."""
    from agent.config.loader import load
    from agent.runtime import log

    log.configure("read", "warning")
    with fail_on_config():
        loaded = load(site)
    wanted = [
        name for name in loaded.points if not points or any(fnmatch.fnmatchcase(name, pattern) for pattern in points)
    ]
    if not wanted:
        raise click.ClickException(f"no point matches {', '.join(points)}; poetd check {site} lists the units")
    rows = asyncio.run(_read(loaded, wanted))
    if as_json:
        print_json({"points": rows})
    else:
        print_table(
            "read once",
            ["point", "value", "unit", "quality", "reason"],
            [[row["point"], number(row["value"], 3), row["unit"], row["quality"], row["reason"]] for row in rows],
        )
    sys.exit(0 if all(row["quality"] != "bad" for row in rows) else 1)


async def _read(loaded: LoadedSite, wanted: list[str]) -> list[dict[str, Any]]:
    """All devices side by side; one that does not answer makes its own points bad."""
    by_device: dict[str, list[str]] = {}
    for name in wanted:
        by_device.setdefault(loaded.points[name][1].device, []).append(name)
    done = await asyncio.gather(*(_read_device(loaded, device, names) for device, names in by_device.items()))
    rows = {row["point"]: row for device_rows in done for row in device_rows}
    return [rows[name] for name in wanted]


async def _read_device(loaded: LoadedSite, device: str, names: list[str]) -> list[dict[str, Any]]:
    import math

    from agent.runtime.clock import SystemClock
    from drivers.errors import DriverError
    from drivers.interface import DevicePoint, PollResult
    from drivers.registry import installed_plugins
    from safety.values import Quality, Reason

    config = loaded.site.devices[device]
    clock = SystemClock()
    points = [DevicePoint(name, loaded.points[name][1].address) for name in names]
    try:
        driver = installed_plugins()[config.protocol].load()(device, config.settings, points, clock)
    except DriverError as error:
        raise click.ClickException(f"device {device}: {error}") from error
    detail = ""
    try:
        await driver.connect()
        result = await driver.poll()
    except DriverError as error:
        detail = str(error)
        result = PollResult.all_bad(len(points), Reason.DEVICE_UNREACHABLE, clock.utc())
    finally:
        await driver.close()
    return [
        {
            "point": name,
            "value": float(result.value[i]) if math.isfinite(result.value[i]) else None,
            "unit": loaded.points[name][1].unit,
            "quality": Quality(int(result.quality[i])).name.lower(),
            "reason": detail or Reason(int(result.reason[i])).name.lower(),
        }
        for i, name in enumerate(names)
    ]
