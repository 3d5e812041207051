"""What @poet costs a call, beside the usual libraries stacked on the same function.

    python benchmarks/decorator.py [--json]

The peer is tenacity (retry with jitter) around pybreaker (circuit breaker) around pydantic (validate_call), with a structlog event in
the second row. It has no timeout; @poet's 30 s timeout is on, and it is the larger part of what @poet costs.
The figures are medians over many rounds of the time of one call in one thread. Trust the ratios more than the microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import pybreaker
import structlog
import tenacity
from pydantic import validate_call

from agent.domains.building_management import HVACCommand
from agent.poet import poet

ROUNDS = 60
CALLS = 1000


def add(a: float, b: float) -> float:
    """The trivial function."""
    return a + b


async def add_async(a: float, b: float) -> float:
    """The trivial coroutine function."""
    return a + b


@poet(domain="building_management")
def zone(current_temp: float, setpoint: float, occupancy: float, outdoor_temp: float) -> HVACCommand:
    """A control function whose inputs and result are checked."""
    return HVACCommand(min(100.0, max(0.0, setpoint - current_temp) * 30.0), 0, 60, "Heating")


def stacked(function: Callable[..., Any], log: bool) -> Callable[..., Any]:
    """The peer: four libraries on one function."""
    logger = structlog.get_logger("peer")
    retry = tenacity.retry(
        stop=tenacity.stop_after_attempt(4), wait=tenacity.wait_random_exponential(0.1, max=5.0), reraise=True
    )
    breaker = pybreaker.CircuitBreaker(fail_max=5, reset_timeout=30)
    guarded = retry(breaker(validate_call(function)))
    if not log:
        return guarded

    def logged(*args: Any) -> Any:
        started = time.perf_counter()
        result = guarded(*args)
        logger.info(
            "call", function="add", outcome="ok", causes=(), duration_ms=round((time.perf_counter() - started) * 1e3, 3)
        )
        return result

    return logged


def stacked_async(function: Callable[..., Any]) -> Callable[..., Any]:
    """The peer for coroutine functions. pybreaker guards no coroutines, so it is left out: the peer does less."""
    retry = tenacity.retry(
        stop=tenacity.stop_after_attempt(4), wait=tenacity.wait_random_exponential(0.1, max=5.0), reraise=True
    )
    return retry(validate_call(function))


def measure(call: Callable[..., Any], *args: Any) -> float:
    """Median microseconds of one call."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(CALLS):
            call(*args)
        rounds.append((time.perf_counter() - started) / CALLS)
    return statistics.median(rounds) * 1e6


def measure_async(call: Callable[..., Any], *args: Any) -> float:
    """Median microseconds of one awaited call."""

    async def body() -> list[float]:
        rounds = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            for _ in range(CALLS):
                await call(*args)
            rounds.append((time.perf_counter() - started) / CALLS)
        return rounds

    return statistics.median(asyncio.run(body())) * 1e6


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    with open(os.devnull, "w", encoding="utf-8") as sink:  # noqa: PTH123  (os.devnull is a name, not a path of ours)
        structlog.configure(
            processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
            logger_factory=structlog.PrintLoggerFactory(sink),
            cache_logger_on_first_use=True,
        )
        plain = measure(add, 1.0, 2.0)
        rows = {
            "sync": (measure(poet()(add), 1.0, 2.0), measure(stacked(add, log=False), 1.0, 2.0)),
            "sync, no timeout": (
                measure(poet(timeout=None)(add), 1.0, 2.0),
                measure(stacked(add, log=False), 1.0, 2.0),
            ),
            "sync, log event": (
                measure(poet(profile="production")(add), 1.0, 2.0),
                measure(stacked(add, log=True), 1.0, 2.0),
            ),
            "async": (measure_async(poet()(add_async), 1.0, 2.0), measure_async(stacked_async(add_async), 1.0, 2.0)),
        }
        domain = measure(zone, 20.0, 22.0, 1.0, 5.0)
    if as_json:
        figures = {
            name: {"poet_us": ours, "stacked_us": peer, "ratio": peer / ours} for name, (ours, peer) in rows.items()
        }
        print(json.dumps({"plain_us": plain, "rows": figures, "domain_us": domain}, indent=2))
        return
    print(f"{'µs a call':<20}{'@poet':>8}{'stacked':>10}{'ratio':>8}")
    for name, (ours, peer) in rows.items():
        print(f"{name:<20}{ours:>8.2f}{peer:>10.2f}{peer / ours:>7.1f}x")
    print(f"plain function {plain:.2f}; with a domain that checks 4 inputs and the command {domain:.2f}")


if __name__ == "__main__":
    main()
