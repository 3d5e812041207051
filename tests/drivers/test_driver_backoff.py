"""The backoff: grows, never beyond a minute, for ever, and wrong credentials wait longest."""

from __future__ import annotations

import itertools

import pytest

from drivers.backoff import CAP_S, FIRST_S, JITTER, Backoff


def test_it_grows_to_the_cap_and_stays_there_for_ever() -> None:
    backoff = Backoff(chance=lambda: 0.0)
    delays = [backoff.failure() for _ in range(100_000)]
    assert delays[0] == FIRST_S
    assert all(b > a for a, b in itertools.pairwise(delays[:8]))
    assert delays[7] == CAP_S
    assert set(delays[7:]) == {CAP_S}


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999999])
def test_jitter_only_shortens(chance: float) -> None:
    backoff, full = Backoff(chance=lambda: chance), Backoff(chance=lambda: 0.0)
    for _ in range(20):
        delay, longest = backoff.failure(), full.failure()
        assert longest * (1.0 - JITTER) <= delay <= longest


def test_devices_do_not_come_back_in_step() -> None:
    delays = {Backoff().failure() for _ in range(20)}
    assert len(delays) > 10


def test_wrong_credentials_wait_the_maximum_at_once() -> None:
    assert Backoff(chance=lambda: 0.0).auth_failure() == CAP_S


def test_success_starts_it_over() -> None:
    backoff = Backoff(chance=lambda: 0.0)
    for _ in range(10):
        backoff.failure()
    assert backoff.attempts == 10
    backoff.success()
    assert backoff.attempts == 0
    assert backoff.failure() == FIRST_S
