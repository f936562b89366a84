"""Image columns as one float32 array, scaled by the training part's mean and deviation.

Legend: B rows, C channels of all columns, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from eagleray import errors
from eagleray.learn.features.scales import FURTHEST

if TYPE_CHECKING:
    from eagleray.learn import schema


class Image(NamedTuple):
    """Pictures, f32 (B, C, H, W), NaN where missing."""


@dataclass(frozen=True)
class Images:
    """Columns joined by channel to (C, H, W); `scaling` (2, C, 1, 1) is mean and deviation."""

    names: tuple[str, ...]
    shape: tuple[int, ...] | None
    scaling: np.ndarray
    channels: tuple[int, ...] = ()  # of each column

    @classmethod
    def fit(cls, encodings: Mapping[str, Image], columns: schema.Columns) -> Images:
        names = tuple(encodings)
        if not names:
            return cls((), None, np.zeros((2, 0, 1, 1), np.float32))
        shapes = {name: columns[name].shape[1:] for name in names}
        if len({shape[1:] for shape in shapes.values()}) > 1:
            shown = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise errors.DataError(f"image columns must have one height and width, but got {shown}")
        images_BCHW = _joined(names, columns)
        known_BCHW = images_BCHW[~np.isnan(images_BCHW).any(axis=(1, 2, 3))].astype(np.float64)
        scaling = np.zeros((2, known_BCHW.shape[1], 1, 1))
        scaling[1] = 1
        if len(known_BCHW):
            deviation = known_BCHW.std(axis=(0, 2, 3), keepdims=True)[0]
            scaling[0] = known_BCHW.mean(axis=(0, 2, 3), keepdims=True)[0]
            scaling[1] = np.where(deviation > 1e-30, deviation, 1.0)
        channels = tuple(shape[0] for shape in shapes.values())
        return cls(names, images_BCHW.shape[1:], scaling.astype(np.float32), channels)

    def apply(self, columns: schema.Columns) -> np.ndarray:
        """f32 (B, C, H, W); a missing image becomes the mean image."""
        mean, deviation = self.scaling
        with np.errstate(over="ignore"):
            scaled_BCHW = (_joined(self.names, columns) - mean) / deviation
        bounded_BCHW = scaled_BCHW.clip(-FURTHEST, FURTHEST)
        finite_BCHW: np.ndarray = np.nan_to_num(bounded_BCHW, copy=False, nan=0.0)
        return finite_BCHW


def _joined(names: tuple[str, ...], columns: schema.Columns) -> np.ndarray:
    if len(names) == 1:
        return columns[names[0]]
    return np.concatenate([columns[name] for name in names], axis=1)
