"""Number columns as one float32 matrix. Legend: F columns, B rows, M indicators, D times.

Its columns are, in order: one scaled value for each input column (of a time: its age); an indicator
of missing values for each column in which the training part had some; for each time the sine and
the cosine of the time of day, the day of the week and the time of the year; for each column with
bins an indicator of each bin.

IEEE 754 fixes the rounding of every operation, and sine and cosine come from tables: a row is
encoded to the same bits alone, in a batch and on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from eagleray.learn.features import scales

if TYPE_CHECKING:
    from eagleray.learn import schema

_MINUTES, _DAYS, _YEAR = 1440, 7, 31_556_952  # a mean Gregorian year, in seconds
_YEAR_STEPS = 366
_ENDS = 1e12  # seconds; beyond the calendar on both sides


def _circle(steps: int) -> np.ndarray:
    """Sine and cosine (steps, 2) of equal steps around a circle."""
    angles = [2 * math.pi * step / steps for step in range(steps)]
    return np.array([[math.sin(angle), math.cos(angle)] for angle in angles], np.float32)


_CLOCK, _WEEK, _SEASONS = _circle(_MINUTES), _circle(_DAYS), _circle(_YEAR_STEPS)


class Number(NamedTuple):
    """Numbers, f64 (B), NaN where missing."""

    # `sign`: 0 and 1 as -1 and 1
    scale: Literal["standard", "robust", "minmax", "log", "quantile", "none", "sign"] = "standard"
    warns: bool = False  # of a number far outside the training part's range
    cyclic: bool = False  # whether they are times, in seconds since 1970
    impute: Literal["median", "mean", "mode"] | float = "median"  # what stands for a gap
    indicator: bool = True  # whether gaps are told, if the training part has some
    clip: tuple[float, float] | None = None  # quantiles to which values are bounded
    bins: int | None = None  # of about equal counts, beside the number
    outliers: Literal["clip", "drop"] = "clip"  # what `clip` does to training rows beyond it

    @property
    def drops(self) -> bool:
        """Whether training rows with an outlier are left out."""
        return self.outliers == "drop" and self.clip is not None


@dataclass(frozen=True)
class Numbers:
    """Fitted scaling of F columns; columns are named by their index."""

    names: tuple[str, ...]
    affine: np.ndarray  # (5, F, 1): fill for missing values, lower and upper bound, center, divisor
    indicators: tuple[int, ...]  # the M columns with a missing indicator
    quantiled: tuple[int, ...]  # the columns with the scale `quantile`
    datetimes: tuple[int, ...]  # the D columns that are times
    # (2, F, 1): training minimum and maximum; NaN if no warnings, None in old bundles
    extremes: np.ndarray | None = None
    # for each column of `quantiled`, ascending values and normal scores (2, knots)
    knots: dict[int, np.ndarray] = field(default_factory=dict)
    logged: tuple[int, ...] = ()  # the columns with the scale `log`
    edges: dict[int, np.ndarray] = field(default_factory=dict)  # of a column with bins, ascending

    @classmethod
    def fit(cls, encodings: Mapping[str, Number], columns: schema.Columns) -> Numbers:
        affine = np.zeros((5, len(encodings), 1))
        extremes = np.full((2, len(encodings), 1), math.nan)
        indicators, curves, edges = [], {}, {}
        for index, (name, encoding) in enumerate(encodings.items()):
            values = columns[name]
            present = np.clip(values[~np.isnan(values)], -scales.LARGEST, scales.LARGEST)
            if len(present) < len(values) and encoding.indicator:
                indicators.append(index)
            if encoding.warns and len(present):
                extremes[:, index, 0] = present.min(), present.max()
            if encoding.bins and len(present):
                edges[index] = scales.edges(encoding.bins, present)
            if encoding.clip and len(present):
                present = present.clip(*scales.bounds(encoding.clip, present))
            if encoding.scale == "quantile" and len(present):
                curves[index] = scales.knots(present)
            affine[:, index, 0] = scales.affine(
                encoding.scale, encoding.impute, clipped=bool(encoding.clip), present=present
            )
        chosen = list(encodings.values())
        return cls(
            names=tuple(encodings),
            affine=affine,
            indicators=tuple(indicators),
            quantiled=tuple(curves),
            datetimes=tuple(index for index, one in enumerate(chosen) if one.cyclic),
            extremes=extremes,
            knots=curves,
            logged=tuple(index for index, one in enumerate(chosen) if one.scale == "log"),
            edges={index: inner for index, inner in edges.items() if len(inner)},
        )

    @cached_property
    def _segments(self) -> tuple[np.ndarray, ...]:
        """Start, score, length and rise of all segments, and each curve's first index less 1."""
        curves, last = [self.knots[index] for index in self.quantiled], [[1.0], [0.0]]
        steps = [np.append(np.diff(knots, axis=1), last, axis=1) for knots in curves]
        before = np.cumsum([0, *(knots.shape[1] for knots in curves)])[:-1, None] - 1
        return (*np.concatenate(curves, axis=1), *np.concatenate(steps, axis=1), before)

    @cached_property
    def width(self) -> int:
        """The number of columns of the matrix."""
        return self._first_bin + sum(len(inner) + 1 for inner in self.edges.values())

    @cached_property
    def _first_bin(self) -> int:
        """The column of the matrix of the first bin."""
        return len(self.names) + len(self.indicators) + 6 * len(self.datetimes)

    def apply(self, columns: schema.Columns) -> np.ndarray:
        """f32 (B, width)."""
        count, marked = len(self.names), len(self.names) + len(self.indicators)
        raw_FB = self._stacked(columns)
        missing_FB = np.isnan(raw_FB)
        fill, low, high, center, scale = self.affine
        known_FB = np.where(missing_FB, fill, raw_FB).clip(low, high)
        if self.logged:
            known_FB[self.logged, :] = scales.log(known_FB[self.logged, :])
        scaled_FB = (known_FB - center) / scale
        if self.quantiled:
            scaled_FB[self.quantiled, :] = self._scores(known_FB[self.quantiled, :])
        out = np.empty((raw_FB.shape[1], self.width), np.float32)
        out[:, :count] = scaled_FB.T
        if self.indicators:
            out[:, count:marked] = missing_FB[self.indicators, :].T
        if self.datetimes:
            out[:, marked : self._first_bin] = _cycles(raw_FB[self.datetimes, :])
        if self.edges:
            self._bins(raw_FB, out[:, self._first_bin :])
        return out

    def flag(self, columns: schema.Columns, flags: list[list[str]]) -> None:
        """Warn, in `flags`, of each number outside the training range by more than its width."""
        if self.extremes is None or not self.names:
            return
        raw_FB = self._stacked(columns)
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

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The smallest and the largest training value of each column that warns."""
        if self.extremes is None:
            return {}
        pairs = zip(self.names, self.extremes[:, :, 0].T.tolist(), strict=True)
        return {name: (low, high) for name, (low, high) in pairs if low <= high}

    def _scores(self, known: np.ndarray) -> np.ndarray:
        """Normal scores of the columns `quantiled`; `known` lies within their knots."""
        values, scores, lengths, rises, before = self._segments
        pairs = zip(self.quantiled, known, strict=True)
        place = np.array([self.knots[index][0].searchsorted(row, "right") for index, row in pairs])
        place += before
        along = (known - values[place]) / lengths[place]
        scored: np.ndarray = scores[place] + along * rises[place]
        return scored

    def _bins(self, raw: np.ndarray, out: np.ndarray) -> None:
        """Set, in `out` (B, bins of all columns), a 1 for the bin of each value; none for a gap."""
        out[:] = 0
        start = 0
        for index in sorted(self.edges):
            (known,) = np.nonzero(~np.isnan(raw[index]))
            out[known, start + self.edges[index].searchsorted(raw[index, known], "right")] = 1
            start += len(self.edges[index]) + 1

    def _stacked(self, columns: schema.Columns) -> np.ndarray:
        stacked = np.concatenate([columns[name] for name in self.names])
        return stacked.reshape(len(self.names), -1)


def _cycles(seconds: np.ndarray) -> np.ndarray:
    """Sine and cosine (B, 6 D) of day, week and year of seconds (D, B); zeros where missing."""
    missing = np.isnan(seconds)[:, :, None]
    bounded = np.nan_to_num(seconds).clip(-_ENDS, _ENDS)
    whole = np.floor(bounded).astype(np.int64)
    parts = (
        _CLOCK[whole // 60 % _MINUTES],
        _WEEK[whole // 86400 % _DAYS],
        _SEASONS[whole % _YEAR * _YEAR_STEPS // _YEAR],
    )
    cycles = np.where(missing, np.float32(0), np.concatenate(parts, axis=2))
    return cycles.transpose(1, 0, 2).reshape(seconds.shape[1], 6 * len(seconds))
