"""Leave out what cannot be learned from: columns that are dropped, rows without a target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from eagleray import errors, names, spec
from eagleray.learn import columns, schema
from eagleray.learn.columns import CATEGORICAL, ColumnKind
from eagleray.learn.columns.arrow import Texts
from eagleray.tabular import kinds
from eagleray.tabular.faults import Faults
from eagleray.tabular.names import values_for_names

Table = dict[str, schema.Raw]

MOST_SHOWN = 20
"""Columns that a message lists."""


@dataclass(frozen=True)
class Cleaned:
    """Raw values by column without the rows that are left out, and what was left out.

    Attributes:
        rows: for each row that is left its number in the source, from 1.
    """

    table: Table
    rows: np.ndarray
    notes: tuple[str, ...]


def rows(table: Table, data: spec.Data, features: Mapping[str, spec.FeatureOptions]) -> Cleaned:
    """The rows that have a target, and a group and a time where the split needs them.

    Raises:
        DataError: columns that the experiment names are absent, or no row is left.
    """
    faults, notes = Faults(), []
    faults.problems += _absent(table, data, features)
    count = len(next(iter(table.values()), ()))
    keep = np.ones(count, bool)
    for name in (data.target, data.split.group, data.split.time):
        if name is None or name not in table:
            continue
        with faults.gathered():
            gone = _gone(name, table[name], given(name, features), data)
            if gone.any():
                notes.append(f"{name}: {gone.sum()} of {count} rows have none and are left out")
                keep &= ~gone
    faults.settle()
    if not keep.any():
        raise errors.DataError(
            f"{data.source}: no row is left after cleaning; all {count} are left out"
        )
    dropped = set(data.drop) - {data.split.group, data.split.time}
    cleaned = {name: _kept(raw, keep) for name, raw in table.items() if name not in dropped}
    return Cleaned(cleaned, np.flatnonzero(keep) + 1, tuple(notes))


def given(name: str, features: Mapping[str, spec.FeatureOptions]) -> ColumnKind | None:
    """The kind that the experiment names for a column; None where its values decide."""
    kind = features[name].kind if name in features else None
    return kind if kind is not None and kind.is_input else None


def is_left_out(name: str, features: Mapping[str, spec.FeatureOptions]) -> bool:
    """Whether the experiment names a kind that is no input."""
    kind = features[name].kind if name in features else None
    return kind is not None and not kind.is_input


def _gone(name: str, raw: schema.Raw, kind: ColumnKind | None, data: spec.Data) -> np.ndarray:
    """Which rows have no value (B); not all of them."""
    found = _values(name, raw, kind, data)
    if found is None:
        raise errors.DataError(f"{name}: at least one value is needed, but all are missing")
    return columns.missing_rows(found.array)


def _values(
    name: str, raw: schema.Raw, kind: ColumnKind | None, data: spec.Data
) -> kinds.Found | None:
    """The column as what it decides: a group and a class are categories, even as long text."""
    if name == data.split.group:
        return kinds.find(name, raw, CATEGORICAL, data.missing)
    found = kinds.find(name, raw, kind, data.missing)
    target = found.column.kind.target if found is not None else None
    if found is None or target is None or columns.named(target) is found.column.kind:
        return found
    return kinds.find(name, raw, columns.named(target), data.missing)


def _absent(
    table: Table, data: spec.Data, features: Mapping[str, spec.FeatureOptions]
) -> Iterator[str]:
    """Columns that the experiment names and the table lacks: a problem each."""
    named: dict[str, list[str | None]] = {
        "data.target": [data.target],
        "data.split.group": [data.split.group],
        "data.split.time": [data.split.time],
        "data.drop": list(data.drop),
        "features": list(features),
    }
    for key, wanted in named.items():
        for name in wanted:
            if name is not None and name not in table:
                yield (
                    f"{key}: a column of {data.source} is needed, but got {name!r}"
                    f"{names.near(name, list(table)) or _columns(list(table))}"
                )


def _columns(known: list[str]) -> str:
    """The end of a message, where no name is near."""
    if len(known) == 1:
        return f"; its only column is {known[0]!r}: data.delimiter says what parts the cells"
    shown = ", ".join(known[:MOST_SHOWN]) + (", …" if len(known) > MOST_SHOWN else "")
    return f"; its columns are {shown}{values_for_names(known)}"


def _kept(raw: schema.Raw, keep: np.ndarray) -> schema.Raw:
    if keep.all():
        return raw
    if isinstance(raw, Texts):
        return raw.only(keep)
    if isinstance(raw, np.ndarray):
        left: np.ndarray = raw[keep]
        return left
    return [value for value, kept in zip(raw, keep.tolist(), strict=True) if kept]
