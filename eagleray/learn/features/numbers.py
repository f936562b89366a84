"""Columns of numbers as one matrix of float32.

Its columns are, in order: one scaled value for each input column (of a time: its age), a 1 for
missing for each column in which the training part had missing values, and for each time sine
and cosine of the time of day, the day of the week and the time of the year.

Only operations that IEEE 754 rounds in one way are used, and tables for sine and cosine: a row is
encoded alike alone and in a batch, and on every machine.

Legend: F columns, B rows, M missing indicators, D times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eagleray.learn.features import encodings, quantiles
from eagleray.learn.features.quantiles import Quantiles

if TYPE_CHECKING:
    from eagleray.learn import schema

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
        quantiled: the columns scaled by quantile, in the order of the curves of `quantiles`.
        datetimes: the D columns that are times.
        extremes: (2, F, 1): lowest and highest number of the training part; NaN for columns whose
            numbers are not told, and None in bundles that were made before they were kept.
    """

    names: tuple[str, ...]
    affine: np.ndarray
    indicators: tuple[int, ...]
    quantiled: tuple[int, ...]
    quantiles: Quantiles
    datetimes: tuple[int, ...]
    extremes: np.ndarray | None = None

    @classmethod
    def fit(
        cls,
        mine: Mapping[str, encodings.Number],
        columns: schema.Columns,
    ) -> Numbers:
        affine = np.zeros((5, len(mine), 1))
        extremes = np.full((2, len(mine), 1), math.nan)
        indicators, curves = [], {}
        for index, (name, encoding) in enumerate(mine.items()):
            values = columns[name]
            present = np.clip(values[~np.isnan(values)], -LARGEST, LARGEST)
            if encoding.scale == "quantile" and len(present):
                curves[index] = quantiles.learn(present)
            affine[:, index, 0] = _affine(encoding.scale, present)
            if encoding.warns and len(present):
                extremes[:, index, 0] = present.min(), present.max()
            if len(present) < len(values):
                indicators.append(index)
        return cls(
            names=tuple(mine),
            affine=affine,
            indicators=tuple(indicators),
            quantiled=tuple(curves),
            quantiles=Quantiles(tuple(curves.values())),
            datetimes=tuple(i for i, encoding in enumerate(mine.values()) if encoding.cyclic),
            extremes=extremes,
        )

    @property
    def width(self) -> int:
        return len(self.names) + len(self.indicators) + 6 * len(self.datetimes)

    def apply(self, columns: schema.Columns) -> np.ndarray:
        """f32 (B, width)."""
        count, marked = len(self.names), len(self.names) + len(self.indicators)
        raw_FB = np.concatenate([columns[name] for name in self.names]).reshape(count, -1)
        missing_FB = np.isnan(raw_FB)
        fill, low, high, center, scale = self.affine
        known_FB = np.minimum(np.maximum(np.where(missing_FB, fill, raw_FB), low), high)
        scaled_FB = (known_FB - center) / scale
        if self.quantiled:
            scaled_FB[self.quantiled, :] = self.quantiles.apply(known_FB[self.quantiled, :])
        out = np.empty((raw_FB.shape[1], self.width), np.float32)
        out[:, :count] = scaled_FB.T
        if self.indicators:
            out[:, count:marked] = missing_FB[self.indicators, :].T
        if self.datetimes:
            out[:, marked:] = _cycles(raw_FB[self.datetimes, :])
        return out

    def flag(self, columns: schema.Columns, flags: list[list[str]]) -> None:
        """Add a warning to each row for each number that is far outside the training part's.

        Far is further below the lowest, or above the highest, than these two are from each other.
        """
        if self.extremes is None or not self.names:
            return
        raw_FB = np.concatenate([columns[name] for name in self.names]).reshape(len(self.names), -1)
        low, high = self.extremes
        span = high - low
        far_FB = (raw_FB < low - span) | (raw_FB > high + span)  # never of NaN
        if not far_FB.any():
            return
        for index, row in np.argwhere(far_FB).tolist():
            flags[row].append(
                f"{self.names[index]}: {raw_FB[index, row]:g} is far outside the training rows'"
                f" range, {low[index, 0]:g} to {high[index, 0]:g}"
            )

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        described = {
            "names": list(self.names),
            "indicators": list(self.indicators),
            "quantiled": list(self.quantiled),
            "datetimes": list(self.datetimes),
        }
        knots = dict(zip(self.quantiled, self.quantiles.knots, strict=True))
        held = {"affine": self.affine, **{f"knots.{i}": knots[i] for i in knots}}
        return described, held | ({} if self.extremes is None else {"extremes": self.extremes})

    @classmethod
    def from_state(cls, state: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Numbers:
        return cls(
            names=tuple(state["names"]),
            affine=tensors["affine"],
            indicators=tuple(state["indicators"]),
            quantiled=tuple(state["quantiled"]),
            quantiles=Quantiles(tuple(tensors[f"knots.{i}"] for i in state["quantiled"])),
            datetimes=tuple(state["datetimes"]),
            extremes=tensors.get("extremes"),
        )


def _affine(scale: str, present: np.ndarray) -> tuple[float, ...]:
    """What fills gaps, the lowest and highest value, what is subtracted, what is divided by."""
    if scale == "sign":
        return 0.5, 0.0, 1.0, 0.5, 0.5
    if not len(present):
        return 0.0, -LARGEST, LARGEST, 0.0, 1.0
    median = float(np.median(present))
    if scale == "none":
        return median, -LARGEST, LARGEST, 0.0, 1.0
    if scale == "quantile":
        return median, float(present.min()), float(present.max()), 0.0, 1.0
    center, deviation = float(present.mean()), float(present.std())
    divisor = deviation if deviation > 1e-30 else 1.0
    return median, center - FURTHEST * divisor, center + FURTHEST * divisor, center, divisor


def _cycles(seconds: np.ndarray) -> np.ndarray:
    """Sine and cosine (B, 6 D) of day, week and year of seconds (D, B); zeros where missing."""
    missing = np.isnan(seconds)[:, :, None]
    bounded = np.minimum(np.maximum(np.nan_to_num(seconds), -_ENDS), _ENDS)
    whole = np.floor(bounded).astype(np.int64)
    parts = (
        _CLOCK[whole // 60 % _MINUTES],
        _WEEK[whole // 86400 % _DAYS],
        _SEASONS[whole % _YEAR * _YEAR_STEPS // _YEAR],
    )
    cycles = np.where(missing, np.float32(0), np.concatenate(parts, axis=2))
    return cycles.transpose(1, 0, 2).reshape(seconds.shape[1], 6 * len(seconds))
