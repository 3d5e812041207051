"""poetd init: a site with one zone to start from."""

from __future__ import annotations

import re
from pathlib import Path

import click

from agent.cli.output import json_option, print_json

_STARTER = Path(__file__).with_name("starter")
_FILES = {
    "site.yaml": "site.yaml",
    "zones/office.yaml": "zones/office.yaml",
    "site_functions.py": "site_functions.py.txt",
}
"""File of the new site → its template."""


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@json_option
def command(directory: Path, as_json: bool) -> None:
    """Write a small working site into DIRECTORY. Files that are there already are never overwritten."""
    targets = {name: directory / name for name in _FILES}
    present = [str(target) for target in targets.values() if target.exists()]
    if present:
        raise click.ClickException(f"{', '.join(present)} exists: choose another folder, or move it away first")
    for name, target in targets.items():
        text = (_STARTER / _FILES[name]).read_text(encoding="utf-8").replace("SITE_NAME", _site_name(directory))
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as stream:
            stream.write(text)
        if not as_json:
            click.echo(f"wrote {target}")
    if as_json:
        print_json({"wrote": [str(target) for target in targets.values()]})
        return
    site = targets["site.yaml"]
    click.echo(
        f"\nNext:\n"
        f"  edit {site} (your device's address) and {targets['zones/office.yaml']} (your points)\n"
        f"  poetd check {site}    find every mistake before anything runs\n"
        f"  poetd read {site}     read the points once\n"
        f"  poetd run {site}      control"
    )


def _site_name(directory: Path) -> str:
    """The folder's name as a slug."""
    slug = re.sub(r"[^a-z0-9]+", "-", directory.resolve().name.lower()).strip("-")[:64].strip("-")
    return slug or "site"
