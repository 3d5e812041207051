"""Runs the whole agent on a generated site for a benchmark: register bank, supervisor, core, operate; and measures its processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from agent.runtime.control import ask
from agent.runtime.errors import ControlSocketError

HERE = Path(__file__).parent
FUNCTION = """\
from agent.domains.building_management import HVACCommand
from agent.poet import poet


@poet(domain="building_management")
def control_hvac_zone(current_temp, setpoint, occupancy, outdoor_temp):
    temp_error = current_temp - setpoint
    if abs(temp_error) <= 1.0:
        return HVACCommand(0, 0, 20, "Maintaining")
    elif temp_error < -1.0:
        return HVACCommand(min(100, abs(temp_error) * 30), 0, 60, "Heating")
    else:
        return HVACCommand(0, min(100, temp_error * 30), 60, "Cooling")
"""


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody uses now."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def write_site(folder: Path, units: int, ports: list[int], scan: str, kernels: str) -> Path:
    """``units`` zones spread over the ports, one file each: a sensor, constants, three outputs with envelopes."""
    devices = "".join(
        f"  plc{i}: {{poll: {scan}, modbus: {{host: 127.0.0.1, port: {port}}}}}\n" for i, port in enumerate(ports)
    )
    (folder / "zones").mkdir()
    (folder / "site_functions.py").write_text(FUNCTION)
    site = folder / "site.yaml"
    site.write_text(
        f"site: bench\ninclude: [zones/*.yaml]\npython_path: [.]\nkernels: {kernels}\nplant: null\ndevices:\n{devices}"
    )
    for unit in range(units):
        device, base = f"plc{unit % len(ports)}", 20 * (unit // len(ports))
        points = f"  temp: {{device: {device}, modbus: {{input: {base}, type: f32}}, unit: Cel, range: [-10, 50]}}\n"
        for place, name in enumerate(("heating", "cooling", "fan")):
            address = f"{{holding: {base + 4 + 2 * place}, type: f32}}"
            points += f'  {name}: {{device: {device}, modbus: {address}, unit: "%", range: [0, 100], writable: true}}\n'
        (folder / "zones" / f"zone-{unit:04d}.yaml").write_text(
            f"zone: zone-{unit:04d}\nfunction: site_functions:control_hvac_zone\nscan: {scan}\npoints:\n{points}"
            "inputs: {current_temp: temp, setpoint: 21.0, occupancy: 1.0, outdoor_temp: 2.0}\n"
            "outputs:\n"
            "  heating: {from: heating_output, limits: [0, 100], fail_safe: 0, max_step: 50}\n"
            "  cooling: {from: cooling_output, limits: [0, 100], fail_safe: 0, max_step: 50}\n"
            "  fan: {from: fan_speed, limits: [0, 100], fail_safe: 0}\n"
            "exclusive: [[heating, cooling]]\n"
        )
    return site


@dataclass
class Running:
    """A running agent."""

    process: subprocess.Popen[bytes]
    run_dir: Path
    started_at: float

    def tree(self) -> list[psutil.Process]:
        """Supervisor, core, operate with its workers, train."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def cpu_s(self) -> float:
        """CPU seconds of all its processes so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self.tree())

    def pss_mb(self) -> dict[str, float]:
        """Proportional memory of each process in MB, by role."""
        memory = {}
        for process in self.tree():
            words = process.cmdline()
            role = words[words.index("-m") + 1].removeprefix("agent.") if "-m" in words else process.name()
            total = sum(
                int(line.split()[1])
                for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
                if line.startswith("Pss:")
            )
            memory[f"{role} {process.pid}"] = total / 1024.0
        return memory


@contextmanager
def register_bank(ports: list[int]) -> Iterator[None]:
    """The other end, as a child process."""
    child = subprocess.Popen(
        [sys.executable, str(HERE / "register_bank.py"), *map(str, ports)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        yield
    finally:
        child.kill()
        child.communicate()


@contextmanager
def running_agent(site: Path, *arguments: str, patience_s: float = 180.0) -> Iterator[Running]:
    """The agent on a site, from before its first scan; stopped cleanly at the end."""
    with tempfile.TemporaryDirectory(prefix="poetd-bench-") as folder:
        run_dir = Path(folder) / "run"
        command = [sys.executable, "-m", "agent", "run", str(site), "--run-dir", str(run_dir)]
        command += ["--state-dir", str(Path(folder) / "state"), *arguments]
        began = time.monotonic()
        with (Path(folder) / "agent.log").open("wb") as log:
            process = subprocess.Popen(command, stderr=log, env={**os.environ, "POETD_DIE_WITH_PARENT": "1"})
            try:
                while time.monotonic() - began < patience_s:
                    try:
                        if ask(run_dir, "status")["scans"] > 0:
                            break
                    except ControlSocketError:
                        time.sleep(0.02)
                    if process.poll() is not None:
                        raise SystemExit((Path(folder) / "agent.log").read_text()[-3000:])
                yield Running(process, run_dir, time.monotonic() - began)
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(30)
