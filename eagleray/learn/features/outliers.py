"""Training rows that are left out: those with a number beyond its `clip`. Legend: B rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from eagleray.learn.features import scales
from eagleray.learn.features.numbers import Number

if TYPE_CHECKING:
    from eagleray.learn import schema
    from eagleray.learn.features import Encoding

Bounds = dict[str, tuple[float, float]]
"""By column, the least and the largest number of a row that is trained on."""


def fit(encodings: Mapping[str, Encoding], columns: schema.Columns) -> Bounds:
    """The bounds of the columns whose outliers are dropped."""
    found: Bounds = {}
    for name, one in encodings.items():
        if isinstance(one, Number) and one.drops and one.clip:
            present = columns[name][~np.isnan(columns[name])]
            if len(present):
                limited = present.clip(-scales.LARGEST, scales.LARGEST)
                found[name] = scales.bounds(one.clip, limited)
    return found


def within(bounds: Bounds, columns: schema.Columns) -> np.ndarray:
    """Which rows (B) have no number beyond its bounds; a gap is none."""
    within_B = np.ones(len(next(iter(columns.values()))), bool)
    for name, (low, high) in bounds.items():
        within_B &= ~((columns[name] < low) | (columns[name] > high))
    return within_B


def unclipped(encodings: Mapping[str, Encoding]) -> dict[str, Encoding]:
    """The encodings for what is left of the rows, which ends at the bounds."""
    return {
        name: one._replace(clip=(0.0, 1.0)) if isinstance(one, Number) and one.drops else one
        for name, one in encodings.items()
    }
