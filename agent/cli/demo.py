"""``poetd demo``: watch the agent control a simulated building over real sockets."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from agent.cli.output import print_json

if TYPE_CHECKING:
    from agent.demo.listener import Listener
    from agent.demo.stage import Stage
    from agent.demo.view import Chronicle, Snapshot

START = datetime(2026, 1, 12, 6, 10, tzinfo=UTC)
"""A Monday as people come: occupancy, a lost sensor and a stuck damper follow within the first minute at 60x."""
LOOK_S = 0.5
LINE_S = 3.0


class _Stopped(Exception):
    pass


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise _Stopped


@click.command()
@click.option(
    "--seconds", type=click.FloatRange(min=1.0), envvar="DEMO_SECONDS", help="Stop by itself after this long."
)
@click.option(
    "--speed", type=click.FloatRange(1.0, 600.0), default=60.0, show_default=True, help="Plant seconds per second."
)
@click.option("--json", "as_json", is_flag=True, help="Print only the summary, as JSON.")
def command(seconds: float | None, speed: float, as_json: bool) -> None:
    """Control four zones on one air handler through a winter morning: plant, broker and agent on real sockets."""
    from agent.demo.errors import DemoError
    from agent.demo.stage import Stage

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        with Stage(speed, START) as stage:
            summary = _perform(stage, seconds, as_json)
    except _Stopped:
        click.echo("stopped before it began", err=True)
        sys.exit(130)
    except DemoError as error:
        raise click.ClickException(str(error)) from error
    print_json(summary) if as_json else _show(summary)
    sys.exit(0 if summary["every_point_given_back"] else 1)


def _say(as_json: bool, text: str) -> None:
    if not as_json:
        click.echo(text)


def _perform(stage: Stage, seconds: float | None, as_json: bool) -> dict[str, Any]:
    from agent.demo.listener import Listener
    from agent.demo.view import Chronicle

    _say(as_json, "starting the MQTT broker ...")
    stage.start_broker()
    stage.write_site()
    _say(as_json, f"  127.0.0.1:{stage.broker.port}")
    _say(as_json, "starting the plant (the first start compiles it, that takes a while) ...")
    origin = stage.start_plant()
    _say(as_json, f"  four zones on one air handler, Modbus TCP on 127.0.0.1:{stage.plant_port}")
    _say(as_json, "starting the agent ...")
    listener = Listener(stage.broker.port)
    chronicle, last = Chronicle(), None
    try:
        stage.start_agent(origin)
        for shot in _watch(stage, listener, chronicle, seconds, as_json):
            last = shot
    except _Stopped:
        _say(as_json, "\nstopping: giving every point back ...")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stage.stop_agent()
        listener.stop()
    return _summary(stage, last, chronicle, listener)


def _look(stage: Stage, listener: Listener) -> Snapshot:
    from agent.demo.view import Snapshot
    from agent.runtime.control import ask

    points = {point["point"]: point for point in ask(stage.run_dir, "points")["points"]}
    trips = ask(stage.run_dir, "trips")["interlocks"]
    return Snapshot(ask(stage.run_dir, "status"), points, trips, listener.received, listener.rate)


def _watch(
    stage: Stage, listener: Listener, chronicle: Chronicle, seconds: float | None, as_json: bool
) -> Iterator[Snapshot]:
    """Show what happens until the time is over; a terminal gets a live table, everything else lines."""
    from rich.console import Console
    from rich.live import Live

    from agent.demo.errors import DemoError
    from agent.demo.view import line, render
    from agent.runtime.errors import ControlSocketError

    console = Console()
    live = Live(console=console, auto_refresh=False, screen=False) if console.is_terminal and not as_json else None
    subscribe = f"mosquitto_sub -h 127.0.0.1 -p {stage.broker.port} -t 'poet/v1/demo/#' -v"
    if live is None:
        _say(as_json, f"subscribe:  {subscribe}")
    else:
        live.start()
    began, next_line = time.monotonic(), 0.0
    try:
        while seconds is None or time.monotonic() - began < seconds:
            if not stage.agent_running:
                raise DemoError(f"the agent has ended: {stage.last_log_lines()}")
            try:
                shot = _look(stage, listener)
            except ControlSocketError as error:
                _say(as_json, f"the agent does not answer just now: {error}")
                time.sleep(LOOK_S)
                continue
            fresh = chronicle.update(shot)
            passed = time.monotonic() - began
            if live is not None:
                left = "" if seconds is None else f"{max(seconds - passed, 0):.0f} s left"
                live.update(render(shot, chronicle, subscribe, left), refresh=True)
            else:
                for happening in fresh:
                    _say(as_json, happening)
                if passed >= next_line:
                    _say(as_json, line(shot, chronicle))
                    next_line = passed + LINE_S
            yield shot
            time.sleep(LOOK_S)
    finally:
        if live is not None:
            live.stop()


def _summary(stage: Stage, last: Snapshot | None, chronicle: Chronicle, listener: Listener) -> dict[str, Any]:
    status: dict[str, Any] = {} if last is None else last.status
    return {
        "scans": status.get("scans", 0),
        "missed": status.get("missed", 0),
        "polls": sum(device["polls"] for device in status.get("devices", [])),
        "limited": status.get("limited", 0),
        "writes": status.get("writes", 0),
        "trips": chronicle.trips,
        "published": listener.received,
        "learned": status.get("train", {}).get("applied", 0),
        "every_point_given_back": stage.given_back,
    }


def _show(summary: dict[str, Any]) -> None:
    click.echo(
        f"\nscanned    {summary['scans']} batches from {summary['polls']} polls, {summary['missed']} missed\n"
        f"limited    {summary['limited']} commands, {summary['trips']} interlock trips\n"
        f"written    {summary['writes']} commands, each read back\n"
        f"published  {summary['published']} messages that a subscriber received\n"
        f"learned    {summary['learned']} parameter changes\n"
        f"released   {'every point was given back' if summary['every_point_given_back'] else 'SOME POINTS ARE STILL HELD'}"
    )
