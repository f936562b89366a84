"""Categorical columns as rows of one table. Legend: B rows, K columns.

A column has a row for missing, one for rare and unknown, then one for each frequent category.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
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


@dataclass(frozen=True)
class Categories:
    """For each of K columns its `frequent` categories, most frequent first, and the `rare` ones."""

    names: tuple[str, ...]
    frequent: tuple[tuple[str, ...], ...]
    rare: tuple[tuple[str, ...], ...]

    @classmethod
    def fit(cls, encodings: Mapping[str, Category], columns: schema.Columns) -> Categories:
        frequent, rare = [], []
        for name, encoding in encodings.items():
            counts = Counter(value for value in columns[name].tolist() if value is not None)
            ordered = sorted(counts, key=lambda category: (-counts[category], category))
            frequent.append(tuple(ordered[: encoding.max_categories]))
            rare.append(tuple(ordered[encoding.max_categories :]) if encoding.told else ())
        return cls(tuple(encodings), tuple(frequent), tuple(rare))

    @cached_property
    def _starts(self) -> list[int]:
        """Each column's first row, then the number of rows."""
        return [0, *itertools.accumulate(FIRST + len(names) for names in self.frequent)]

    @cached_property
    def _rows(self) -> list[dict[str | None, int]]:
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
            others = itertools.repeat(self._starts[index] + OTHER)
            rows = map(self._rows[index].get, columns[name].tolist(), others)
            out_BK[:, index] = np.fromiter(rows, np.int32, count)
        return out_BK

    def flags(self, columns: schema.Columns, count: int) -> list[list[str]]:
        """Warnings of unknown categories in `columns` for each of `count` rows."""
        flags: list[list[str]] = [[] for _ in range(count)]
        for name, rows in zip(self.names, self._rows, strict=True):
            if name not in columns:
                continue
            values = columns[name].tolist()
            if rows.keys() >= set(values):
                continue
            for flagged, value in zip(flags, values, strict=True):
                if value not in rows:
                    flagged.append(f"{name}: {value!r} {UNKNOWN}")
        return flags

    def known(self) -> dict[str, tuple[str, ...] | None]:
        """Each column's categories in order; None where there are more than `MOST_IN_SCHEMA`."""
        known = [sorted(name for name in rows if name is not None) for rows in self._rows]
        return {
            column: tuple(names) if len(names) <= MOST_IN_SCHEMA else None
            for column, names in zip(self.names, known, strict=True)
        }
