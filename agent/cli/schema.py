"""poetd schema: the JSON Schema of the files, for editors."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("kind", type=click.Choice(["site", "unit", "pack"]), default="site")
def command(kind: str) -> None:
    """Print the JSON Schema of a KIND of file: site (default), unit (a zone or a tool) or pack (interlocks).

    Store it beside the files, and begin them with: # yaml-language-server: $schema=unit.schema.json
    """
    from agent.config.json_schema import json_schema

    click.echo(json.dumps(json_schema(kind), indent=2, ensure_ascii=False))
