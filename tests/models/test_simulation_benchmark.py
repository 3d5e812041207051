"""The benchmark's numpy model is an independent oracle of the kernels: it runs, and both cost the same energy."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "simulation_speed.py"


def test_numpy_and_kernels_agree_on_a_week():
    command = [sys.executable, str(BENCHMARK), "--zones", "8", "--days", "7", "--repeat", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["largest_energy_difference"] < 1e-9
    assert result["zone_years_per_s"] > 0.0
