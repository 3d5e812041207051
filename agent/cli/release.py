"""``poetd release``: give back every point the write journal says we hold."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

import click

from agent.cli.output import json_option, print_json, print_table


@click.command()
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/var/lib/poetd"),
    show_default=True,
    envvar="STATE_DIRECTORY",
    help="Where the write journal lies.",
)
@json_option
def command(state_dir: Path, as_json: bool) -> None:
    """Relinquish or restore every point that is still held, for use while the agent is not running."""
    from agent.runtime import log
    from agent.runtime.errors import StateFolderError
    from agent.runtime.lock import taken
    from agent.runtime.release import JOURNAL_FILE, run
    from safety.errors import StoreError

    log.configure("release", "warning")
    try:
        with taken(state_dir) if (state_dir / JOURNAL_FILE).exists() else nullcontext():
            results = run(state_dir)
    except (StoreError, StateFolderError) as error:
        raise click.ClickException(str(error)) from error
    rows = [
        {
            "point": one.held.point,
            "device": one.held.device,
            "way": "relinquish" if one.held.can_relinquish else "restore",
            "value": None if one.held.can_relinquish else one.held.before,
            "given_back": one.given_back,
            "detail": one.detail,
        }
        for one in results
    ]
    if as_json:
        print_json({"released": rows})
    elif not rows:
        click.echo("nothing is held")
    else:
        print_table("released", list(rows[0]), [list(row.values()) for row in rows])
    sys.exit(0 if all(row["given_back"] for row in rows) else 1)
