"""``poetd doctor``: what this machine has, what poetd would do with it, and what to change."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import click

from agent.cli.output import json_option, print_json, print_table

Finding = tuple[str, str, str]
"""(ok | warning | error, what was found, what to do)."""


def _python() -> Finding:
    found = f"Python {platform.python_version()} on {platform.machine()}"
    return ("ok", found, "") if sys.version_info >= (3, 11) else ("error", found, "install Python 3.11 or newer")


def _packages() -> Finding:
    names = ("numpy", "numba", "pydantic", "pymodbus", "asyncua", "paho-mqtt", "structlog")
    missing, found = [], []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return "error", f"missing: {', '.join(missing)}", "install poetd again from its lock file"
    return "ok", ", ".join(found), ""


def _kernels() -> Finding:
    from agent import kernels

    mode, why = kernels.choose_mode("auto")
    return (
        ("ok" if mode == "aot" else "warning"),
        f"kernels would run as {mode}: {why}",
        "" if mode == "aot" else "run poetd compile",
    )


def _compiler() -> Finding:
    found = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if found:
        return "ok", f"C compiler for poetd compile: {Path(found).name}", ""
    return (
        "warning",
        "no C compiler: poetd compile cannot build, everything else works",
        "install gcc, or build on another machine",
    )


def _cores() -> Finding:
    cores = len(os.sched_getaffinity(0))
    return (
        ("ok" if cores >= 2 else "warning"),
        f"{cores} cores",
        "" if cores >= 2 else "two cores keep control apart from learning",
    )


def _clock() -> Finding:
    year = time.gmtime().tm_year
    if year < 2024:
        return "error", f"the calendar says {year}", "set up time synchronisation: records and telemetry carry UTC"
    return "ok", "the calendar looks set", ""


def _files() -> Finding:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        ("ok" if soft >= 1024 else "warning"),
        f"{soft} open files allowed",
        "" if soft >= 1024 else "raise LimitNOFILE to 1024",
    )


def _folder(path: Path, purpose: str) -> Finding:
    if path.is_dir() and os.access(path, os.W_OK):
        free = shutil.disk_usage(path).free // 2**20
        return (
            ("ok" if free > 512 else "warning"),
            f"{purpose} folder {path}, {free} MiB free",
            "" if free > 512 else "free some space",
        )
    remedy = f"use --{purpose}-dir, or the systemd unit, which makes it"
    return "warning", f"{purpose} folder {path} is not there or not writable by this user", remedy


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": _python,
    "packages": _packages,
    "kernels": _kernels,
    "compiler": _compiler,
    "cores": _cores,
    "clock": _clock,
    "open files": _files,
    "run folder": lambda: _folder(Path("/run/poetd"), "run"),
    "state folder": lambda: _folder(Path("/var/lib/poetd"), "state"),
}


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Look at this machine and say what poetd needs. Exit code 1 if something must be changed."""
    findings = {name: check() for name, check in CHECKS.items()}
    if as_json:
        print_json(
            {name: {"level": level, "found": found, "fix": fix} for name, (level, found, fix) in findings.items()}
        )
    else:
        print_table("doctor", ["check", "", "found", "fix"], [[name, *finding] for name, finding in findings.items()])
    sys.exit(1 if any(level == "error" for level, _found, _fix in findings.values()) else 0)
