"""``poetd trips``: interlocks of a running agent, and the reset of a latch."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.output import fail_on_agent, json_option, print_json, print_table, run_dir_option


@click.command()
@click.option("--all", "everything", is_flag=True, help="Also the interlocks that are clear.")
@click.option("--history", is_flag=True, help="The log of trips, clears and resets, newest first.")
@click.option("--reset", "interlock", metavar="UNIT/INTERLOCK", help="Reset a latched interlock whose cause is gone.")
@click.option("--by", help="Who resets; with --reset.")
@click.option("--reason", help="Why; with --reset.")
@run_dir_option
@json_option
def command(
    everything: bool,
    history: bool,
    interlock: str | None,
    by: str | None,
    reason: str | None,
    run_dir: Path,
    as_json: bool,
) -> None:
    """Show tripped and latched interlocks with their first cause; reset a latch. A reset starts nothing by itself."""
    from agent.runtime.control import ask

    if interlock is not None and not (by and reason):
        raise click.UsageError("a reset needs --by NAME and --reason TEXT: both go into the log")
    with fail_on_agent():
        if interlock is not None:
            answer = ask(run_dir, "reset", interlock=interlock, by=by, reason=reason)
            print_json(answer) if as_json else click.echo(answer["result"])
            return
        answer = ask(run_dir, "trips", history=history)
    if as_json:
        print_json(answer)
        return
    if history:
        print_table(
            "trip log",
            ["time (UTC)", "interlock", "event", "cause"],
            [[row["ts"], row["interlock"], row["event"], row["cause"]] for row in answer["history"]],
        )
        return
    rows = [row for row in answer["interlocks"] if everything or row["tripped"]]
    if not rows:
        click.echo(f"no interlock is tripped ({len(answer['interlocks'])} watched)")
        return
    print_table(
        "interlocks",
        ["interlock", "status", "cause", "title"],
        [[row["interlock"], row["status"], row["cause"], row["title"]] for row in rows],
    )
