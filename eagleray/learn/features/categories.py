"""Categorical columns as rows of one table.

Each column owns a run of rows: one for missing, one for what is rare or unknown, then one for each
of its most frequent categories.

Legend: B rows, K columns.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from eagleray.learn.features import encodings

if TYPE_CHECKING:
    from eagleray.learn import schema

MOST_LISTED = 1000
"""A column's categories are listed in its schema up to this number."""

MISSING, OTHER, FIRST = 0, 1, 2


@dataclass(frozen=True)
class Categories:
    """Fitted categories.

    Attributes:
        names: the K columns.
        frequent: for each column its categories with a row of their own, most frequent first.
        rare: for each column the other categories that were seen in training.
    """

    names: tuple[str, ...]
    frequent: tuple[tuple[str, ...], ...]
    rare: tuple[tuple[str, ...], ...]
    _rows: list[dict[str | None, int]] = field(init=False, repr=False, compare=False)
    _others: list[int] = field(init=False, repr=False, compare=False)
    table: int = field(init=False)

    def __post_init__(self) -> None:
        rows, others, start = [], [], 0
        for frequent, rare in zip(self.frequent, self.rare, strict=True):
            row: dict[str | None, int] = dict.fromkeys(rare, start + OTHER)
            row.update({name: start + FIRST + place for place, name in enumerate(frequent)})
            row[None] = start + MISSING
            rows.append(row)
            others.append(start + OTHER)
            start += FIRST + len(frequent)
        object.__setattr__(self, "_rows", rows)
        object.__setattr__(self, "_others", others)
        object.__setattr__(self, "table", start)

    @classmethod
    def fit(
        cls,
        mine: Mapping[str, encodings.Category],
        columns: schema.Columns,
    ) -> Categories:
        frequent, rare = [], []
        for name, encoding in mine.items():
            counts = Counter(value for value in columns[name].tolist() if value is not None)
            ordered = sorted(counts, key=lambda category: (-counts[category], category))
            frequent.append(tuple(ordered[: encoding.most]))
            rare.append(tuple(ordered[encoding.most :]))
        return cls(tuple(mine), tuple(frequent), tuple(rare))

    def apply(self, columns: schema.Columns) -> np.ndarray:
        """i32 (B, K)."""
        count = len(columns[self.names[0]])
        out_BK = np.empty((count, len(self.names)), np.int32)
        for index, name in enumerate(self.names):
            others = itertools.repeat(self._others[index])
            rows = map(self._rows[index].get, columns[name].tolist(), others)
            out_BK[:, index] = np.fromiter(rows, np.int32, count)
        return out_BK

    def flags(self, columns: schema.Columns, count: int) -> list[list[str]]:
        """Warnings for each of `count` rows; nothing is compared twice where all is known."""
        flags: list[list[str]] = [[] for _ in range(count)]
        for name, rows in zip(self.names, self._rows, strict=True):
            values = columns[name].tolist()
            if rows.keys() >= set(values):
                continue
            for flagged, value in zip(flags, values, strict=True):
                if value not in rows:
                    flagged.append(f"{name}: {value!r} was not seen in training")
        return flags

    def seen(self) -> list[tuple[str, ...] | None]:
        """For each column its categories in order; None where there are more than `MOST_LISTED`."""
        every = [
            (*frequent, *rare) for frequent, rare in zip(self.frequent, self.rare, strict=True)
        ]
        return [tuple(sorted(names)) if len(names) <= MOST_LISTED else None for names in every]

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        described = {
            "names": list(self.names),
            "frequent": [list(names) for names in self.frequent],
            "rare": [list(names) for names in self.rare],
        }
        return described, {}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Categories:  # noqa: ARG003 (all is JSON)
        return cls(
            tuple(state["names"]),
            tuple(tuple(names) for names in state["frequent"]),
            tuple(tuple(names) for names in state["rare"]),
        )
