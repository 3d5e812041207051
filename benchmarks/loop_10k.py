"""Perceive, Operate and Enforce for 10,000 zones on one core: the kernels beside numpy and plain Python.

    python benchmarks/loop_10k.py [--zones 10000] [--mode jit|aot] [--json]

A zone has 4 inputs, the control function of the README (verbatim, text included) and 3 outputs
(absolute limits, limit per scan, fail-safe, dead band, verdicts). numpy does the same work array by array; values, qualities,
reasons and texts of both are compared first. Plain Python runs the same kernels uncompiled, on fewer zones.
Every row but one checks every input for range, staleness, rate of change and a stuck sensor, and filters it; "as configs/demo" has the checks
of the demo site's zones: range and staleness for all, the rate for the zone's temperature, a fallback for the set-point.
The figures are medians over many scans, ns a zone. Trust the ratios more than the nanoseconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from agent import kernels
from agent.domains.building_management import HVACCommand
from agent.poet.batch import TEXT_BYTES, CallStatus
from agent.poet.functions import ControlFunction
from agent.poet.perceive import PerceiveState, PerceiveTable
from safety.enforcer import Enforcer
from safety.envelope import Envelope, RequestState
from safety.interlocks import InterlockTable
from safety.values import Quality, Reason, Verdict

PYTHON_ZONES = 300
Checks = dict[str, float | None]
NONE: Checks = {"max_change": None, "stuck_after": None, "smooth": None, "fallback": None}
EVERY_CHECK: tuple[Checks, ...] = ({**NONE, "max_change": 1.0, "stuck_after": 3600.0, "smooth": 5.0},) * 4
DEMO_CHECKS: tuple[Checks, ...] = ({**NONE, "max_change": 1.0}, {**NONE, "fallback": 21.0}, NONE, NONE)
RANGES = ((-10.0, 50.0), (5.0, 40.0), (0.0, 100.0), (-60.0, 60.0))


def control_hvac_zone(current_temp, setpoint, occupancy, outdoor_temp):  # type: ignore[no-untyped-def]
    """The control function of the README."""
    temp_error = current_temp - setpoint
    if abs(temp_error) <= 1.0:
        return HVACCommand(0, 0, 20, "Maintaining")
    elif temp_error < -1.0:  # noqa: RET505
        return HVACCommand(min(100, abs(temp_error) * 30), 0, 60, "Heating")
    else:
        return HVACCommand(0, min(100, temp_error * 30), 60, "Cooling")


class Weather:
    """Raw readings, (4 * zones,), parameter by parameter, that change a little from scan to scan."""

    def __init__(self, zones: int) -> None:
        self.random = np.random.default_rng(1)
        self.raw = np.concatenate(
            [self.random.uniform(18, 26, zones), np.full(zones, 22.0), np.ones(zones), np.full(zones, 5.0)]
        )

    def next(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The next scan's readings."""
        self.raw += self.random.uniform(-0.05, 0.05, self.raw.shape)
        return self.raw


class KernelLoop:
    """The loop as poetd runs it."""

    def __init__(self, zones: int, mode: str, checks: tuple[Checks, ...] = EVERY_CHECK) -> None:
        self.zones = zones
        points = [
            SimpleNamespace(range=limits, stale_after=30.0, **has)
            for limits, has in zip(RANGES, checks, strict=True)
            for _ in range(zones)
        ]
        self.perceive = kernels.load("agent.poet.perceive_kernels", mode).perceive
        self.table, self.state = PerceiveTable.build(points), PerceiveState.fresh(4 * zones)
        self.quality_in, self.reason_in = np.full(4 * zones, 2, np.uint8), np.ones(4 * zones, np.uint8)
        self.value, self.quality, self.reason = (
            np.zeros(4 * zones),
            np.zeros(4 * zones, np.uint8),
            np.zeros(4 * zones, np.uint8),
        )
        self.batch = ControlFunction.of(control_hvac_zone).batch(mode)
        self.due, self.out = np.ones(zones, np.uint8), np.zeros((3, zones))
        self.status, self.text = np.zeros(zones, np.uint8), np.zeros((zones, TEXT_BYTES), np.uint8)
        self.progress = np.zeros(1, np.int64)
        envelopes = [Envelope(f"zone/{row}", 0.0, 100.0, 0.0, max_step=10.0, dead_band=0.5) for row in range(3 * zones)]
        self.enforcer = Enforcer(
            envelopes, (), InterlockTable.build((), {}, {}, envelopes), kernels.load("safety.kernels", mode)
        )
        self.request_state, self.due_out = np.zeros((3, zones), np.uint8), np.ones(3 * zones, np.uint8)

    def scan(self, now: float, raw: Any, spent: dict[str, float]) -> None:
        """One scan; adds the seconds of each stage to ``spent``."""
        times = np.full(4 * self.zones, now)
        started = time.perf_counter()
        self.perceive(
            now, raw, self.quality_in, self.reason_in, times,
            *self.table.columns(), *self.state.columns(), self.value, self.quality, self.reason,
        )  # fmt: skip
        perceived = time.perf_counter()
        self.batch(self.value.reshape(4, self.zones), self.due, self.out, self.status, self.text, self.progress)
        operated = time.perf_counter()
        self.request_state[:] = np.where(self.status == CallStatus.OK, RequestState.OK, RequestState.FUNCTION_FAILED)
        self.enforcer.enforce(now, self.out.ravel(), self.request_state.ravel(), self.due_out)
        enforced = time.perf_counter()
        spent["perceive"] = perceived - started
        spent["operate"] = operated - perceived
        spent["enforce"] = enforced - operated


class NumpyLoop:
    """The same loop written with numpy. No minimum times, no interlocks, no exclusive pairs: nothing here uses them."""

    def __init__(self, zones: int) -> None:
        points, outputs = 4 * zones, 3 * zones
        self.zones = zones
        self.low = np.repeat([low for low, _ in RANGES], zones)
        self.high = np.repeat([high for _, high in RANGES], zones)
        self.state, self.time, self.changed, self.filtered = (np.full(points, np.nan) for _ in range(4))
        self.quality_in, self.reason_in = np.full(points, 2, np.uint8), np.ones(points, np.uint8)
        self.value = np.zeros(points)
        self.quality, self.reason = np.zeros(points, np.uint8), np.zeros(points, np.uint8)
        self.texts = np.array([b"Maintaining", b"Heating", b"Cooling"], f"S{TEXT_BYTES}")
        self.text = np.zeros(zones, f"S{TEXT_BYTES}")
        self.out, self.switched, self.made = np.zeros(outputs), np.zeros(outputs), np.zeros(outputs)
        self.verdict = np.zeros(outputs, np.uint32)

    def scan(self, now: float, raw: Any, spent: dict[str, float]) -> None:
        """One scan; adds the seconds of each stage to ``spent``."""
        times = np.full(4 * self.zones, now)
        started = time.perf_counter()
        self._perceive(now, raw, times)
        perceived = time.perf_counter()
        request = self._operate()
        operated = time.perf_counter()
        self._enforce(now, request)
        enforced = time.perf_counter()
        spent["perceive"] = perceived - started
        spent["operate"] = operated - perceived
        spent["enforce"] = enforced - operated

    def _perceive(self, now: float, raw: Any, times: Any) -> None:
        gap = times - self.time
        recent = gap <= 30.0
        cause = np.where((gap > 0) & recent & (np.abs(raw - self.state) > gap), Reason.RATE_OF_CHANGE, Reason.OK)
        cause = np.where((raw >= self.low) & (raw <= self.high), cause, Reason.OUT_OF_RANGE)
        cause = np.where(now - times <= 30.0, cause, Reason.STALE)
        cause = np.where(np.isfinite(raw), cause, Reason.NOT_A_NUMBER)
        cause = np.where(self.quality_in == Quality.BAD, self.reason_in, cause)
        cause = np.where(self.reason_in == Reason.NEVER_READ, Reason.NEVER_READ, cause)
        good = cause == Reason.OK
        new = good & ~(gap <= 0.0)
        self.changed = np.where(new & ~((raw == self.state) & recent), times, self.changed)
        smoothed = self.filtered + gap / (5.0 + gap) * (raw - self.filtered)
        self.filtered = np.where(new, np.where(recent, smoothed, raw), self.filtered)
        self.state, self.time = np.where(new, raw, self.state), np.where(new, times, self.time)
        self.value = np.where(good, self.filtered, np.nan)
        stuck = self.time - self.changed > 3600.0
        quality = np.where(stuck, Quality.UNCERTAIN, np.minimum(self.quality_in, Quality.GOOD))
        self.quality = np.where(good, quality, Quality.BAD).astype(np.uint8)
        reason = np.where(stuck, Reason.STUCK, np.where(self.quality_in == Quality.GOOD, Reason.OK, self.reason_in))
        self.reason = np.where(good, reason, cause).astype(np.uint8)

    def _operate(self) -> Any:
        current, setpoint, _occupancy, _outdoor = self.value.reshape(4, self.zones)
        error = current - setpoint
        idle, cold = np.abs(error) <= 1.0, error < -1.0
        request = np.empty((3, self.zones))
        request[0] = np.where(cold & ~idle, np.minimum(100.0, np.abs(error) * 30.0), 0.0)
        request[1] = np.where(idle | cold, 0.0, np.minimum(100.0, error * 30.0))
        request[2] = np.where(idle, 20.0, 60.0)
        self.text = self.texts[np.where(idle, 0, np.where(cold, 1, 2))]
        return request.ravel()

    def _enforce(self, now: float, request: Any) -> None:
        finite = np.isfinite(request)
        verdict = np.where(finite, 0, Verdict.NOT_FINITE | Verdict.FAIL_SAFE)
        verdict |= np.where(request < 0.0, Verdict.CLAMPED_LOW, 0) | np.where(request > 100.0, Verdict.CLAMPED_HIGH, 0)
        wanted = np.clip(request, 0.0, 100.0)
        limited = np.clip(wanted, self.out - 10.0, self.out + 10.0)
        verdict |= np.where(limited != wanted, Verdict.STEP_LIMITED, 0)
        limited = np.where(finite, limited, 0.0)
        small = finite & (np.abs(limited - self.out) < 0.5)
        verdict |= np.where(small, Verdict.DEAD_BAND, 0)
        out = np.where(small, self.out, limited)
        self.switched = np.where((out > 50.0) != (self.out > 50.0), now, self.switched)
        self.made = np.where(out != self.out, now, self.made)
        self.out, self.verdict = out, verdict.astype(np.uint32)


def require_same(zones: int, mode: str) -> None:
    """Both loops see the same readings and must perceive and ask the same, bit by bit."""
    ours, theirs = KernelLoop(zones, mode), NumpyLoop(zones)
    weather = Weather(zones)
    for now in range(1, 20):
        raw = weather.next()
        raw[now] = (np.nan, 99.0, -999.0, 30.0)[now % 4]
        ours.scan(float(now), raw, {})
        theirs.scan(float(now), raw, {})
        same = np.array_equal(ours.value, theirs.value, equal_nan=True)
        same &= np.array_equal(ours.quality, theirs.quality) and np.array_equal(ours.reason, theirs.reason)
        good = ours.status == CallStatus.OK
        same &= np.array_equal(ours.text[good].view(f"S{TEXT_BYTES}").ravel(), theirs.text[good])
        if not same:
            raise SystemExit(f"the kernels and numpy disagree at scan {now}: the figures would compare different work")


def measure(make: Callable[[int], Any], zones: int, scans: int) -> dict[str, float]:
    """Median ns a zone of each stage and of all."""
    loop, weather = make(zones), Weather(zones)
    rounds: list[dict[str, float]] = []
    for scan in range(scans):
        spent: dict[str, float] = {}
        loop.scan(float(scan + 1), weather.next(), spent)
        rounds.append({**spent, "total": sum(spent.values())})
    return {name: statistics.median(entry[name] for entry in rounds[scans // 5 :]) / zones * 1e9 for name in rounds[0]}


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zones", type=int, default=10_000)
    parser.add_argument("--mode", choices=("jit", "aot"), default="jit")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    require_same(500, options.mode)
    figures = {
        f"kernels ({options.mode})": measure(lambda zones: KernelLoop(zones, options.mode), options.zones, 100),
        "  as configs/demo": measure(lambda zones: KernelLoop(zones, options.mode, DEMO_CHECKS), options.zones, 100),
        "numpy": measure(NumpyLoop, options.zones, 100),
        "plain Python": measure(lambda zones: KernelLoop(zones, "python"), PYTHON_ZONES, 10),
    }
    if options.json:
        print(json.dumps({"zones": options.zones, "ns_per_zone": figures}, indent=2))
        return
    print(f"{'ns a zone':<18}{'perceive':>10}{'operate':>10}{'enforce':>10}{'total':>10}{'ratio':>8}")
    best = next(iter(figures.values()))["total"]
    for name, row in figures.items():
        print(
            f"{name:<18}"
            + "".join(f"{row[stage]:>10.1f}" for stage in ("perceive", "operate", "enforce", "total"))
            + f"{row['total'] / best:>7.1f}x"
        )


if __name__ == "__main__":
    main()
