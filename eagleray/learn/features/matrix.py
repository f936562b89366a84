"""Encoded inputs as one matrix of numbers and categories, as trees take it.

Gaps are NaN again, and have no indicators; a category is its place among its column's.

Legend: B rows, F columns of `numeric`, K categorical columns, D columns of the matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pydantic

from eagleray.learn.features.categories import MISSING

if TYPE_CHECKING:
    from eagleray.learn.features.transforms import Inputs, Transforms


class Matrix(pydantic.BaseModel, frozen=True):
    """Where the columns of the matrix come from; JSON in a bundle."""

    values: int  # numbers that may be missing, the first of `numeric`
    gaps: tuple[int, ...]  # those with an indicator; indicators follow the values in this order
    width: int  # F
    starts: tuple[int, ...]  # for each categorical column its row for missing

    @classmethod
    def of(cls, transforms: Transforms) -> Matrix:
        numbers = transforms.numbers
        return cls(
            values=len(numbers.names),
            gaps=numbers.indicators,
            width=transforms.shape.numeric,
            starts=transforms.categories.starts,
        )

    @property
    def categories(self) -> list[int]:
        """The columns of the matrix that hold categories."""
        first = self.width - len(self.gaps)
        return list(range(first, first + len(self.starts)))

    def apply(self, inputs: Inputs) -> np.ndarray:
        """f32 (B, D); NaN where a value is missing."""
        blocks = []
        if self.width:
            blocks += self._numbers(inputs["numeric"])
        if self.starts:
            place_BK = (inputs["categories"] - np.array(self.starts, np.int32)).astype(np.float32)
            place_BK[place_BK == MISSING] = np.nan
            blocks.append(place_BK)
        return np.concatenate(blocks, axis=1)

    def _numbers(self, numeric_BF: np.ndarray) -> list[np.ndarray]:
        """Values with their gaps, then cycles of times, bins and vectors of texts."""
        marked = self.values + len(self.gaps)
        value_BF = numeric_BF[:, : self.values].copy()
        for column, indicator in zip(self.gaps, range(self.values, marked), strict=True):
            value_BF[numeric_BF[:, indicator] > 0, column] = np.nan
        return [value_BF, numeric_BF[:, marked:]]
