"""Encoded inputs as one matrix of numbers, categories and words, as trees take it.

Gaps are NaN again, and have no indicators; a category is its place among its column's. Of texts the
most frequent n-grams have a column each, with their weights.

Legend: B rows, F columns of `numeric`, K categorical columns, W n-grams, D columns of the matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pydantic

from eagleray.learn.features.categories import MISSING

if TYPE_CHECKING:
    from eagleray.learn.features.transforms import Inputs, Transforms

MOST_TERMS = 300
"""Most n-grams, of all texts together, that have a column."""


class Matrix(pydantic.BaseModel, frozen=True):
    """Where the columns of the matrix come from; JSON in a bundle."""

    values: int  # numbers that may be missing, the first of `numeric`
    gaps: tuple[int, ...]  # those with an indicator; indicators follow the values in this order
    width: int  # F
    starts: tuple[int, ...]  # for each categorical column its row for missing
    # for each text the row of its first n-gram, and how many have a column; none in old bundles
    terms: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, transforms: Transforms) -> Matrix:
        numbers, texts = transforms.numbers, transforms.texts
        most = MOST_TERMS // max(1, len(texts))
        return cls(
            values=len(numbers.names),
            gaps=numbers.indicators,
            width=transforms.shape.numeric,
            starts=transforms.categories.starts,
            terms=tuple((one.start, min(most, len(one.terms))) for one in texts),
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
        blocks += [self._words(inputs, *one) for one in self.terms]
        return np.concatenate(blocks, axis=1)

    def _numbers(self, numeric_BF: np.ndarray) -> list[np.ndarray]:
        """Values with their gaps, then cycles of times, bins and vectors of texts."""
        marked = self.values + len(self.gaps)
        value_BF = numeric_BF[:, : self.values].copy()
        for column, indicator in zip(self.gaps, range(self.values, marked), strict=True):
            value_BF[numeric_BF[:, indicator] > 0, column] = np.nan
        return [value_BF, numeric_BF[:, marked:]]

    def _words(self, inputs: Inputs, first: int, count: int) -> np.ndarray:
        """Weights (B, W) of `count` n-grams from a row of the table on; 0 for those a row lacks."""
        tokens_BT = inputs["tokens"]
        weight_BW = np.zeros((len(tokens_BT), count), np.float32)
        row, place = np.nonzero((tokens_BT >= first) & (tokens_BT < first + count))
        weight_BW[row, tokens_BT[row, place] - first] = inputs["weights"][row, place]
        return weight_BW
