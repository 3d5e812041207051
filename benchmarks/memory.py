"""Memory of the whole agent on the demo site: PSS of every process of ours, with compiled kernels and with the JIT.

The broker and the plant run beside it and are not counted. The peer is a bare Python process that has imported the same libraries.

Run: python benchmarks/memory.py [--seconds 20] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agent_rig import Running

from agent.cli.demo import START
from agent.demo.stage import Stage

PEER = "import asyncua, pymodbus.client, paho.mqtt.client, numpy, numba, pydantic, structlog, yaml, click; print(flush=True); input()"


def ours(seconds: float) -> dict[str, float]:
    """PSS in MB by process, after some time of the demo."""
    with Stage(60.0, START) as stage:
        stage.start_broker()
        stage.write_site()
        origin = stage.start_plant()
        stage.start_agent(origin)
        assert stage._agent is not None
        time.sleep(seconds)
        return Running(stage._agent, stage.run_dir, 0.0).pss_mb()


def peer() -> float:
    """RSS in MB of one process with the libraries of the mission imported and nothing done."""
    child = subprocess.Popen([sys.executable, "-c", PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    text = Path(f"/proc/{child.pid}/smaps_rollup").read_text()
    child.communicate(b"\n")
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024.0


def main() -> None:
    """Print the memory by process and in all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = {}
    for mode in ("compiled", "JIT"):
        with tempfile.TemporaryDirectory(prefix="poetd-bench-cache-") as cache:
            os.environ["POETD_CACHE"] = cache
            if mode == "compiled":
                site = Path(__file__).parent.parent / "configs" / "demo" / "site.yaml"
                subprocess.run(
                    [sys.executable, "-m", "agent", "compile", str(site)], check=True, stdout=subprocess.DEVNULL
                )
            results[mode] = ours(options.seconds)
    results["peer"] = {"one process with the libraries imported": peer()}
    if options.json:
        print(json.dumps(results))
        return
    for mode, memory in results.items():
        print(f"{mode}: {sum(memory.values()):.0f} MB")
        for role, size in memory.items():
            print(f"  {role:45} {size:7.1f}")


if __name__ == "__main__":
    main()
