"""``poetd status``: devices, units, workers and telemetry of a running agent."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.output import fail_on_agent, json_option, number, print_json, print_table, run_dir_option


@click.command()
@run_dir_option
@json_option
def command(run_dir: Path, as_json: bool) -> None:
    """Show how a running agent is doing."""
    from agent.runtime.control import ask

    with fail_on_agent():
        status = ask(run_dir, "status")
    if as_json:
        print_json(status)
        return
    click.echo(
        f"site {status['site']}, agent {status['agent']}, up {status['uptime_s']:.0f} s, kernels {status['kernels']}, "
        f"scans {status['scans']}, missed {status['missed']}, limited {status['limited']}, writes {status['writes']}, "
        f"lateness p50/p99/max {status['lateness_ms']['p50']:.1f}/{status['lateness_ms']['p99']:.1f}/{status['lateness_ms']['max']:.1f} ms"
    )
    print_table(
        "devices",
        ["device", "state", "polls", "errors", "writes", "last good", "latency p50/p99", "detail"],
        [
            [
                device["device"],
                device["state"],
                device["polls"],
                device["poll_errors"],
                device["writes"],
                "never" if device["age_s"] is None else f"{device['age_s']:.1f} s ago",
                f"{number(device['latency_ms']['p50'], 1)}/{number(device['latency_ms']['p99'], 1)} ms",
                device["last_error"] if device["state"] != "online" else "",
            ]
            for device in status["devices"]
        ],
    )
    print_table(
        "units",
        ["unit", "function", "runs as", "says", "outputs"],
        [
            [
                unit["unit"],
                unit["function"],
                unit["runs_as"],
                unit["text"],
                ", ".join(
                    f"{output['output']}={'relinquished' if output['commanded'] is None else number(output['commanded'])}"
                    + (f" ({', '.join(output['verdict'])})" if output["verdict"] else "")
                    for output in unit["outputs"]
                ),
            ]
            for unit in status["units"]
        ],
    )
    mqtt = status.get("mqtt")
    if mqtt:
        click.echo(
            f"mqtt {'connected' if mqtt['connected'] else 'not connected: ' + mqtt['last_error']}, "
            f"{mqtt['acked']} acknowledged, {mqtt['queued']} waiting, {mqtt['dropped']} dropped, {mqtt['rate']:.1f}/s"
        )
