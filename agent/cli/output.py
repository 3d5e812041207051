"""What commands print: tables for people, JSON for machines, and errors with their remedy."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

CONFIG_EXIT = 78


@contextmanager
def fail_on_config() -> Iterator[None]:
    """Print every configuration problem and exit 78."""
    from agent.config.errors import ConfigErrors

    try:
        yield
    except ConfigErrors as error:
        click.echo(str(error), err=True)
        sys.exit(CONFIG_EXIT)


@contextmanager
def fail_on_agent() -> Iterator[None]:
    """Turn "no agent is running" and refusals into an error line and exit 1."""
    from agent.runtime.errors import RuntimeFault

    try:
        yield
    except RuntimeFault as error:
        raise click.ClickException(str(error)) from error


def print_json(content: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(content, allow_nan=False))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table as wide as the terminal; without one, wide enough for its content."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)


def number(value: float | None, digits: int = 2) -> str:
    """A value for a table; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}".rstrip("0").rstrip(".")


def run_dir_option(function: Any) -> Any:
    """``--run-dir``: which running agent is asked."""
    return click.option(
        "--run-dir",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("/run/poetd"),
        show_default=True,
        help="The running agent's run folder.",
    )(function)


def json_option(function: Any) -> Any:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")(function)
