"""A whole site for fault tests: generated files, equipment on a real socket, and the real agent as child processes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import process_tree
from register_bank import RegisterBank

from agent.runtime.control import ask
from agent.runtime.errors import ControlSocketError
from agent.runtime.release import JOURNAL_FILE
from safety.journal import Held, Journal

PATIENCE_S = 30.0
"""For anything that should take a moment: generous, because other tests share the machine."""
CORE, ZYGOTE, TRAIN = "agent.runtime.core", "agent.runtime.operate.zygote", "agent.train.worker"

BEFORE_HEATING, BEFORE_COOLING = 33.0, 44.0
"""What the equipment's outputs hold before the agent ever writes: what a release has to bring back."""
SAFE_HEATING, SAFE_COOLING = 5.0, 6.0
"""The fail-safe values: unlike anything a healthy function asks for."""

Value = Any


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone of the generated site. ``heating`` is more of that output's envelope, ``extra`` YAML at the end of the file."""

    name: str
    function: str
    device: str = "plc"
    hold: int = 0
    rewrite: str = "60s"
    safe: tuple[float, float] = (SAFE_HEATING, SAFE_COOLING)
    heating: str = ""
    extra: str = ""


def wait_until(what: str, predicate: Callable[[], Value], timeout_s: float = PATIENCE_S) -> Value:
    """Ask until the answer is true, and return it. Fails with ``what`` was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = predicate()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s for: {what}")
        time.sleep(0.05)


class Agent:
    """``poetd run`` with everything it starts."""

    def __init__(self, site: Path, run_dir: Path, state_dir: Path, log: Path) -> None:
        self.site, self.run_dir, self.state_dir, self.log_file = site, run_dir, state_dir, log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, wrapper: Sequence[str] = ()) -> None:
        """Start it; returns at once. ``wrapper`` is a command put in front."""
        command = [*wrapper, sys.executable, "-m", "agent", "run", str(self.site)]
        command += ["--run-dir", str(self.run_dir), "--state-dir", str(self.state_dir), *options]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "POETD_DIE_WITH_PARENT": "1", "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )

    def await_scans(self, count: int = 1) -> None:
        """Wait until it has scanned so often since the start of its present core."""
        wait_until(f"{count} scans", lambda: self._alive() and (self.status() or {}).get("scans", 0) >= count, 120.0)

    def _alive(self) -> bool:
        assert self.process is not None
        code = self.process.poll()
        assert code is None, f"the agent ended with exit code {code}:\n{self.log_text()[-3000:]}"
        return True

    def status(self) -> dict[str, Any] | None:
        """What it says of itself; None while nobody answers."""
        return self.ask("status")

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any] | None:
        """One question to its control socket; None while nobody answers."""
        try:
            return ask(self.run_dir, verb, **arguments)
        except ControlSocketError:
            return None

    def unit(self, name: str) -> dict[str, Any]:
        """One unit's part of the status; outputs by name."""
        status = wait_until("an answer to status", self.status)
        unit = next(unit for unit in status["units"] if unit["unit"] == name)
        return {**unit, "outputs": {output["output"]: output for output in unit["outputs"]}}

    def verdict(self, unit: str, output: str = "heating") -> list[str]:
        """What limits an output now, in words."""
        return list(self.unit(unit)["outputs"][output]["verdict"])

    def quality(self, point: str) -> tuple[str, str]:
        """Quality and reason of one point."""
        unit = point.partition("/")[0]
        answer = wait_until("an answer to points", lambda: self.ask("points", unit=unit))
        row = next(row for row in answer["points"] if row["point"] == point)
        return row["quality"], row["reason"]

    def pid(self, what: str) -> int:
        """The process whose command line names ``what``, directly below the supervisor."""
        assert self.process is not None
        supervisor = self.process.pid

        def found() -> int:
            pids = [
                one.pid for one in process_tree.below(supervisor) if one.parent == supervisor and what in one.command
            ]
            return pids[0] if len(pids) == 1 else 0

        return int(wait_until(f"one {what}", found))

    def workers(self) -> list[int]:
        """The workers that run control functions: the zygote's forks."""
        zygote = self.pid(ZYGOTE)
        return [one.pid for one in process_tree.below(zygote)]

    def mine(self) -> list[process_tree.Process]:
        """Every process that works on this site's folders, orphans too."""
        return process_tree.naming(str(self.run_dir)) + process_tree.naming(str(self.state_dir))

    def log_text(self) -> str:
        """Everything all its processes have logged."""
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def logged(self, *words: str, since: int = 0) -> list[str]:
        """The log lines with all these words, from character ``since`` on."""
        return [line for line in self.log_text()[since:].splitlines() if all(word in line for word in words)]

    def held(self) -> list[Held]:
        """What the write journal says is held. Only while no agent runs."""
        with contextlib.closing(Journal(self.state_dir / JOURNAL_FILE)) as journal:
            return journal.holding()

    def wait_end(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for the supervisor's end; its exit code."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def stop(self) -> int:
        """SIGTERM, as systemd does it; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.wait_end()

    def destroy(self) -> None:
        """Leave nothing running, whatever state it is in."""
        if self.process is not None:
            for one in (*process_tree.below(self.process.pid), *self.mine()):
                _kill(one.pid)
            _kill(self.process.pid)
            self.process.wait()
        wait_until("the end of every process", lambda: not self.mine())


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class Equipment(Protocol):
    """What stands behind a device, seen from a test: ours, or a program that shares nothing with us."""

    port: int
    addresses: Mapping[str, str]
    """``zone/point`` → its Modbus address, as YAML."""

    def set(self, name: str, value: float) -> None:
        """Change a value at the equipment."""

    def values(self, *names: str) -> tuple[float, ...]:
        """Present values."""


class Site:
    """Files, equipment and agent of one site. Make it with :func:`site`."""

    def __init__(self, folder: Path, equipment: Mapping[str, Equipment], zones: Sequence[Zone]) -> None:
        self.folder = folder
        self.equipment = equipment
        self.zones = list(zones)
        self._behind = {zone.name: equipment[zone.device] for zone in zones}
        self.file = folder / "site" / "site.yaml"
        self.agent = Agent(self.file, folder / "run", folder / "state", folder / "agent.log")

    @property
    def bank(self) -> RegisterBank:
        """The first device's registers, where they are ours."""
        bank = next(iter(self.equipment.values()))
        assert isinstance(bank, RegisterBank)
        return bank

    def write(self, functions: str, settings: Mapping[str, str], scan: str) -> None:
        """Write site.yaml, one file per zone, and the control functions."""
        zones = self.file.parent / "zones"
        zones.mkdir(parents=True, exist_ok=True)
        lines = ["site: faults", "include: [zones/*.yaml]", "devices:"]
        for device, served in self.equipment.items():
            lines += [f"  {device}:", "    poll: 200ms"]
            lines.append(f"    modbus: {{host: 127.0.0.1, port: {served.port}, timeout: 500ms, connect_timeout: 1s}}")
        lines += [f"{key}: {value}" for key, value in settings.items()]
        self.file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        (self.file.parent / "site_functions.py").write_text(textwrap.dedent(functions), encoding="utf-8")
        for zone in self.zones:
            (zones / f"{zone.name}.yaml").write_text(self._zone(zone, scan), encoding="utf-8")

    def _zone(self, zone: Zone, scan: str) -> str:
        addresses = self._behind[zone.name].addresses
        at = {point: addresses[f"{zone.name}/{point}"] for point in ("temp", "mode", "heating", "cooling")}
        text = f"""\
zone: {zone.name}
function: {zone.function if ":" in zone.function else f"site_functions:{zone.function}"}
scan: {scan}
fallback: {{hold: {zone.hold}}}
points:
  temp:    {{device: {zone.device}, modbus: {at["temp"]}, unit: Cel, range: [-10, 50], stale_after: 3s}}
  mode:    {{device: {zone.device}, modbus: {at["mode"]}, unit: "1", range: [0, 10], stale_after: 3s}}
  heating: {{device: {zone.device}, modbus: {at["heating"]}, unit: "%", range: [0, 100], stale_after: 3s, writable: true}}
  cooling: {{device: {zone.device}, modbus: {at["cooling"]}, unit: "%", range: [0, 100], stale_after: 3s, writable: true}}
outputs:
  heating: {{from: heating_output, limits: [0, 90], fail_safe: {zone.safe[0]}, rewrite: {zone.rewrite}{zone.heating}}}
  cooling: {{from: cooling_output, limits: [0, 90], fail_safe: {zone.safe[1]}, rewrite: {zone.rewrite}}}
"""
        return text + zone.extra

    def set(self, zone: str, point: str, value: float) -> None:
        """Change an input at the equipment."""
        self._behind[zone].set(f"{zone}/{point}", value)

    def outputs(self, zone: str) -> tuple[float, ...]:
        """(heating, cooling) as they are at the equipment."""
        return self._behind[zone].values(f"{zone}/heating", f"{zone}/cooling")

    def await_outputs(self, zone: str, heating: float, cooling: float, timeout_s: float = PATIENCE_S) -> None:
        """Wait until the equipment has these."""
        try:
            wait_until(
                f"{zone} at {heating:g} and {cooling:g}", lambda: self.outputs(zone) == (heating, cooling), timeout_s
            )
        except AssertionError as error:
            raise AssertionError(f"{error}; it has {self.outputs(zone)}\n{self.agent.log_text()[-3000:]}") from None

    def poetd(self, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run another poetd command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "agent", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )


@contextlib.contextmanager
def site(
    zones: Sequence[Zone],
    functions: str,
    *,
    settings: Mapping[str, str] | None = None,
    scan: str = "1s",
    equipment: Mapping[str, Equipment] | None = None,
) -> Iterator[Site]:
    """A site with these zones, its equipment running, its agent not yet. Everything is gone afterwards.

    ``equipment`` stands behind the devices; default: a register bank for each.
    """
    folder = Path(tempfile.mkdtemp(prefix="poetd-fault-"))  # short: a Unix socket's path may have 107 bytes
    with contextlib.ExitStack() as stack:
        if equipment is None:
            devices = dict.fromkeys(zone.device for zone in zones)
            equipment = {device: stack.enter_context(_bank(zones, device)) for device in devices}
        made = Site(folder, equipment, zones)
        made.write(functions, {"kernels": "python", **(settings or {})}, scan)
        try:
            yield made
        finally:
            made.agent.destroy()
            shutil.rmtree(folder, ignore_errors=True)


def _bank(zones: Sequence[Zone], device: str) -> RegisterBank:
    mine = [zone.name for zone in zones if zone.device == device]
    inputs = {f"{zone}/{point}": value for zone in mine for point, value in (("temp", 20.0), ("mode", 0.0))}
    before = (("heating", BEFORE_HEATING), ("cooling", BEFORE_COOLING))
    return RegisterBank(inputs, {f"{zone}/{point}": value for zone in mine for point, value in before})


def errors_in(text: str) -> list[str]:
    """Log lines that speak of a defect of ours: a traceback, or a task nobody looked after."""
    return re.findall(r"^.*(?:Traceback|never retrieved|Task exception).*$", text, re.MULTILINE)
