"""How one column enters a model, as its kind says: which block takes it, and what it does with it.

Each block is fitted and applied for all of its columns at once.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Number(NamedTuple):
    """A number, f64 (B), in the matrix of `eagleray.learn.features.numbers`.

    Attributes:
        scale: mean 0 and deviation 1, normal by ranks, as it is, or 0 and 1 as -1 and 1.
        warns: whether a number far outside the training part's is told.
        cyclic: whether it is seconds since 1970, whose time of day, week and year count too.
    """

    scale: Literal["standard", "quantile", "none", "sign"] = "standard"
    warns: bool = False
    cyclic: bool = False


class Category(NamedTuple):
    """A name, str or None, as a row of `features.categories`; `most` have their own."""

    most: int = 100


class Text(NamedTuple):
    """A text, str or None, as tokens of `eagleray.learn.features.texts`; see its `Vocabulary`."""

    vocabulary: int
    ngrams: tuple[int, int]
    analyzer: str
    max_tokens: int


class Image(NamedTuple):
    """A picture, f32 (B, C, H, W), in the array of `eagleray.learn.features.images`."""


Encoding = Number | Category | Text | Image
