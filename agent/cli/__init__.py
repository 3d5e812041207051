"""The command line: one module per command, imported only when it is called, so that ``poetd --help`` stays fast."""

from __future__ import annotations

import importlib

import click

from agent import __version__

COMMANDS: dict[str, tuple[str, str]] = {
    "check": ("agent.cli.check", "Find every error in a site's files before anything runs."),
    "compile": ("agent.cli.compile", "Build the kernels and the site's functions ahead of time."),
    "demo": ("agent.cli.demo", "Control a simulated building over real sockets and watch it."),
    "doctor": ("agent.cli.doctor", "Look at this machine and say what poetd needs."),
    "init": ("agent.cli.init", "Write a site with one zone to start from."),
    "interlock": ("agent.cli.interlock", "Prove the interlocks of a site's files, without any device."),
    "plant": ("agent.cli.plant", "Serve a simulated plant over real sockets."),
    "points": ("agent.cli.points", "Show the live values, qualities and ages of a running agent."),
    "read": ("agent.cli.read", "Read points straight from their devices, once."),
    "release": ("agent.cli.release", "Relinquish or restore every point the write journal says we hold."),
    "run": ("agent.cli.run", "Run the agent on a site."),
    "schema": ("agent.cli.schema", "Print the JSON Schema of the site and unit files."),
    "simulate": ("agent.cli.simulate", "Run the site on its plant in lock-step, as fast as the CPU goes."),
    "status": ("agent.cli.status", "Show devices, units and rates of a running agent."),
    "trips": ("agent.cli.trips", "Show tripped and latched interlocks of a running agent; reset a latch."),
}
"""Command name → (module with a click command called ``command``, one-line help)."""


class LazyGroup(click.Group):
    """Imports a command's module when it is called, never for the list of commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in sorted(COMMANDS)])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="poetd")
def main() -> None:
    """poetd: controls building and fab equipment through Perceive, Operate, Enforce, Train.

    Start with `poetd demo`, or `poetd init mysite` and `poetd check mysite/site.yaml`.
    """
