"""What more rows would bring: a power law through the errors of models trained on shares of them.

The error is a metric's distance from its best value. It falls as floor + factor * rows ** -exponent
(Cortes et al. 1993, NIPS 6); fewer than four models do not tell a floor, so that it is 0. Exponents
are tried one by one: that fits all resamples at once, and has no start to converge from. Intervals
are paired: all models are judged on the same resamples of the test part. What the law leaves of the
errors is noise of trainings, and is in the interval of the gain too.

Legend: K models, the fewest rows first, N resamples, C exponents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eagleray.evaluation import intervals
from eagleray.learn import metrics
from eagleray.state.estimates import Estimate
from eagleray.state.learning_curves import CurvePoint, LearningCurve, Outcome, PowerLaw

EXPONENTS_C = np.linspace(0, 2, 81)
LEAST_FOR_FLOOR = 4
LEAST_ROWS = 30
"""Test rows with fewer of which nothing is clear."""
HELPS = 0.02
"""Share of the error that twice the rows must save for more rows to help."""
HARDLY = 0.05
"""Upper bound of this share where they hardly do."""


class _Laws(NamedTuple):
    """Power laws, one for each resample (N), of rows divided by those of the last model."""

    floor: np.ndarray
    factor: np.ndarray
    exponent: np.ndarray

    @property
    def gain(self) -> np.ndarray:
        """How much the error falls with twice the rows of the last model (N)."""
        gain_N: np.ndarray = self.factor * (1 - 2.0**-self.exponent)
        return gain_N


def measure(
    rows_K: Sequence[int],
    judged_K: Sequence[intervals.Judged],
    metric: str,
    *,
    seconds: float = 0.0,
) -> LearningCurve | None:
    """The curve of two models or more on the same test rows.

    None where they do not define the metric, or it is beyond its best value.
    """
    mode = metrics.REGISTRY[metric].mode
    errors_K = _errors([one.values[metric] for one in judged_K], mode)
    if not (np.isfinite(errors_K).all() and (errors_K >= 0).all()):
        return None
    law = _fit(rows_K, errors_K[None])
    gain = Estimate(value=law.gain.item())
    last = Estimate(value=(errors_K[-2] - errors_K[-1]).item())
    if metric in judged_K[-1].quick:
        resampled_NK = _errors([one.resampled[metric] for one in judged_K], mode).T
        without_NK = _errors([one.without[metric] for one in judged_K], mode).T
        units = judged_K[-1].units
        moved_NK = resampled_NK + _noise(rows_K, errors_K, law, len(resampled_NK))
        moved, without = (_gains(rows_K, one) for one in (moved_NK, without_NK))
        gain = intervals.change(gain.value, moved, without, units)
        drawn, without = (one[:, -2] - one[:, -1] for one in (resampled_NK, without_NK))
        last = intervals.change(last.value, drawn, without, units)
    scores = [intervals.estimates(one).get(metric) for one in judged_K]
    return LearningCurve(
        metric=metric,
        mode=mode,
        points=[
            CurvePoint(rows=rows, score=score)
            for rows, score in zip(rows_K, scores, strict=True)
            if score is not None
        ],
        law=PowerLaw(
            rows=rows_K[-1],
            floor=law.floor.item(),
            factor=law.factor.item(),
            exponent=law.exponent.item(),
        ),
        last=last,
        gain=gain,
        outcome=_outcome(gain, errors_K[-1].item(), judged_K[-1].units),
        seconds=seconds,
    )


def _errors(scores: Sequence[float] | Sequence[np.ndarray], mode: str) -> np.ndarray:
    found: np.ndarray = np.array(scores, dtype=float)
    return 1 - found if mode == "max" else found


def _outcome(gain: Estimate, error: float, rows: int) -> Outcome:
    if error <= 0:
        return "hardly"  # nothing is left to gain
    if rows < LEAST_ROWS or gain.low is None or gain.high is None:
        return "unclear"
    if gain.low > 0 and gain.value >= HELPS * error:
        return "helps"
    return "hardly" if gain.value < HELPS * error and gain.high < HARDLY * error else "unclear"


def _noise(rows_K: Sequence[int], errors_K: np.ndarray, law: _Laws, count: int) -> np.ndarray:
    """Residuals of the law with random signs (N, K).

    It stands for other draws of the shares and other trainings: a wild bootstrap (Wu 1986).
    """
    spare = len(rows_K) - (3 if law.floor.item() else 2)
    if spare < 1:
        return np.zeros((count, len(rows_K)))
    at_K = law.floor + law.factor * (np.array(rows_K) / rows_K[-1]) ** -law.exponent
    signs_NK = np.random.default_rng(0).choice([-1.0, 1.0], (count, len(rows_K)))
    noise_NK: np.ndarray = signs_NK * (errors_K - at_K) * np.sqrt(len(rows_K) / spare)
    return noise_NK


def _gains(rows_K: Sequence[int], errors_NK: np.ndarray) -> np.ndarray:
    """What twice the rows would bring (N), NaN where a resample does not define the errors."""
    gain_N = np.full(len(errors_NK), np.nan)
    finite_N = np.isfinite(errors_NK).all(1)
    if finite_N.any():
        gain_N[finite_N] = _fit(rows_K, errors_NK[finite_N]).gain
    return gain_N


def _fit(rows_K: Sequence[int], errors_NK: np.ndarray) -> _Laws:
    """The law of least squares of each resample; no part of an error is negative."""
    x_CK = (np.array(rows_K) / rows_K[-1]) ** -EXPONENTS_C[:, None]
    factor_NC = np.maximum(0, errors_NK @ x_CK.T / (x_CK**2).sum(1))
    floor_NC = np.zeros_like(factor_NC)
    if len(rows_K) >= LEAST_FOR_FLOOR:
        off_CK = x_CK - x_CK.mean(1, keepdims=True)
        spread_C = (off_CK**2).sum(1)
        slope_NC = np.maximum(0, errors_NK @ off_CK.T / np.where(spread_C > 0, spread_C, np.inf))
        mean_NC = errors_NK.mean(1, keepdims=True) - slope_NC * x_CK.mean(1)
        above_NC = mean_NC > 0
        floor_NC, factor_NC = (
            np.where(above_NC, mean_NC, 0),
            np.where(above_NC, slope_NC, factor_NC),
        )
    laws_NCK = floor_NC[..., None] + factor_NC[..., None] * x_CK
    best_N = ((laws_NCK - errors_NK[:, None]) ** 2).sum(2).argmin(1)
    at = np.arange(len(errors_NK)), best_N
    return _Laws(floor_NC[at], factor_NC[at], EXPONENTS_C[best_N])
