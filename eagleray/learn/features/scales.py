"""What is fitted to one column of numbers. Legend: B values, none missing.

The logarithm is computed of operations that IEEE 754 rounds alike on every machine.
"""

import math
import statistics

import numpy as np

FURTHEST = 1e6
"""Bound of a scaled value: nothing is learned so far out, and a model's float32 stays finite."""
LARGEST = 1e30  # bound of a value that is not scaled; its square is still finite in float64

MOST_KNOTS = 1000

_NARROWEST = 1e-30  # what is narrower counts as constant
_LOG_NOISE = 1e-9  # the same of logarithms, as a share of their mean
_LOG_2 = math.log(2)
_ODD = [1 / (2 * place + 1) for place in range(11)]  # of artanh, exact to float64 below 0.172


def affine(
    scale: str, impute: str | float, *, clipped: bool, present: np.ndarray
) -> tuple[float, ...]:
    """Fill for missing values, lower and upper bound, center and divisor.

    If `present` is `clipped`, so are other values.
    """
    if scale == "sign":
        return 0.5, 0.0, 1.0, 0.5, 0.5
    filled = fill(impute, present)
    if not len(present):
        return filled, -LARGEST, LARGEST, 0.0, 1.0
    least, most = -LARGEST, LARGEST
    if clipped or scale == "quantile":
        least, most = float(present.min()), float(present.max())
    if scale in ("none", "quantile"):
        return filled, least, most, 0.0, 1.0
    center, divisor = _fitted(scale, present)
    low, high = center - FURTHEST * divisor, center + FURTHEST * divisor
    if scale == "log":
        low, high = _unlogged(low), _unlogged(high)
    return filled, max(low, least), min(high, most), center, divisor


def fill(impute: str | float, present: np.ndarray) -> float:
    """What stands for a missing value; of several modes the least."""
    if not isinstance(impute, str):
        return min(max(float(impute), -LARGEST), LARGEST)
    if not len(present):
        return 0.0
    if impute == "mode":
        values, counts = np.unique(present, return_counts=True)
        return float(values[counts.argmax()])
    return float(present.mean() if impute == "mean" else np.median(present))


def bounds(levels: tuple[float, float], present: np.ndarray) -> tuple[float, float]:
    """The values at two quantiles."""
    low, high = np.quantile(present, levels)
    return float(low), float(high)


def log(values: np.ndarray) -> np.ndarray:
    """The logarithm of 1 + the size of each number, with the number's sign; any shape."""
    size = np.abs(values)
    near = size < 0.25  # where 1 + size would lose digits
    part, power = np.frexp(1.0 + size)
    low = part < math.sqrt(0.5)
    part, power = np.where(low, 2 * part, part), np.where(near, 0, power - low)
    ratio = np.where(near, size / (2.0 + size), (part - 1.0) / (part + 1.0))
    square, series = ratio * ratio, np.zeros_like(ratio)
    for factor in reversed(_ODD):
        series = series * square + factor
    logged: np.ndarray = np.copysign(power * _LOG_2 + 2.0 * ratio * series, values)
    return logged


def knots(present: np.ndarray) -> np.ndarray:
    """Values and the inverse normal of their ranks (2, knots).

    As scikit-learn's QuantileTransformer, but ties get their middle rank, so the ends are finite.
    """
    distinct, counts = np.unique(present, return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2) / len(present)
    if len(distinct) > MOST_KNOTS:
        chosen = np.unique(np.searchsorted(ranks, np.linspace(ranks[0], ranks[-1], MOST_KNOTS)))
        distinct, ranks = distinct[chosen], ranks[chosen]
    normal = statistics.NormalDist()
    return np.stack([distinct, [normal.inv_cdf(rank) for rank in ranks.tolist()]])


def edges(bins: int, present: np.ndarray) -> np.ndarray:
    """What lies between bins of about equal counts, ascending; none for a constant."""
    found = np.unique(np.quantile(present, np.linspace(0, 1, bins + 1)[1:-1]))
    between: np.ndarray = found[found > present.min()]
    return between


def _fitted(scale: str, present: np.ndarray) -> tuple[float, float]:
    """The center and the divisor of a scale, fitted on training values."""
    if scale == "log":
        center, deviation = _standard(log(present))
        return center, deviation if deviation > _LOG_NOISE * abs(center) else 1.0
    center, deviation = _standard(present)
    if scale == "standard":
        return center, deviation
    levels = (0.25, 0.75) if scale == "robust" else (0.0, 1.0)
    low, high = bounds(levels, present)
    width = high - low if high - low > _NARROWEST else deviation
    return (float(np.median(present)) if scale == "robust" else low), width


def _standard(present: np.ndarray) -> tuple[float, float]:
    """Mean and deviation; 1 for the deviation of a constant."""
    deviation = float(present.std())
    return float(present.mean()), deviation if deviation > _NARROWEST else 1.0


def _unlogged(logged: float) -> float:
    """The number with this `log`, at most LARGEST in size."""
    most = math.log1p(LARGEST)
    return math.copysign(math.expm1(min(abs(logged), most)), logged)
