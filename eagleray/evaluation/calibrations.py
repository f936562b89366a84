"""Calibration on the validation part, so that what a model says of chances is what happens.

Legend: B rows, C outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from eagleray.learn import schema, tasks
from eagleray.learn.tasks.classes import log_odds

LEAST, MOST = 0.05, 20.0
"""Bounds of a temperature; without them that of a perfect validation part would be 0."""
SLOPES = (1 / MOST, 100.0)
"""Bounds of a slope: a steeper one would make rounding errors of outputs matter."""
DECIMALS = 1
"""Of the log-odds that a curve is fitted on: its points are a tenth apart, so that no rounding of a
model's outputs moves a probability by much."""
BEYOND_NOISE = 1.96  # standard errors
MOST_PARAMETERS = 2  # that a calibration of classes fits
_NEAR = 1e-9  # what a rank may be off by rounding


@dataclass(frozen=True)
class Fitted:
    """What calibration adds to a bundle; `warning` is a sentence without its subject."""

    target: schema.Target
    scale: Mapping[str, float] = field(default_factory=dict)
    warning: str = ""


def fit(how: str, target: schema.Target, truth_B: np.ndarray, outputs: np.ndarray) -> Fitted:
    """Calibrate by a name of `METHODS`; `outputs` are those without calibration."""
    return METHODS[how](target, truth_B, outputs)


def temperature(target: schema.Target, truth_B: np.ndarray, outputs_BC: np.ndarray) -> Fitted:
    """Fit the temperature of the lowest log loss (Guo et al. 2017, arXiv:1706.04599)."""
    from scipy import optimize, special

    log_BC = _logs(outputs_BC)

    def loss(log_temperature: float) -> float:
        logits_BC = log_BC / np.exp(log_temperature)
        true_B = np.take_along_axis(logits_BC, truth_B[:, None], 1)[:, 0]
        return float((special.logsumexp(logits_BC, axis=1) - true_B).mean())

    bounds = (float(np.log(LEAST)), float(np.log(MOST)))
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded")
    return Fitted(target, {"temperature": float(np.exp(found.x))})


def platt(target: schema.Target, truth_B: np.ndarray, outputs_BC: np.ndarray) -> Fitted:
    """Fit slope and offset of the log-odds of two classes, by the lowest log loss (Platt 1999).

    As there, targets are a little less than 0 and 1, so that separable classes get no steep slope.
    """
    from scipy import optimize, special

    odds_B, is_B = log_odds(outputs_BC[:, 1]), truth_B == 1
    share_B = np.where(is_B, (is_B.sum() + 1) / (is_B.sum() + 2), 1 / ((~is_B).sum() + 2))

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        logit_B = line[0] * odds_B + line[1]
        off_B = special.expit(logit_B) - share_B
        value = (np.logaddexp(0, logit_B) - share_B * logit_B).mean()
        return float(value), np.array([(off_B * odds_B).mean(), off_B.mean()])

    bounds = [SLOPES, (None, None)]
    slope, offset = optimize.minimize(loss, (1.0, 0.0), jac=True, bounds=bounds).x
    return Fitted(target, {"temperature": float(1 / slope), "offset": float(offset)})


def isotonic(target: schema.Target, truth_B: np.ndarray, outputs_BC: np.ndarray) -> Fitted:
    """Fit isotonic curves: of two classes the positive one's, else each class against the rest.

    Zadrozny and Elkan 2002.
    """
    positive = tasks.of(target).positive
    classes = range(outputs_BC.shape[1]) if positive is None else [positive]
    curves = tuple(_curve(truth_B == one, outputs_BC[:, one]) for one in classes)
    return Fitted(target.model_copy(update={"curves": curves}))


def conformal(target: schema.Target, truth_B: np.ndarray, outputs_BC: np.ndarray) -> Fitted:
    """Move each quantile so that as many new rows lie below, or above, as its level says.

    Conformalized quantile regression, each side by itself (Romano, Patterson and Candès 2019,
    arXiv:1905.03222, theorem 2). It holds for rows that are drawn like those of the validation
    part, whatever the model.
    """
    off_BC, levels = truth_B.astype(float)[:, None] - outputs_BC, target.quantiles
    shifts = tuple(_shift(off_B, level) for off_B, level in zip(off_BC.T, levels, strict=True))
    return Fitted(
        target.model_copy(update={"shifts": shifts}), warning=_reach(levels, len(truth_B))
    )


Method = Callable[[schema.Target, np.ndarray, np.ndarray], Fitted]

METHODS: dict[str, Method] = {
    "platt": platt,
    "temperature": temperature,
    "isotonic": isotonic,
    "conformal": conformal,
}
OF_CLASSES = frozenset(("platt", "temperature", "isotonic"))
"""Methods for probabilities of classes."""


def lowers_loss(truth_B: np.ndarray, before_BC: np.ndarray, after_BC: np.ndarray) -> bool:
    """Whether a calibration lowers the log loss of probabilities beyond noise.

    On the rows that it was fitted on, it gains 1 / B a parameter more than on others (Akaike).
    """
    count = len(truth_B)
    rows = np.arange(count)
    gain_B = _logs(after_BC)[rows, truth_B] - _logs(before_BC)[rows, truth_B]
    noise = BEYOND_NOISE * gain_B.std() / math.sqrt(count)
    return bool(gain_B.mean() > MOST_PARAMETERS / count + noise)


def _curve(is_B: np.ndarray, said_B: np.ndarray) -> schema.Curve:
    """Fit a curve that says neither 0 nor 1, of which one row could prove it wrong."""
    from sklearn.isotonic import IsotonicRegression

    least = 1 / (len(is_B) + 2)
    fitted = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip")
    fitted.fit(np.round(log_odds(said_B), DECIMALS), is_B)
    points = fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist()
    return schema.Curve(log_odds=points[0], probability=points[1])


def _logs(outputs_BC: np.ndarray) -> np.ndarray:
    """Logarithms, bounded where a probability is 0."""
    least = np.finfo(np.float64).tiny
    logs_BC: np.ndarray = np.log(np.maximum(outputs_BC.astype(np.float64), least))
    return logs_BC


def _shift(off_B: np.ndarray, level: float) -> float:
    """What is added to the quantile: of truth minus quantile the value of the right rank."""
    if level == tasks.MEDIAN:
        return float(np.median(off_B))
    rank = (len(off_B) + 1) * level
    rank = math.ceil(rank - _NEAR) if level > tasks.MEDIAN else math.floor(rank + _NEAR)
    return float(np.sort(off_B)[min(max(rank, 1), len(off_B)) - 1])


def _reach(levels: tuple[float, ...], rows: int) -> str:
    """A warning where there are too few rows for the lowest or the highest level."""
    furthest = max(levels[-1], 1 - levels[0])
    needed = math.ceil(furthest / (1 - furthest) - _NEAR)
    if len(levels) < 2 or rows >= needed:
        return ""
    return (
        f"cannot promise quantiles from {levels[0]:g} to {levels[-1]:g} by {rows:,} validation"
        f" rows: the furthest are {1 / (rows + 1):.3g} and {rows / (rows + 1):.3g};"
        f" {needed:,} rows can"
    )
