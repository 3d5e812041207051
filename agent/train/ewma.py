"""EWMA run-to-run control of one parameter: pure arithmetic, one step per window of feedback.

The process is taken as ``y = a + b·u``: ``u`` the parameter, ``y`` the mean feedback of a window, ``b`` the declared
gain, ``a`` an unknown intercept that drifts. With target ``T`` and weight ``λ`` (Ingolfsson & Sachs, Journal of Quality
Technology 25(4), 1993):

    a ← λ·(y − b·u) + (1 − λ)·a        u ← (T − a) / b

With a true gain ``β`` and ``ξ = β/b`` the error ``y − T`` shrinks by the factor ``1 − λξ`` per window: stable iff
``0 < λξ < 2``, without overshoot iff ``λξ ≤ 1``. A drift of δ per window leaves an offset δ/(λξ); white noise σ becomes
σ·√(2/(2 − λξ)). There is no wind-up: ``a`` is computed from the value that was really in force, however it was limited.

Around that law stand the limits that keep one bad window from moving a building or a tool: dead band, outlier test,
step and range.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Final, NamedTuple

DEAD_BAND: Final = 0.35
"""In σ of the feedback: inside it a move would follow noise (0.25–0.5 σ is usual in run-to-run practice)."""

OUTLIER: Final = 4.0
"""In σ: a prediction error beyond it is not believed the first times."""

SHIFT_AFTER: Final = 3
"""So many outliers in a row on one side are a real shift (maintenance, a new sensor), not outliers."""

SHIFT_WEIGHT: Final = 0.7
"""The weight of the window that confirms a shift; 0.6–0.8 is used for the lots after a maintenance."""

MIN_HISTORY: Final = 8
"""Prediction errors needed before σ is believed; until then there is neither an outlier test nor a dead band."""

HISTORY: Final = 32
"""Prediction errors kept."""

RESOLUTION: Final = 1e-3
"""Of the parameter's range: a smaller move is not worth a version, and noiseless feedback would shrink σ to nothing."""

_PLAUSIBLE: Final = 1e150  # NaN fails the comparison; the squares of larger numbers overflow
_MAD_TO_SIGMA: Final = 1.4826  # median absolute deviation → standard deviation of a normal distribution


class EwmaSettings(NamedTuple):
    """The declared part: ``gain`` in feedback unit per parameter unit, not 0; ``weight`` is λ in (0, 1].

    ``low``, ``high`` and ``max_step`` are in the parameter's unit.
    """

    gain: float
    weight: float
    low: float
    high: float
    max_step: float


class Step(NamedTuple):
    """Outcome of one window: the new value (None: no move), why, the solution's standard error (None: not known)."""

    value: float | None
    reason: str
    standard_error: float | None


class EwmaLearner:
    """Learns one parameter. The same windows give the same steps; ``state`` and ``restore`` carry it over a restart."""

    def __init__(self, settings: EwmaSettings) -> None:
        if settings.gain == 0.0 or not all(map(math.isfinite, settings)):
            raise ValueError("an EWMA learner needs finite settings and a gain that is not zero")
        self._settings = settings
        self._intercept: float | None = None
        self._windows = 0
        self._errors: deque[float] = deque(maxlen=HISTORY)
        self._suspects = 0  # outliers in a row; the sign is their side

    def step(self, in_force: float, mean: float, target: float) -> Step:
        """Learn from one window and say where the parameter should go.

        Args:
            in_force: the parameter's value while the window was measured.
            mean: the mean of the window's good samples.
            target: what the mean should have been, in the same unit.
        """
        observed = mean - self._settings.gain * in_force
        if not (abs(observed) <= _PLAUSIBLE and abs(target) <= _PLAUSIBLE):
            return Step(
                None, f"mean {mean:g} for target {target:g} is no usable result, ignored", self.standard_error()
            )
        weight = self._settings.weight
        if self._intercept is None:
            self._intercept = observed
        else:
            error = observed - self._intercept
            sigma = self.sigma()
            scale = None if sigma is None else max(sigma, self._smallest_effect())
            if scale is not None and abs(error) > OUTLIER * scale:
                if not self._is_shift(error):
                    far = f"outlier: mean {mean:g} is {abs(error) / scale:.1f} sigma from the prediction, ignored"
                    return Step(None, far, self.standard_error())
                self._errors.clear()
                self._windows = 0
                weight = max(weight, SHIFT_WEIGHT)
            else:
                self._errors.append(error)
            self._suspects = 0
            self._intercept += weight * error
        self._windows += 1
        return self._move(in_force, mean, target)

    def sigma(self) -> float | None:
        """Return the robust standard deviation of the prediction error, None with less than ``MIN_HISTORY`` of them."""
        if len(self._errors) < MIN_HISTORY:
            return None
        deviations = sorted(map(abs, self._errors))
        middle = len(deviations) // 2
        return _MAD_TO_SIGMA * 0.5 * (deviations[middle] + deviations[~middle])

    def standard_error(self) -> float | None:
        """Return the standard error of the solution (T − a)/b in the parameter's unit; None while σ is unknown.

        For white noise: an EWMA that began with its first observation has the variance σ²·(q + λ(1 − q)/(2 − λ)) with
        q = (1 − λ)^(2(n − 1)), and σ² is (2 − λ)/2 of the variance of the prediction errors.
        """
        sigma = self.sigma()
        if sigma is None:
            return None
        weight = self._settings.weight
        start = (1.0 - weight) ** (2 * max(self._windows - 1, 0))
        variance = start + weight * (1.0 - start) / (2.0 - weight)
        return sigma * math.sqrt(0.5 * (2.0 - weight) * variance) / abs(self._settings.gain)

    def state(self) -> dict[str, Any]:
        """Return what a restart must know, as JSON types."""
        return {
            "gain": self._settings.gain,
            "intercept": self._intercept,
            "windows": self._windows,
            "errors": list(self._errors),
            "suspects": self._suspects,
        }

    def restore(self, state: dict[str, Any]) -> bool:
        """Take over a stored state; return False and stay fresh if it has another gain or is not such a state."""
        try:
            intercept = float(state["intercept"])
            errors = [float(error) for error in state["errors"]]
            windows, suspects = int(state["windows"]), int(state["suspects"])
            same = float(state["gain"]) == self._settings.gain
        except (KeyError, TypeError, ValueError, OverflowError):
            return False
        if not same or windows < 1 or not all(map(math.isfinite, [intercept, *errors])):
            return False
        self._intercept, self._windows = intercept, windows
        self._errors.extend(errors[-HISTORY:])
        self._suspects = max(-SHIFT_AFTER, min(SHIFT_AFTER, suspects))
        return True

    def _smallest_effect(self) -> float:
        """What a move of ``RESOLUTION`` does to the feedback."""
        settings = self._settings
        return RESOLUTION * (settings.high - settings.low) * abs(settings.gain)

    def _is_shift(self, error: float) -> bool:
        side = 1 if error > 0.0 else -1
        self._suspects = self._suspects + side if self._suspects * side > 0 else side
        return abs(self._suspects) >= SHIFT_AFTER

    def _move(self, in_force: float, mean: float, target: float) -> Step:
        settings = self._settings
        assert self._intercept is not None
        found = f"mean {mean:g} for target {target:g}"
        miss = target - (self._intercept + settings.gain * in_force)
        sigma = self.sigma()
        if abs(miss) <= max(DEAD_BAND * (sigma or 0.0), self._smallest_effect()):
            return Step(None, f"{found}: within the dead band", self.standard_error())
        wanted = in_force + miss / settings.gain  # = (T − a) / b, without the cancellation
        stepped = max(in_force - settings.max_step, min(in_force + settings.max_step, wanted))
        value = max(settings.low, min(settings.high, stepped))
        if value == in_force:
            return Step(
                None, f"{found}: the parameter is at the end of its range ({in_force:g})", self.standard_error()
            )
        limited = (
            ""
            if value == wanted
            else f", wanted {wanted:g}, limited by " + ("the step" if value == stepped else "the range")
        )
        return Step(value, f"{found}: {in_force:g} -> {value:g}{limited}", self.standard_error())
