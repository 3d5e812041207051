"""How long ``poetd check`` takes for a site of 10,000 points, start-up included, beside PyYAML on the same text.

Run: python benchmarks/check_10k.py [runs]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

UNITS = 100
POINTS = 100
OUTPUTS = 10

_PEER = """
import pathlib, sys, yaml
for file in sorted(pathlib.Path(sys.argv[1]).rglob("*.yaml")):
    yaml.load(file.read_text(), yaml.CSafeLoader)
"""


def write_site(folder: Path) -> Path:
    """A site of 100 devices and 100 zones with 100 points, 10 outputs and an interlock each."""
    devices = "".join(f"  plc{unit:02d}: {{poll: 1s, modbus: {{host: 10.0.{unit}.5}}}}\n" for unit in range(UNITS))
    site = folder / "site.yaml"
    site.write_text(f"site: bench\ninclude: [zones/*.yaml]\ndevices:\n{devices}")
    (folder / "zones").mkdir()
    for unit in range(UNITS):
        (folder / "zones" / f"zone-{unit:02d}.yaml").write_text(_zone(unit))
    return site


def _zone(unit: int) -> str:
    lines = [f"zone: zone-{unit:02d}", "scan: 5s", "points:"]
    for point in range(POINTS - OUTPUTS):
        address = f"modbus: {{input: {2 * point}, type: f32, order: ABCD}}"
        lines.append(
            f"  t{point:02d}: {{device: plc{unit:02d}, {address}, unit: Cel, range: [-10, 50], stale_after: 30s}}"
        )
    for point in range(OUTPUTS):
        address = f"modbus: {{holding: {300 + point}, scale: 0.1}}"
        lines.append(
            f"  valve{point}: {{device: plc{unit:02d}, {address}, unit: '%', range: [0, 100], writable: true}}"
        )
    lines.append("outputs:")
    lines += [f"  valve{point}: {{limits: [0, 100], max_rate: 5/min, fail_safe: 0}}" for point in range(OUTPUTS)]
    lines.append("interlocks:\n  - {name: hot, when: t00 > 45 Cel, trip: {valve0: 0}, latch: manual}\n")
    return "\n".join(lines)


def measure(arguments: list[str], runs: int) -> float:
    """The median wall time of a command in seconds."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print both figures."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as folder:
        site = write_site(Path(folder))
        ours = measure([str(Path(sys.executable).with_name("poetd")), "check", str(site)], runs)
        peer = measure([sys.executable, "-c", _PEER, folder], runs)
    print(f"{UNITS * POINTS:,} points in {UNITS} files, median of {runs} runs, start-up included")
    print(f"poetd check (parse, validate, cross-check)  {ours:6.2f} s")
    print(f"PyYAML CSafeLoader (parse only)             {peer:6.2f} s")


if __name__ == "__main__":
    main()
