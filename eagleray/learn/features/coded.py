"""Categorical columns as numbers: places in an order, or means of the target.

Legend: B rows, N names of a column, J numbers of a name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from eagleray import errors
from eagleray.learn.features.categories import flag_unknown

if TYPE_CHECKING:
    from eagleray.learn import schema

FOLDS = 5  # of the training rows, as scikit-learn's TargetEncoder has
SPANS = 10  # of time, each of which knows the earlier ones


class Coded(NamedTuple):
    """Names, str or None, as numbers that enter a model like those of a numeric column."""

    by: Literal["order", "target"]
    order: tuple[str, ...] = ()  # from the first place on; empty: as names sort, numbers by size
    told: bool = True  # whether unknown names are warned of


class Marks(NamedTuple):
    """The group or the time of each row (B), where the split goes by one."""

    groups: np.ndarray | None = None
    times: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Marks:
        return Marks(*(None if array is None else array[rows] for array in self))


UNMARKED = Marks()
"""Of rows that are split by chance."""


class Truth(NamedTuple):
    """Targets of the training rows (B), the number of classes (0 for a quantity), and marks."""

    targets: np.ndarray
    classes: int
    marks: Marks = UNMARKED

    @property
    def numbers_BJ(self) -> np.ndarray:
        """What means are of: a quantity, or 1 for each class; of two, for the second alone."""
        if not self.classes:
            return self.targets[:, None].astype(np.float64)
        first = 1 if self.classes == 2 else 0
        is_of_BJ: np.ndarray = self.targets[:, None] == np.arange(first, self.classes)
        return is_of_BJ.astype(np.float64)

    def folds(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the other rows, and the rows, of each fold; the same for the same targets.

        Rows of a group share a fold. The other rows of a span of time are all earlier ones, of the
        first one none.
        """
        if self.marks.times is not None:
            yield from _spans(self.marks.times)
        elif self.marks.groups is not None:
            yield from _grouped(self.marks.groups)
        else:
            yield from self._drawn()

    def _drawn(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        from sklearn.model_selection import KFold, StratifiedKFold

        count, rows = min(FOLDS, len(self.targets)), np.empty(len(self.targets))
        if count < 2:
            return
        sizes = np.bincount(self.targets) if self.classes else np.zeros(1, int)
        able = min(sizes[sizes > 0], default=0) >= count
        splitter = (StratifiedKFold if able else KFold)(count, shuffle=True, random_state=0)
        yield from splitter.split(rows, self.targets)


@dataclass(frozen=True)
class Codes:
    """The N names of one column, and the numbers of each."""

    name: str
    names: tuple[str, ...]
    table: np.ndarray  # (N + 2, J): of a missing value, of each name, of an unknown name
    told: bool
    classes: int | None = None  # of the target whose means they are, see `Truth`

    @classmethod
    def fit(cls, name: str, encoding: Coded, names_B: np.ndarray, truth: Truth | None) -> Codes:
        known = set(names_B.tolist()) - {None}
        if encoding.by == "order":
            names = encoding.order or tuple(sorted(known, key=_size))
            table = np.array([math.nan, *range(len(names)), math.nan])[:, None]
            return cls(name, names, table, encoding.told)
        if truth is None:
            raise errors.DataError(f"{name}: targets are needed for means of the target")
        made = cls(name, tuple(sorted(known)), np.empty((0, 0)), encoding.told, truth.classes)
        codes = np.arange(len(made.names) + 2)
        table = _means(made._codes(names_B), truth.numbers_BJ, codes)
        return cls(name, made.names, table, encoding.told, truth.classes)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the J columns of numbers."""
        count = self.table.shape[1]
        return (self.name,) if count == 1 else tuple(f"{self.name}\x1f{at}" for at in range(count))

    def apply(self, names_B: np.ndarray) -> schema.Columns:
        """The J columns of numbers (B); NaN for missing and unknown names without a number."""
        return self._named(self.table[self._codes(names_B)])

    def training(self, names_B: np.ndarray, targets: np.ndarray, marks: Marks) -> schema.Columns:
        """The same of the rows that it was fitted on: means are those of the other folds' rows.

        Where there are none, the mean of the fold stands for every name.
        """
        if self.classes is None:
            return self.apply(names_B)
        truth, code_B = Truth(targets, self.classes, marks), self._codes(names_B)
        number_BJ, mean_BJ = truth.numbers_BJ, self.table[code_B]
        for others, rows in truth.folds():
            if len(others):
                mean_BJ[rows] = _means(code_B[others], number_BJ[others], code_B[rows])
            else:
                mean_BJ[rows] = number_BJ[rows].mean(axis=0)
        return self._named(mean_BJ)

    def flag(self, columns: schema.Columns, flags: list[list[str]]) -> None:
        """Warn, in `flags`, of unknown names."""
        if self.told and self.name in columns:
            flag_unknown(self.name, columns[self.name], self._places, flags)

    @cached_property
    def _places(self) -> dict[str | None, int]:
        return {None: 0, **{name: place for place, name in enumerate(self.names, 1)}}

    def _codes(self, names_B: np.ndarray) -> np.ndarray:
        """The row of `table` of each name (B)."""
        places, unknown = self._places, len(self.names) + 1
        found = (places.get(name, unknown) for name in names_B.tolist())
        return np.fromiter(found, np.int64, len(names_B))

    def _named(self, number_BJ: np.ndarray) -> schema.Columns:
        return dict(zip(self.columns, np.ascontiguousarray(number_BJ.T), strict=True))


def fit(
    encodings: Mapping[str, Coded], columns: schema.Columns, truth: Truth | None
) -> tuple[Codes, ...]:
    """The numbers of each column's names."""
    return tuple(Codes.fit(name, one, columns[name], truth) for name, one in encodings.items())


def _means(code_B: np.ndarray, number_BJ: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Means of numbers by code, drawn to the mean of all where rows are few, for codes `asked`.

    Source: Micci-Barreca 2001, as scikit-learn's TargetEncoder has it; its means of a class are
    those of a number that is 1 for the class.
    """
    from sklearn.preprocessing import TargetEncoder

    means = []
    for number_B in number_BJ.T:
        encoder = TargetEncoder(target_type="continuous").fit(code_B[:, None], number_B)
        means.append(encoder.transform(asked[:, None])[:, 0])
    return np.stack(means, axis=1)


def _grouped(groups_B: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    import pandas as pd
    from sklearn.model_selection import GroupKFold

    code_B, names = pd.factorize(groups_B, use_na_sentinel=False)
    if len(names) < 2:
        yield np.empty(0, int), np.arange(len(groups_B))
        return
    yield from GroupKFold(min(FOLDS, len(names))).split(code_B, groups=code_B)


def _spans(times_B: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Spans of as many rows, each with all rows before it; rows of one time stay in one."""
    order = np.argsort(times_B, kind="stable")
    ordered_B = times_B[order]
    starts = np.linspace(0, len(order), SPANS, endpoint=False).astype(int)
    cuts = np.unique(np.searchsorted(ordered_B, ordered_B[starts])).tolist()
    for start, end in zip(cuts, [*cuts[1:], len(order)], strict=True):
        yield order[:start], order[start:end]


def _size(name: str) -> tuple[float, str]:
    """Numbers by size, then texts."""
    try:
        number = float(name)
    except ValueError:
        return math.inf, name
    return (math.inf if math.isnan(number) else number), name
