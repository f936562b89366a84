"""Columns that are made of other columns, in training and in serving. Legend: B rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from eagleray.learn.features.categories import Category
from eagleray.learn.features.numbers import Number

if TYPE_CHECKING:
    from eagleray import spec
    from eagleray.learn import schema
    from eagleray.learn.features import Encoding


def ratio(above_B: np.ndarray, below_B: np.ndarray) -> np.ndarray:
    """One number divided by another, finite; NaN where one is missing or the second is 0."""
    with np.errstate(all="ignore"):
        ratio_B = np.where(below_B == 0, np.nan, above_B / below_B)
    finite_B: np.ndarray = ratio_B.clip(-sys.float_info.max, sys.float_info.max)
    return finite_B


def cross(*names: np.ndarray) -> np.ndarray:
    """The names of a row as one name (B); None where one is missing."""
    rows = zip(*(one.tolist() for one in names), strict=True)
    crossed_B = np.empty(len(names[0]), object)
    crossed_B[:] = [None if None in row else "\x1f".join(row) for row in rows]
    return crossed_B


class Maker(NamedTuple):
    """A function of canonical columns (B), and the columns that it takes."""

    make: Callable[..., np.ndarray]
    takes: type  # the encoding of these columns
    need: str  # what they must be, in messages


MAKERS = {
    "ratio": Maker(ratio, Number, "numbers"),
    "cross": Maker(cross, Category, "categories"),
}
"""By the option that a column has in `features`."""


@dataclass(frozen=True)
class Made:
    """A column, the key of its maker, and the names of the columns that it is made of."""

    name: str
    how: str
    of: tuple[str, ...]

    def apply(self, columns: schema.Columns) -> np.ndarray:
        """Its canonical values (B)."""
        return MAKERS[self.how].make(*(columns[name] for name in self.of))

    def quiet(self, encoding: Encoding) -> Encoding:
        """The column's encoding; of names that are made, the rare ones are not kept."""
        return encoding._replace(told=False) if isinstance(encoding, Category) else encoding

    def takes(self, encoding: Encoding) -> bool:
        """Whether it can be made of a column that enters a model in this way; never of times."""
        return isinstance(encoding, MAKERS[self.how].takes) and not (
            isinstance(encoding, Number) and encoding.cyclic
        )


def find(options: Mapping[str, spec.FeatureOptions]) -> tuple[Made, ...]:
    """The columns in `features` that are made."""
    return tuple(
        Made(name, how, tuple(getattr(chosen, how)))
        for name, chosen in options.items()
        for how in MAKERS
        if getattr(chosen, how) is not None
    )
