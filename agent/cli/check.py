"""poetd check: every error of a site's files, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import click

EXIT_BAD_CONFIGURATION = 78
"""EX_CONFIG of sysexits.h: systemd units do not restart on it."""


@click.command()
@click.argument("site", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option(
    "--no-functions", is_flag=True, help="Do not import the control functions (in a child process) to check them."
)
def command(site: Path, as_json: bool, no_functions: bool) -> None:
    """Check SITE (a site.yaml) and everything it includes.

    Prints every problem as file:line:column, the line, a caret and the fix. Exit code: 0 = no problem, 78 = problems.
    """
    from agent.config import ConfigErrors, load
    from agent.config.errors import render

    base = Path.cwd()
    try:
        loaded = load(site, functions=not no_functions)
    except ConfigErrors as error:
        if as_json:
            click.echo(
                json.dumps({"ok": False, "problems": [problem.as_json(base) for problem in error.problems]}, indent=2)
            )
        else:
            click.echo(render(error.problems, base), err=True)
            count = len(error.problems)
            click.echo(f"{site}: {count} problem{'s' if count != 1 else ''}", err=True)
        raise SystemExit(EXIT_BAD_CONFIGURATION) from None
    summary = {
        "files": len(loaded.files),
        "devices": len(loaded.site.devices),
        "units": len(loaded.units),
        "points": len(loaded.points),
        "outputs": sum(len(unit.outputs) for unit in loaded.units),
        "interlocks": sum(len(unit.interlocks) for unit in loaded.units),
        "functions": len({unit.function for unit in loaded.units if unit.function is not None}),
    }
    if as_json:
        click.echo(json.dumps({"ok": True, "problems": [], "site": loaded.site.site, **summary}, indent=2))
        return
    click.echo(f"site {loaded.site.site}")
    for name, count in summary.items():
        click.echo(f"  {name:<12}{count:>7}")
    click.echo("OK" + (" (functions not checked)" if no_functions and summary["functions"] else ""))
