"""Numeric, boolean and datetime columns as one matrix of float32.

Its columns are, in order: one scaled value for each input column (of a datetime: its age), a 1 for
missing for each column in which the training part had missing values, and for each datetime sine
and cosine of the time of day, the day of the week and the time of the year.

Only operations that IEEE 754 rounds in one way are used, and tables for sine and cosine: a row is
encoded alike alone and in a batch, and on every machine.

Legend: F columns, B rows, M missing indicators, D datetimes, Q knots.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from eagleray import schema, spec

KNOTS = 1000
FURTHEST = 1e6
"""A scaled value is cut here: nothing is learned so far out, and a model's float32 stays finite."""
LARGEST = 1e30
"""The same for a value that is not scaled; its square is still finite in float64."""

_MINUTES, _DAYS, _YEAR = 1440, 7, 31_556_952  # a mean Gregorian year, in seconds
_YEAR_STEPS = 366
_ENDS = 1e12  # seconds; beyond the calendar on both sides


def _circle(steps: int) -> np.ndarray:
    """Sine and cosine (steps, 2) of equal steps around a circle."""
    angles = [2 * math.pi * step / steps for step in range(steps)]
    return np.array([[math.sin(angle), math.cos(angle)] for angle in angles], np.float32)


_CLOCK, _WEEK, _SEASONS = _circle(_MINUTES), _circle(_DAYS), _circle(_YEAR_STEPS)


@dataclass(frozen=True)
class Numbers:
    """Fitted scaling.

    Attributes:
        names: the F columns.
        affine: (5, F, 1): what fills missing values, lowest and highest value let through, what is
            subtracted, what is divided by.
        indicators: the M columns with a missing indicator.
        quantiles: for columns scaled by quantile, values (Q) and their normal scores (Q).
        datetimes: the D columns that are datetimes.
    """

    names: tuple[str, ...]
    affine: np.ndarray
    indicators: tuple[int, ...]
    quantiles: dict[int, np.ndarray]
    datetimes: tuple[int, ...]

    @classmethod
    def fit(
        cls,
        known: schema.Schema,
        options: Mapping[str, spec.FeatureOptions],
        columns: schema.Columns,
    ) -> Numbers:
        mine = [c for c in known.columns if c.type in ("numeric", "boolean", "datetime")]
        affine = np.zeros((5, len(mine), 1))
        indicators, quantiles = [], {}
        for index, column in enumerate(mine):
            values = columns[column.name]
            present = np.clip(values[~np.isnan(values)], -LARGEST, LARGEST)
            given = options.get(column.name)
            scale = given.scale if given is not None and column.type == "numeric" else "standard"
            if column.type == "boolean":
                affine[:, index, 0] = (0.5, 0.0, 1.0, 0.5, 0.5)
            elif scale == "standard":
                affine[:, index, 0] = _standard(present)
            else:
                affine[:, index, 0] = (_median(present), -LARGEST, LARGEST, 0.0, 1.0)
            if scale == "quantile" and len(present):
                quantiles[index] = _knots(present)
            if len(present) < len(values):
                indicators.append(index)
        return cls(
            names=tuple(c.name for c in mine),
            affine=affine,
            indicators=tuple(indicators),
            quantiles=quantiles,
            datetimes=tuple(i for i, c in enumerate(mine) if c.type == "datetime"),
        )

    @property
    def width(self) -> int:
        return len(self.names) + len(self.indicators) + 6 * len(self.datetimes)

    def apply(self, columns: schema.Columns) -> np.ndarray:
        """f32 (B, width)."""
        count = len(self.names)
        raw_FB = np.concatenate([columns[name] for name in self.names]).reshape(count, -1)
        missing_FB = np.isnan(raw_FB)
        fill, low, high, center, scale = self.affine
        known_FB = np.minimum(np.maximum(np.where(missing_FB, fill, raw_FB), low), high)
        scaled_FB = (known_FB - center) / scale
        for index, (knots, scores) in self.quantiles.items():
            scaled_FB[index] = np.interp(known_FB[index], knots, scores)
        out = np.empty((raw_FB.shape[1], self.width), np.float32)
        out[:, :count] = scaled_FB.T
        if self.indicators:
            out[:, count : count + len(self.indicators)] = missing_FB[self.indicators, :].T
        for number, index in enumerate(self.datetimes):
            start = count + len(self.indicators) + 6 * number
            out[:, start : start + 6] = _cycles(raw_FB[index])
        return out

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        tensors = {f"quantiles.{index}": knots for index, knots in self.quantiles.items()}
        described = {
            "names": list(self.names),
            "indicators": list(self.indicators),
            "datetimes": list(self.datetimes),
        }
        return described, {"affine": self.affine, **tensors}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Numbers:
        quantiles = {key: tensors[key] for key in sorted(tensors) if key.startswith("quantiles.")}
        return cls(
            names=tuple(state["names"]),
            affine=tensors["affine"],
            indicators=tuple(state["indicators"]),
            quantiles={int(key.partition(".")[2]): knots for key, knots in quantiles.items()},
            datetimes=tuple(state["datetimes"]),
        )


def _standard(present: np.ndarray) -> tuple[float, ...]:
    if not len(present):
        return 0.0, -LARGEST, LARGEST, 0.0, 1.0
    center, deviation = float(present.mean()), float(present.std())
    scale = deviation if deviation > 1e-30 else 1.0
    return _median(present), center - FURTHEST * scale, center + FURTHEST * scale, center, scale


def _median(present: np.ndarray) -> float:
    return float(np.median(present)) if len(present) else 0.0


def _knots(present: np.ndarray) -> np.ndarray:
    """Values (Q) over normal scores (Q): the inverse normal of each value's middle rank."""
    distinct, counts = np.unique(present, return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2) / len(present)
    if len(distinct) > KNOTS:
        kept = np.unique(np.searchsorted(ranks, np.linspace(ranks[0], ranks[-1], KNOTS)))
        distinct, ranks = distinct[kept], ranks[kept]
    normal = statistics.NormalDist()
    return np.stack([distinct, [normal.inv_cdf(rank) for rank in ranks.tolist()]])


def _cycles(seconds_B: np.ndarray) -> np.ndarray:
    """Sine and cosine (B, 6) of day, week and year; zeros where missing."""
    missing_B1 = np.isnan(seconds_B)[:, None]
    bounded_B = np.minimum(np.maximum(np.nan_to_num(seconds_B), -_ENDS), _ENDS)
    whole_B = np.floor(bounded_B).astype(np.int64)
    parts = (
        _CLOCK[whole_B // 60 % _MINUTES],
        _WEEK[whole_B // 86400 % _DAYS],
        _SEASONS[whole_B % _YEAR * _YEAR_STEPS // _YEAR],
    )
    return np.where(missing_B1, np.float32(0), np.concatenate(parts, axis=1))
