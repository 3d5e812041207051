"""How often the compiled kernel and the second channel differ: random sites, thresholds and limits hit to the last bit.

    python benchmarks/channels.py [--outputs 1000000] [--mode jit] [--seed 1]

One comparison is one output after one evaluation or one enforce: value, relinquish, every verdict bit, what is forced,
first-out, and the status of every interlock. Ends with 1 at the first difference, and says how to see it again.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "safety")]

from channel_cases import TwoChannels, site  # noqa: E402  (found through the path set above)

from agent.kernels import load  # noqa: E402

SCANS = 100


def main() -> int:
    """Compare until enough outputs have been compared; prints the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outputs", type=int, default=1_000_000)
    parser.add_argument("--mode", choices=("aot", "jit", "python"), default="jit")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    kernels = load("safety.kernels", options.mode)
    compared, seed, began = 0, options.seed, time.perf_counter()
    while compared < options.outputs:
        pick = random.Random(seed).choice
        both = TwoChannels(site(pick), kernels)
        try:
            for _ in range(SCANS):
                both.random_scan(pick)
        except AssertionError as error:
            print(f"the channels differ with --seed {seed} --outputs 1: {error}", file=sys.stderr)
            return 1
        compared += both.compared
        seed += 1
    passed = time.perf_counter() - began
    print(f"{compared} comparisons on {seed - options.seed} sites ({kernels.kind}): 0 mismatches, {passed:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
