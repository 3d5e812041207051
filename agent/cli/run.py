"""``poetd run SITE``: check the site, then hand over to the supervisor (this process becomes it)."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path

import click

from agent.cli.plant import DurationType, MomentType


@click.command()
@click.argument("site", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--for", "run_for", type=DurationType(), help="Stop by itself after this long, such as 10s.")
@click.option(
    "--run-dir", type=click.Path(path_type=Path, file_okay=False), help="Sockets and shared image; default: the site's."
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Journal, latches, buffer; default: the site's.",
)
@click.option(
    "--speed",
    type=click.FloatRange(0.0, 100_000.0, min_open=True),
    help="Run control time this much faster than the wall; only for a plant that does too.",
)
@click.option(
    "--start", type=MomentType(), help="UTC time at which control time starts, with --speed: 2026-01-15T05:30:00Z."
)
@click.option("--origin", type=float, help="The machine's monotonic time at --start, to share one clock with a plant.")
def command(
    site: Path,
    run_for: float | None,
    run_dir: Path | None,
    state_dir: Path | None,
    speed: float | None,
    start: datetime | None,
    origin: float | None,
) -> None:
    """Run the agent on SITE until Ctrl-C or SIGTERM; every point it holds is then given back."""
    from agent.cli.output import fail_on_config
    from agent.config.loader import load
    from agent.runtime.errors import RuntimeFault
    from agent.runtime.folders import prepare

    with fail_on_config():
        loaded = load(site)
    run_dir = run_dir or _from_systemd("RUNTIME_DIRECTORY") or loaded.site.run_dir
    state_dir = state_dir or _from_systemd("STATE_DIRECTORY") or loaded.site.state_dir
    try:
        prepare(run_dir, "run")
        prepare(state_dir, "state")
    except RuntimeFault as error:
        raise click.ClickException(str(error)) from error
    arguments = ["--site", str(site), "--run-dir", str(run_dir), "--state-dir", str(state_dir)]
    given = {
        "--for": None if run_for is None else f"{run_for:.3f}s",
        "--speed": speed,
        "--start": None if start is None else start.isoformat(),
        "--origin": origin,
    }
    for name, value in given.items():
        if value is not None:
            arguments += [name, str(value)]
    train = "train" if any(unit.train is not None for unit in loaded.units) else "no-train"
    sys.stdout.flush()
    sys.stderr.flush()
    program = [sys.executable, "-m", "agent.runtime.supervisor", str(run_dir), str(state_dir), train, *arguments]
    os.execv(sys.executable, program)  # noqa: S606  (no shell; the click process's memory is given back)


def _from_systemd(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value.split(":")[0]) if value else None
