"""Columns that are made of other columns, in training and in serving. Legend: B rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from eagleray import code
from eagleray.learn.features import own
from eagleray.learn.features.categories import Category
from eagleray.learn.features.coded import Coded
from eagleray.learn.features.numbers import Number

if TYPE_CHECKING:
    from eagleray import spec
    from eagleray.learn import schema
    from eagleray.learn.features import Encoding


def ratio(above_B: np.ndarray, below_B: np.ndarray) -> np.ndarray:
    """One number divided by another, finite; NaN where one is missing or the second is 0."""
    with np.errstate(all="ignore"):
        return _finite(np.where(below_B == 0, np.nan, above_B / below_B))


def difference(later_B: np.ndarray, earlier_B: np.ndarray) -> np.ndarray:
    """One number less another, finite; NaN where one is missing. Of times: seconds."""
    with np.errstate(all="ignore"):
        return _finite(later_B - earlier_B)


def cross(*names: np.ndarray) -> np.ndarray:
    """The names of a row as one name (B); None where one is missing."""
    rows = zip(*(one.tolist() for one in names), strict=True)
    crossed_B = np.empty(len(names[0]), object)
    crossed_B[:] = [None if None in row else "\x1f".join(row) for row in rows]
    return crossed_B


def sort(encoding: Encoding) -> str:
    """What values a column has that enters a model in this way; empty for none of these."""
    if isinstance(encoding, Number):
        return "times" if encoding.cyclic else "numbers"
    return "categories" if isinstance(encoding, Category | Coded) else ""


class Maker(NamedTuple):
    """A function of canonical columns (B), and the sorts that it takes, all columns of one."""

    make: Callable[..., np.ndarray]
    takes: tuple[str, ...]


MAKERS = {
    "ratio": Maker(ratio, ("numbers",)),
    "difference": Maker(difference, ("numbers", "times")),
    "cross": Maker(cross, ("categories",)),
}
"""By the option that a column has in `features`."""
OWN = "made_by"
"""The option that names a function of the user's, which takes inputs of all kinds."""


@dataclass(frozen=True)
class Made:
    """A column, the key of its maker, and the names of the columns that it is made of."""

    name: str
    how: str
    of: tuple[str, ...]
    function: code.Code | None = None  # the user's
    gives: str = ""  # the sort of what the user's function gives

    def apply(self, columns: schema.Columns) -> np.ndarray:
        """Its canonical values (B); CodeError where the user's function gives no such."""
        taken = [columns[name] for name in self.of]
        if self.function is not None:
            call = own.names if self.gives == "categories" else own.numbers
            return call(self.function, taken)
        return MAKERS[self.how].make(*taken)

    def check(self, columns: schema.Columns) -> None:
        """CodeError where the user's function gives a row alone something else.

        `columns` are the training part's, itself among them.
        """

        def alone(row: int) -> np.ndarray:
            return self.apply({name: columns[name][[row]] for name in self.of})

        if self.function is not None:
            own.check_rows(self.function, columns[self.name], alone)

    @property
    def takes(self) -> tuple[str, ...]:
        """The sorts of columns that it can be made of; none if it takes all."""
        return () if self.how == OWN else MAKERS[self.how].takes

    @property
    def key(self) -> str:
        """The option that names the columns that it is made of."""
        return "of" if self.how == OWN else self.how

    def encoding(self, options: spec.FeatureOptions) -> Encoding:
        """How it enters a model; of names that are made, the rare ones are not kept."""
        assert options.kind is not None  # the file gives it one
        encoding = options.kind.encoding(options)
        if isinstance(encoding, Category | Coded):
            return encoding._replace(told=False)
        return encoding


def find(
    options: Mapping[str, spec.FeatureOptions], functions: Mapping[str, code.Code] | None = None
) -> tuple[Made, ...]:
    """The columns in `features` that are made; `functions` are the user's, by their names."""
    return tuple(
        _made(name, how, chosen, functions)
        for name, chosen in options.items()
        for how in (*MAKERS, OWN)
        if getattr(chosen, how) is not None
    )


def _made(
    name: str,
    how: str,
    chosen: spec.FeatureOptions,
    functions: Mapping[str, code.Code] | None,
) -> Made:
    if how != OWN:
        return Made(name, how, tuple(getattr(chosen, how)))
    assert chosen.kind is not None  # the file gives it one
    assert chosen.of is not None  # likewise
    gives = sort(chosen.kind.encoding(chosen))
    function = None if functions is None else own.resolve(functions, getattr(chosen, how))
    return Made(name, how, tuple(chosen.of), function, gives)


def _finite(values_B: np.ndarray) -> np.ndarray:
    clipped_B: np.ndarray = values_B.clip(-sys.float_info.max, sys.float_info.max)
    return clipped_B
