"""EWMA run-to-run control of one parameter: pure arithmetic, one step per window of feedback.

The process is taken as ``y = a + b·u``: ``u`` the parameter, ``y`` the mean feedback of a window, ``b`` the declared
gain, ``a`` an unknown intercept that drifts. With target ``T`` and weight ``λ`` (Ingolfsson & Sachs, Journal of Quality
Technology 25(4), 1993):

    a ← λ·(y − b·u) + (1 − λ)·a        u ← (T − a) / b

For a constant target that is ``u ← u − λ·(y − T)/b``, and this second form is what moves the parameter: a move that was
held back or shortened by a limit leaves nothing behind in ``a`` that a later move would overdo. ``a`` only predicts the
next window, for the outlier test and for σ. While the parameter is held, the misses ``y − T`` are averaged with ``λ``.

With a true gain ``β`` and ``ξ = β/b`` the miss shrinks by the factor ``1 − λξ`` per move, limited or not: stable iff
``0 < λξ < 2``, without overshoot iff ``λξ ≤ 1``. A drift of δ per window leaves an offset δ/(λξ); white noise σ becomes
σ·√(2/(2 − λξ)). Beyond the bound, or with the gain's sign wrong, only range and step hold the parameter.
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
"""So many outliers in a row on one side are a real shift (maintenance, a new sensor), not outliers.

From then on the ordinary weight follows it: a larger one would leave the stability bound when the gain is wrong."""

MIN_HISTORY: Final = 8
"""Prediction errors needed before σ is believed; until then there is neither an outlier test nor a dead band."""

HISTORY: Final = 32
"""Prediction errors kept."""

RESOLUTION: Final = 1e-3
"""Of the parameter's range: a smaller miss is not worth a version, and noiseless feedback would shrink σ to nothing."""

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
        self._smallest = RESOLUTION * (settings.high - settings.low) * abs(settings.gain)
        self._intercept: float | None = None
        self._windows = 0  # behind the intercept
        self._errors: deque[float] = deque(maxlen=HISTORY)
        self._suspects = 0  # outliers in a row; the sign is their side
        self._miss = 0.0  # EWMA from zero of y − T since the last move
        self._held = 0  # windows since the last move

    def step(self, in_force: float, mean: float, target: float) -> Step:
        """Learn from one window and say where the parameter should go.

        Args:
            in_force: the parameter's value while the window was measured.
            mean: the mean of the window's good samples.
            target: what the mean should have been, in the same unit.
        """
        found = f"mean {mean:g} for target {target:g}"
        observed = mean - self._settings.gain * in_force
        if not (abs(observed) <= _PLAUSIBLE and abs(mean) <= _PLAUSIBLE and abs(target) <= _PLAUSIBLE):
            return Step(None, f"{found}: no usable result, ignored", self.standard_error())
        far = self._predict(observed)
        if far is not None:
            return Step(
                None, f"{found}: {far:.1f} sigma from the prediction, an outlier, ignored", self.standard_error()
            )
        weight = self._settings.weight
        self._miss += weight * (mean - target - self._miss)
        self._held += 1
        share = 1.0 - (1.0 - weight) ** self._held
        if abs(self._miss) <= max(DEAD_BAND * (self.sigma() or 0.0), share * self._smallest):
            return Step(None, f"{found}: within the dead band", self.standard_error())
        value, text = self._limited(in_force, in_force - weight * self._miss / share / self._settings.gain)
        self._miss, self._held = 0.0, 0
        return Step(value, f"{found}: {text}", self.standard_error())

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
            "miss": self._miss,
            "held": self._held,
        }

    def restore(self, state: dict[str, Any]) -> bool:
        """Take over a stored state; return False and stay fresh if it has another gain or is not such a state."""
        try:
            gain, intercept, miss = float(state["gain"]), float(state["intercept"]), float(state["miss"])
            errors = [float(error) for error in state["errors"]]
            windows, suspects, held = int(state["windows"]), int(state["suspects"]), int(state["held"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return False
        if gain != self._settings.gain or not all(abs(x) <= _PLAUSIBLE for x in (intercept, miss, *errors)):
            return False
        if windows < 1 or held < 0 or abs(suspects) >= SHIFT_AFTER:
            return False
        self._intercept, self._windows, self._suspects = intercept, windows, suspects
        self._miss, self._held = miss, held
        self._errors.extend(errors[-HISTORY:])
        return True

    def _predict(self, observed: float) -> float | None:
        """Learn the intercept from a window that fits the prediction; of an outlier return how many σ it is off."""
        if self._intercept is None:
            self._intercept = observed
            self._windows = 1
            return None
        error = observed - self._intercept
        sigma = self.sigma()
        scale = math.inf if sigma is None else max(sigma, self._smallest)
        if abs(error) > OUTLIER * scale:
            side = 1 if error > 0.0 else -1
            self._suspects = self._suspects + side if self._suspects * side > 0 else side
            if abs(self._suspects) < SHIFT_AFTER:
                return abs(error) / scale
            self._errors.clear()
            self._windows = 0
            self._miss, self._held = 0.0, 0
        else:
            self._errors.append(error)
        self._suspects = 0
        self._intercept += self._settings.weight * error
        self._windows += 1
        return None

    def _limited(self, in_force: float, wanted: float) -> tuple[float | None, str]:
        settings = self._settings
        stepped = max(in_force - settings.max_step, min(in_force + settings.max_step, wanted))
        value = max(settings.low, min(settings.high, stepped))
        if value == in_force:
            return None, f"the parameter is at the end of its range ({in_force:g})"
        limit = (
            "" if value == wanted else f", wanted {wanted:g}, limited by its {'step' if value == stepped else 'range'}"
        )
        return value, f"{in_force:g} -> {value:g}{limit}"
