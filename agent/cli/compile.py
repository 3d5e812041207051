"""poetd compile: builds the kernels and the site's control functions ahead of time, and says how each will run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.check import EXIT_BAD_CONFIGURATION

if TYPE_CHECKING:
    from agent.poet.build_ahead import BuildReport


@click.command()
@click.argument("site", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(site: Path | None, as_json: bool) -> None:
    """Build all kernels, and the control functions of SITE (a site.yaml), so that poetd starts in less time and memory.

    Says for each whether it runs compiled ahead (aot), compiled at start (jit) or as plain Python, and why.
    Exit code: 0 = everything can run, 1 = a function cannot be used, 78 = bad configuration.
    """
    from agent.kernels import cache

    folder = cache.write_folder()
    reports = []
    for report in _build(site):
        reports.append(report)
        if not as_json:
            click.echo(
                f"  {report.kind:<7}{report.seconds:6.1f} s  {report.name}" + (f": {report.why}" if report.why else "")
            )
    failed = any(report.kind == "error" for report in reports)
    if as_json:
        click.echo(
            json.dumps(
                {"ok": not failed, "folder": str(folder), "built": [report._asdict() for report in reports]}, indent=2
            )
        )
    else:
        click.echo(f"builds are in {folder}")
    if failed:
        raise SystemExit(1)


def _build(site: Path | None) -> Iterator[BuildReport]:
    """The site is read first: nothing is built for one that is wrong."""
    from agent.config import ConfigErrors, load
    from agent.config.errors import render
    from agent.kernels.modules import KERNEL_MODULES
    from agent.poet.build_ahead import build_function, build_module
    from agent.runtime.operate.probe import first_difference_in_child

    functions: list[str] = []
    search_path: tuple[Path, ...] = ()
    if site is not None:
        try:
            loaded = load(site)
        except ConfigErrors as error:
            click.echo(render(error.problems, Path.cwd()), err=True)
            raise SystemExit(EXIT_BAD_CONFIGURATION) from None
        search_path = loaded.search_path
        functions = sorted({unit.function for unit in loaded.units if unit.function is not None})
    for name in KERNEL_MODULES:
        yield build_module(name)
    for spec in functions:
        yield build_function(spec, search_path, first_difference_in_child)
