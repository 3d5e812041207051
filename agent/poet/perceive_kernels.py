"""Perceive, as one kernel over every input point of the site.

A predicate is written so that NaN fails it: ``not (low <= v <= high)``. Nothing here allocates, raises or knows a
protocol. The codes are those of ``safety.values.Quality`` and ``Reason`` (a test compares them), repeated because a
kernels module stands alone.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

BAD = 0
UNCERTAIN = 1
GOOD = 2

NEVER_READ = 0
OK = 1
STALE = 2
NOT_A_NUMBER = 3
OUT_OF_RANGE = 4
RATE_OF_CHANGE = 5
STUCK = 6
DEVICE_ERROR = 8
SUBSTITUTED = 11

RATE = 1
STUCK_CHECK = 2
SMOOTH = 4
FALLBACK = 8
"""Bits of ``features``: most points have none of these, and then their columns and memory are not even read."""
REMEMBERS = RATE | STUCK_CHECK | SMOOTH

_TABLE = "Array(f8, 1, 'C', readonly=True)"

SIGNATURES: dict[str, str] = {
    "perceive": "void(f8, f8[::1], u1[::1], u1[::1], f8[::1], "  # now, raw
    + "Array(u1, 1, 'C', readonly=True), "  # features
    + ", ".join([_TABLE] * 7)  # table
    + ", f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], u1[::1], u1[::1])",  # state, out
}
HELPERS: tuple[str, ...] = ("moved_too_fast",)


def moved_too_fast(
    value: float,
    time: float,
    stale_after_s: float,
    max_change_per_s: float,
    last_value: float,
    last_time: float,
) -> bool:
    """Whether a value changed faster than any real process does.

    The rate is judged against the last accepted sample, over the time between the two. It is not judged across a gap longer than
    ``stale_after_s``: nothing is known of what happened in it, so the first plausible value after it is the new anchor.
    """
    gap = time - last_time
    return 0.0 < gap <= stale_after_s and abs(value - last_value) > max_change_per_s * gap


def perceive(
    now: float,
    raw_value: Floats,
    raw_quality: Bytes,
    raw_reason: Bytes,
    raw_time: Floats,
    features: Bytes,
    low: Floats,
    high: Floats,
    stale_after_s: Floats,
    max_change_per_s: Floats,
    stuck_after_s: Floats,
    smooth_s: Floats,
    fallback: Floats,
    state_value: Floats,
    state_time: Floats,
    state_changed: Floats,
    filtered: Floats,
    value: Floats,
    quality: Bytes,
    reason: Bytes,
) -> None:
    """Judge, filter and if need be replace every raw sample. All arrays have shape (n_points,).

    Args:
        now: control clock, s.
        raw_value: in the point's unit, as the driver delivered it; raw_quality and raw_reason: the driver's word on it.
        raw_time: control clock when it was measured, s.
        features: which of the four optional checks below a point has (RATE, STUCK_CHECK, SMOOTH, FALLBACK).
        low, high: believable range, point's unit, both ends included.
        stale_after_s: greatest believable age, s (inf: any).
        max_change_per_s: greatest believable change, point's unit per s (inf or NaN: any).
        stuck_after_s: not changing at all for longer is uncertain, s (inf or NaN: never).
        smooth_s: time constant of a first-order filter over accepted samples, s (NaN, inf or 0: none). Backward Euler,
            y += dt / (tau + dt) * (v - y): stable for every dt.
        fallback: stands in for a bad value, with quality UNCERTAIN (NaN or inf: none).
        state_value, state_time, state_changed: last accepted sample, its time, and when the value last changed (in and
            out; NaN = nothing accepted yet).
        filtered: the filter's memory (in and out).
        value, quality, reason: the result. A bad value without fallback is NaN.
    """
    for i in range(raw_value.shape[0]):  # no branch in here: the compiler does several points at once
        sample = raw_value[i]
        cause = OK  # the checks in reverse, so that the first cause in their order is the one reported
        cause = cause if low[i] <= sample <= high[i] else OUT_OF_RANGE
        cause = cause if now - raw_time[i] <= stale_after_s[i] else STALE
        cause = cause if abs(sample) < math.inf else NOT_A_NUMBER
        device = DEVICE_ERROR if raw_reason[i] == OK else raw_reason[i]
        cause = device if raw_quality[i] == BAD else cause
        cause = NEVER_READ if raw_reason[i] == NEVER_READ else cause
        believed = cause == OK
        good = raw_quality[i] == GOOD
        value[i] = sample if believed else math.nan
        quality[i] = (GOOD if good else UNCERTAIN) if believed else BAD
        reason[i] = (OK if good else raw_reason[i]) if believed else cause

    for i in range(raw_value.shape[0]):
        has = features[i]
        if has == 0:
            continue
        if (
            quality[i] != BAD
            and has & RATE
            and moved_too_fast(
                raw_value[i], raw_time[i], stale_after_s[i], max_change_per_s[i], state_value[i], state_time[i]
            )
        ):
            value[i] = math.nan
            quality[i] = BAD
            reason[i] = RATE_OF_CHANGE
        if quality[i] == BAD:
            if has & FALLBACK:
                value[i] = fallback[i]
                quality[i] = UNCERTAIN
                reason[i] = SUBSTITUTED
            continue
        if not has & REMEMBERS:
            continue

        gap = raw_time[i] - state_time[i]
        if not (gap <= 0.0):  # a new sample, or the first one (the gap is NaN)
            if has & STUCK_CHECK and not (raw_value[i] == state_value[i] and gap <= stale_after_s[i]):
                state_changed[i] = raw_time[i]
            if has & SMOOTH:
                if gap <= stale_after_s[i]:
                    filtered[i] += gap / (smooth_s[i] + gap) * (raw_value[i] - filtered[i])
                else:
                    filtered[i] = raw_value[i]
            state_value[i] = raw_value[i]
            state_time[i] = raw_time[i]
        if has & SMOOTH:
            value[i] = filtered[i]
        if has & STUCK_CHECK and state_time[i] - state_changed[i] > stuck_after_s[i]:
            quality[i] = UNCERTAIN
            reason[i] = STUCK
