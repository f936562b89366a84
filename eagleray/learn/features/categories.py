"""Categorical columns as rows of one table. Legend: B rows, K columns.

A column has a row for missing, one for rare and unknown, then one for each frequent category; a
hashed one has a row for missing, then its buckets.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from eagleray.learn import schema

MOST_IN_SCHEMA = 1000  # maximum number of categories of a column that the schema lists

UNKNOWN = "was not seen in training"
"""The end of each warning of an unknown category."""

MISSING, OTHER, FIRST = 0, 1, 2


class Category(NamedTuple):
    """Names, str or None; the `max_categories` most frequent have a row of their own."""

    max_categories: int = 100
    told: bool = True  # whether unknown ones are told from rare ones
    buckets: int = 0  # rows that all names share by their hashes, in place of a vocabulary


@dataclass(frozen=True)
class Categories:
    """For each of K columns its `frequent` categories, most frequent first, and the `rare` ones."""

    names: tuple[str, ...]
    frequent: tuple[tuple[str, ...], ...]
    rare: tuple[tuple[str, ...], ...]
    buckets: tuple[int, ...] = ()  # of each column, 0 for none; empty in old bundles

    @classmethod
    def fit(cls, encodings: Mapping[str, Category], columns: schema.Columns) -> Categories:
        frequent, rare = [], []
        for name, encoding in encodings.items():
            values = () if encoding.buckets else columns[name].tolist()
            counts = Counter(value for value in values if value is not None)
            ordered = sorted(counts, key=lambda category: (-counts[category], category))
            frequent.append(tuple(ordered[: encoding.max_categories]))
            rare.append(tuple(ordered[encoding.max_categories :]) if encoding.told else ())
        buckets = tuple(encoding.buckets for encoding in encodings.values())
        return cls(tuple(encodings), tuple(frequent), tuple(rare), buckets)

    @property
    def _hashed(self) -> tuple[int, ...]:
        """The buckets of each column."""
        return self.buckets or (0,) * len(self.names)

    @cached_property
    def _starts(self) -> list[int]:
        """Each column's first row, then the number of rows."""
        sizes = (
            OTHER + buckets if buckets else FIRST + len(names)
            for buckets, names in zip(self._hashed, self.frequent, strict=True)
        )
        return [0, *itertools.accumulate(sizes)]

    @cached_property
    def _rows(self) -> list[dict[str | None, int]]:
        """The row of each known name by column; of a hashed one, of missing values alone."""
        rows = []
        for start, frequent, rare in zip(self._starts, self.frequent, self.rare, strict=False):
            row: dict[str | None, int] = dict.fromkeys(rare, start + OTHER)
            row.update({name: start + FIRST + place for place, name in enumerate(frequent)})
            row[None] = start + MISSING
            rows.append(row)
        return rows

    @property
    def starts(self) -> tuple[int, ...]:
        """The first row of each column in the table of embeddings; it is for missing values."""
        return tuple(self._starts[:-1])

    @property
    def table_rows(self) -> int:
        return self._starts[-1]

    def apply(self, columns: schema.Columns) -> np.ndarray:
        """i32 (B, K)."""
        count = len(columns[self.names[0]])
        out_BK = np.empty((count, len(self.names)), np.int32)
        for index, name in enumerate(self.names):
            values, first = columns[name].tolist(), self._starts[index] + OTHER
            known = self._rows[index]
            if buckets := self._hashed[index]:
                known = known | {one: first + bucket(one, buckets) for one in set(values) - {None}}
            rows = map(known.get, values, itertools.repeat(first))
            out_BK[:, index] = np.fromiter(rows, np.int32, count)
        return out_BK

    def flags(self, columns: schema.Columns, count: int) -> list[list[str]]:
        """Warnings of unknown categories in `columns` for each of `count` rows."""
        flags: list[list[str]] = [[] for _ in range(count)]
        for name, rows, buckets in zip(self.names, self._rows, self._hashed, strict=True):
            if name in columns and not buckets:
                flag_unknown(name, columns[name], rows, flags)
        return flags

    def known(self) -> dict[str, tuple[str, ...] | None]:
        """Each column's categories, see `listed`; none of hashed columns."""
        found = zip(self.names, self._rows, self._hashed, strict=True)
        return {name: listed(rows) for name, rows, buckets in found if not buckets}


def bucket(name: str, buckets: int) -> int:
    """The bucket of a name, that of scikit-learn's FeatureHasher."""
    from sklearn.utils import murmurhash3_32

    hashed: int = abs(murmurhash3_32(name.encode("utf-8", "surrogatepass")))
    return hashed % buckets


def flag_unknown(
    name: str, values_B: np.ndarray, known: Container[str | None], flags: list[list[str]]
) -> None:
    """Warn, in `flags`, of each row whose category is not known."""
    values = values_B.tolist()
    unknown = {value for value in set(values) if value not in known}
    for flagged, value in zip(flags, values if unknown else (), strict=False):
        if value in unknown:
            flagged.append(f"{name}: {value!r} {UNKNOWN}")


def listed(names: Iterable[str | None]) -> tuple[str, ...] | None:
    """The names in order; None where there are more than `MOST_IN_SCHEMA`."""
    known = sorted(name for name in names if name is not None)
    return tuple(known) if len(known) <= MOST_IN_SCHEMA else None
