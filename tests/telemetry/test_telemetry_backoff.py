"""Delays between attempts: growing, jittered, at most a minute, for ever."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.telemetry.backoff import FACTOR, FIRST_S, JITTER, LONGEST_S, SLOWEST_S, Backoff


class NoJitter(random.Random):
    def uniform(self, a: float, b: float) -> float:
        del a
        return b


def test_delays_grow_to_a_minute_and_stay_there() -> None:
    backoff = Backoff(NoJitter())
    delays = [backoff.next() for _ in range(12)]
    assert delays[0] == FIRST_S
    assert all(later == min(earlier * FACTOR, LONGEST_S) for earlier, later in pairwise(delays))
    assert delays[-1] == LONGEST_S


@given(st.integers(), st.integers(1, 200))
def test_no_delay_is_ever_above_a_minute_or_near_zero(seed: int, attempts: int) -> None:
    backoff = Backoff(random.Random(seed))
    delays = [backoff.next() for _ in range(attempts)]
    assert all(FIRST_S * JITTER <= delay <= LONGEST_S for delay in delays)


def test_a_hopeless_case_goes_straight_to_the_slowest_rate_and_stays_there() -> None:
    backoff = Backoff(NoJitter())
    assert backoff.slowest() == SLOWEST_S
    assert backoff.next() == SLOWEST_S


def test_a_good_connection_makes_delays_short_again() -> None:
    backoff = Backoff(NoJitter())
    backoff.slowest()
    backoff.reset()
    assert backoff.next() == FIRST_S


def test_two_gateways_do_not_wait_equally_long() -> None:
    assert Backoff(random.Random(1)).slowest() != Backoff(random.Random(2)).slowest()
