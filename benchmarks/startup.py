"""From ``poetd run`` to the first completed scan on the demo site, warm cache, compiled kernels and JIT; beside ``import numba``.

Run: python benchmarks/startup.py [--runs 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from agent.cli.demo import START
from agent.demo.stage import Stage

SITE = Path(__file__).parent.parent / "configs" / "demo" / "site.yaml"


def median_s(runs: int, once: Callable[[], None]) -> float:
    """Median wall time of ``once`` in s; one more run before warms the caches."""
    once()
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        once()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def first_scan(runs: int) -> float:
    """Median seconds from starting the agent until it has scanned, with the plant and the broker already there."""
    with Stage(60.0, START) as stage:
        stage.start_broker()
        stage.write_site()
        origin = stage.start_plant()
        times = []
        for _ in range(runs + 1):
            began = time.perf_counter()
            stage.start_agent(origin)
            times.append(time.perf_counter() - began)
            stage.stop_agent()
        return statistics.median(times[1:])


def main() -> None:
    """Print the start-up times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory(prefix="poetd-bench-cache-") as cache:
        os.environ["POETD_CACHE"] = cache
        figures["first scan, JIT from cache"] = first_scan(options.runs)
        subprocess.run([sys.executable, "-m", "agent", "compile", str(SITE)], check=True, stdout=subprocess.DEVNULL)
        figures["first scan, compiled kernels"] = first_scan(options.runs)

    def run(*arguments: str) -> Callable[[], None]:
        return lambda: subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL) and None

    figures["poetd --help"] = median_s(options.runs, run("-m", "agent", "--help"))
    figures["peer: python -c 'import numba, asyncua'"] = median_s(options.runs, run("-c", "import numba, asyncua"))
    if options.json:
        print(json.dumps(figures))
        return
    for name, seconds in figures.items():
        print(f"{name:45} {seconds * 1e3:8.0f} ms")


if __name__ == "__main__":
    main()
