"""``poetd points``: the live input image of a running agent."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.output import fail_on_agent, json_option, number, print_json, print_table, run_dir_option


@click.command()
@click.argument("unit", required=False)
@run_dir_option
@json_option
def command(unit: str | None, run_dir: Path, as_json: bool) -> None:
    """Show every point's value, quality, reason and age; of one UNIT if named."""
    from agent.runtime.control import ask

    with fail_on_agent():
        answer = ask(run_dir, "points", unit=unit)
    if as_json:
        print_json(answer)
        return
    print_table(
        "points",
        ["point", "value", "unit", "quality", "reason", "age"],
        [
            [
                point["point"],
                number(point["value"], 3),
                point["unit"],
                point["quality"],
                "" if point["quality"] == "good" else point["reason"],
                "never" if point["age_s"] is None else f"{point['age_s']:.1f} s",
            ]
            for point in answer["points"]
        ],
    )
