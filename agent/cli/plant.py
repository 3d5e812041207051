"""``poetd plant serve``: a simulated plant on real Modbus TCP sockets."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from agent.config.loader import LoadedSite
    from agent.plants.serve import Endpoint, PlantServer
    from models.plant import Plant

EXIT_BAD_CONFIGURATION = 78
DEFAULT_STEP_S = 10.0


class DurationType(click.ParamType[float]):
    """``30s``, ``5min``: the durations of the YAML files, as seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from pydantic import TypeAdapter, ValidationError

        from agent.config.scalars import Duration

        try:
            return float(TypeAdapter(Duration).validate_python(value))
        except ValidationError:
            self.fail(f"{value!r} is not a duration: write a number with its unit, such as 30s or 5min", param, ctx)


class MomentType(click.ParamType[datetime]):
    """An ISO 8601 date and time; without an offset it is UTC."""

    name = "moment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not an ISO 8601 time: write it like 2026-01-12T06:00", param, ctx)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@click.group()
def command() -> None:
    """Simulated plants."""


@command.command()
@click.argument("site", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--plant", "use", metavar="MODULE:CLASS", help="A plant from the Python path, instead of the site's.")
@click.option(
    "--option", "options", multiple=True, metavar="NAME=VALUE", help="A keyword argument of the plant's class."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port; 0 = any free one. Default: the site's, else any free one."
)
@click.option("--speed", type=click.FloatRange(0.0, 100_000.0, min_open=True), default=1.0, show_default=True,
              help="Plant seconds per second.")  # fmt: skip
@click.option("--start", type=MomentType(), help="The plant's time at the start, ISO 8601 in UTC. Default: now.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Seed of weather and people.")
@click.option(
    "--for", "duration", type=DurationType(), help="Stop after this long, such as 30s. Default: until Ctrl-C."
)
@click.option(
    "--map", "map_format", type=click.Choice(["table", "json", "yaml"]), help="Print the register map and stop."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line instead of text.")
def serve(
    site: Path | None,
    use: str | None,
    options: Sequence[str],
    host: str,
    port: int | None,
    speed: float,
    start: datetime | None,
    seed: int,
    duration: float | None,
    map_format: str | None,
    as_json: bool,
) -> None:
    """Serve a plant over Modbus TCP.

    With SITE, the points lie where the site's files say. Without, a map is made: every value an f32 in two registers,
    in the plant's order, writable ones in the holding registers and the rest in the input registers, from address 0
    (see --map).
    """
    from agent.plants.errors import PlantError
    from agent.plants.runner import PlantRunner
    from agent.plants.serve import PlantServer, automatic_endpoint, site_endpoints
    from agent.runtime import log
    from drivers.errors import DriverError

    log.configure("plant")
    if site is None and use is None:
        raise click.UsageError("give a site file, or --plant module:Class")
    loaded = _load_site(site) if site is not None else None
    try:
        plant = _plant(loaded, use, dict(_option(text) for text in options))
        endpoints = [automatic_endpoint(plant, port or 0)] if loaded is None else site_endpoints(loaded, plant)
        if port is not None and loaded is not None:
            if len(endpoints) > 1:
                raise click.UsageError("the site's devices are on several ports: leave --port out")
            endpoints[0].port = port
        if map_format is not None:
            _print_map(plant, endpoints, map_format)
            return
        step = loaded.site.plant.step if loaded is not None and loaded.site.plant is not None else DEFAULT_STEP_S
        runner = PlantRunner(plant, seed=seed, start=start or datetime.now(UTC), speed=speed, largest_step=step)
        server = PlantServer(runner, endpoints)
        values = sum(len(served) for endpoint in endpoints for served in endpoint.units.values())
        asyncio.run(_serve(server, host, duration, values, as_json))
    except (PlantError, DriverError) as error:
        raise click.ClickException(str(error)) from error


async def _serve(server: PlantServer, host: str, duration: float | None, values: int, as_json: bool) -> None:
    await server.start(host)
    running = asyncio.ensure_future(server.run(duration))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        for port in server.ports:
            line = {"event": "listening", "host": host, "port": port, "values": values}
            click.echo(json.dumps(line) if as_json else f"listening on {host}:{port} ({values} values)")
        with suppress(asyncio.CancelledError):
            await running
    finally:
        await server.close()
    click.echo(json.dumps({"event": "stopped"}) if as_json else "stopped")


def _load_site(path: Path) -> LoadedSite:
    from agent.config import ConfigErrors, load

    try:
        return load(path)
    except ConfigErrors as errors:
        click.echo(str(errors), err=True)
        raise click.exceptions.Exit(EXIT_BAD_CONFIGURATION) from errors


def _plant(loaded: LoadedSite | None, use: str | None, options: dict[str, float | int | str | bool]) -> Plant:
    from agent.plants.load import load_plant

    configured = loaded.site.plant if loaded is not None else None
    if use is None:
        if configured is None:
            raise click.UsageError("the site names no plant: give --plant module:Class")
        use, options = configured.use, {**configured.options, **options}
    return load_plant(use, options, loaded.search_path if loaded is not None else (Path.cwd(),))


def _option(text: str) -> tuple[str, float | int | str | bool]:
    """``name=value``; numbers, true and false are what they look like, everything else is text."""
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals):
        raise click.UsageError(f"--option {text!r}: write NAME=VALUE")
    if value in ("true", "false"):
        return name, value == "true"
    for number in (int, float):
        with suppress(ValueError):
            return name, number(value)
    return name, value


def _print_map(plant: Plant, endpoints: Sequence[Endpoint], map_format: str) -> None:
    from agent.plants.binding import as_yaml

    served = [value for endpoint in endpoints for values in endpoint.units.values() for value in values]
    if map_format == "yaml":
        click.echo(as_yaml(plant.points, {value.point: value.address for value in served}, "plant"))
        return
    rows = [
        {
            "point": value.point,
            "table": value.address.table,
            "address": value.address.number,
            "type": value.address.type,
            "unit": value.unit,
            "writable": plant.points[value.point].writable and value.address.writable,
            "description": plant.points[value.point].description,
        }
        for value in served
    ]
    if map_format == "json":
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        place = f"{row['table']:8} {row['address']:5}  {row['type']:4} {'rw' if row['writable'] else 'r '}"
        click.echo(f"{place}  {row['point']:24} {row['unit']:6} {row['description']}")
