"""Readings that make a condition true or false, found by trying values around every threshold it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

from safety.expressions import Condition

MOST_TRIALS = 200_000
NEAR = 1e-3
"""How far beside a threshold is tried, as a share of the point's range."""

Range = tuple[float, float]
CONTACT: Range = (0.0, 1.0)


def around(conditions: Sequence[Condition], ranges: Mapping[str, Range]) -> dict[str, tuple[float, ...]]:
    """Point → the values worth trying: beside each of its thresholds, then the ends of its range, all inside the range.

    Args:
        conditions: what is to be decided.
        ranges: full point name → the span of its readings, in its unit.
    """
    found: dict[str, list[float]] = {name: [] for condition in conditions for name in condition.points}
    for condition in conditions:
        for step in condition.program:
            if not step.left:
                continue
            low, high = ranges[step.left]
            beside = NEAR * (high - low)
            if step.left == step.right or step.gain == 0.0:
                found[step.left] += [step.offset - beside, step.offset, step.offset + beside]
            else:
                low, high = ranges[step.right]
                for other in (low, 0.5 * (low + high), high):
                    level = step.gain * other + step.offset
                    found[step.right].append(other)
                    found[step.left] += [level - beside, level, level + beside]
    return {name: _in_order(values, ranges[name]) for name, values in found.items()}


def _in_order(beside: Sequence[float], span: Range) -> tuple[float, ...]:
    """Thresholds first, so that what is injected is just enough; a contact is only off or on."""
    values = span if span == CONTACT else (*beside, *span)
    return tuple(dict.fromkeys(value for value in values if span[0] <= value <= span[1]))


def search(
    candidates: Mapping[str, tuple[float, ...]], wanted: Callable[[Mapping[str, float]], bool]
) -> dict[str, float] | None:
    """The first combination that is wanted; None if none is, or if there are too many to try."""
    trials: Iterator[tuple[float, ...]] = product(*candidates.values())
    for _, values in zip(range(MOST_TRIALS), trials, strict=False):
        readings = dict(zip(candidates, values, strict=True))
        if wanted(readings):
            return readings
    return None
