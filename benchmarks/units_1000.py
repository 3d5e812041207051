"""1,000 units at 1 s on real sockets: how late scans begin, and what the whole agent costs; beside 1,000 asyncio tasks.

Run: python benchmarks/units_1000.py [--seconds 30] [--units 1000] [--kernels aot|jit|python] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from agent_rig import FUNCTION, free_ports, register_bank, running_agent, write_site

from agent.runtime.control import ask

DEVICES = 10


def ours(units: int, seconds: float, kernels: str) -> dict[str, float]:
    """The agent: lateness in ms, CPU in % of a core, over the steady state."""
    with tempfile.TemporaryDirectory(prefix="poetd-bench-site-") as folder:
        ports = free_ports(DEVICES)
        site = write_site(Path(folder), units, ports, "1s", kernels)
        if kernels == "aot":
            subprocess.run([sys.executable, "-m", "agent", "compile", str(site)], check=True, stdout=subprocess.DEVNULL)
        with register_bank(ports), running_agent(site) as agent:
            time.sleep(5.0)
            cpu, wall = agent.cpu_s(), time.monotonic()
            time.sleep(seconds)
            share = (agent.cpu_s() - cpu) / (time.monotonic() - wall)
            status = ask(agent.run_dir, "status")
            lateness = status["lateness_ms"]
            return {
                "lateness p50 ms": lateness["p50"],
                "lateness p99 ms": lateness["p99"],
                "lateness max ms": lateness["max"],
                "CPU % of a core": 100.0 * share,
                "missed": float(status["missed"]),
                "memory MB": sum(agent.pss_mb().values()),
            }


def tasks(units: int, seconds: float) -> dict[str, float]:
    """The peer: one asyncio task per unit that sleeps and calls the plain function. No sockets, limits or telemetry."""
    scope: dict[str, object] = {}
    exec(FUNCTION, scope)
    function = scope["control_hvac_zone"]
    late: list[float] = []

    async def unit(start: float) -> None:
        due = start
        while due < start + seconds:
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            late.append(time.monotonic() - due)
            function(18.5, 21.0, 1.0, 2.0)  # type: ignore[operator]
            due += 1.0

    async def run() -> None:
        start = time.monotonic() + 0.1
        await asyncio.gather(*(unit(start) for _ in range(units)))

    cpu = time.process_time()
    asyncio.run(run())
    data = np.asarray(late) * 1e3
    return {
        "lateness p50 ms": float(np.median(data)),
        "lateness p99 ms": float(np.quantile(data, 0.99)),
        "lateness max ms": float(data.max()),
        "CPU % of a core": 100.0 * (time.process_time() - cpu) / seconds,
    }


def floor(seconds: float) -> dict[str, float]:
    """What this machine's timers do to a process that only sleeps: nothing can be earlier than that."""
    late = []
    for _ in range(int(seconds * 20)):
        due = time.monotonic() + 0.05
        time.sleep(due - time.monotonic())
        late.append((time.monotonic() - due) * 1e3)
    data = np.asarray(late)
    return {
        "lateness p50 ms": float(np.median(data)),
        "lateness p99 ms": float(np.quantile(data, 0.99)),
        "lateness max ms": float(data.max()),
    }


def main() -> None:
    """Print both side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--units", type=int, default=1000)
    parser.add_argument("--kernels", choices=("aot", "jit", "python"), default="aot")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    agent = ours(options.units, options.seconds, options.kernels)
    peer = tasks(options.units, min(options.seconds, 10.0))
    idle = floor(min(options.seconds, 10.0))
    if options.json:
        print(json.dumps({"agent": agent, "asyncio_tasks": peer, "sleeping_process": idle}))
        return
    print(f"{options.units} units at 1 s, {DEVICES} Modbus TCP devices, kernels {options.kernels}")
    print(f"{'':18}{'agent':>10}{'1 task a unit, no I/O':>24}{'only sleeping':>16}")
    for name, value in agent.items():
        others = "".join(f"{column[name]:{width}.2f}" for column, width in ((peer, 24), (idle, 16)) if name in column)
        print(f"{name:18}{value:10.2f}{others}")


if __name__ == "__main__":
    main()
