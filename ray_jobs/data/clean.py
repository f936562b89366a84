"""Leave out what cannot be learned from: columns that are dropped, rows without a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eagleray import errors, schema, spec
from eagleray.texts import Texts
from ray_jobs.data import kinds
from ray_jobs.data.names import did_you_mean

Table = dict[str, schema.Raw]


@dataclass(frozen=True)
class Cleaned:
    """Raw values by column without the rows that are left out, and what was left out."""

    table: Table
    notes: tuple[str, ...]


def rows(table: Table, data: spec.Data, features: Mapping[str, spec.FeatureOptions]) -> Cleaned:
    """The rows that have a target, and a group and a time where the split needs them.

    Raises:
        DataError: a column that the experiment names is absent, or no row is left.
    """
    _check_names(table, data, features)
    notes = []
    count = len(table[data.target])
    keep = np.ones(count, bool)
    for name in (data.target, data.split.group, data.split.time):
        if name is None:
            continue
        found = _values(name, table[name], given(name, features), data)
        if found is None:
            raise errors.DataError(f"{name}: at least one value is needed, but all are missing")
        gone = kinds.missing_rows(found.array)
        if gone.any():
            notes.append(f"{name}: {gone.sum()} of {count} rows have none and are left out")
            keep &= ~gone
    if not keep.any():
        raise errors.DataError(
            f"{data.source}: no row is left after cleaning; all {count} are left out"
        )
    dropped = set(data.drop) - {data.split.group, data.split.time}
    cleaned = {name: _kept(raw, keep) for name, raw in table.items() if name not in dropped}
    return Cleaned(cleaned, tuple(notes))


def given(name: str, features: Mapping[str, spec.FeatureOptions]) -> schema.ColumnType | None:
    """The type that the user has given a column; None where its values decide."""
    kind = features[name].type if name in features else "auto"
    return None if kind == "auto" or kind == "identifier" else kind


def _values(
    name: str, raw: schema.Raw, kind: schema.ColumnType | None, data: spec.Data
) -> kinds.Found | None:
    """The column as what it decides: a group and a class are categories, even as long text."""
    if name == data.split.group:
        return kinds.find(name, raw, "categorical", data.missing)
    found = kinds.find(name, raw, kind, data.missing)
    if found is not None and found.column.type == "text":
        return kinds.find(name, raw, "categorical", data.missing)
    return found


def _check_names(
    table: Table, data: spec.Data, features: Mapping[str, spec.FeatureOptions]
) -> None:
    named: dict[str, list[str | None]] = {
        "data.target": [data.target],
        "data.split.group": [data.split.group],
        "data.split.time": [data.split.time],
        "data.drop": list(data.drop),
        "features": list(features),
    }
    for key, names in named.items():
        for name in names:
            if name is not None and name not in table:
                raise errors.DataError(
                    f"{key}: a column of {data.source} is needed,"
                    f" but got {name!r}{did_you_mean(name, list(table))}"
                )


def _kept(raw: schema.Raw, keep: np.ndarray) -> schema.Raw:
    if keep.all():
        return raw
    if isinstance(raw, Texts):
        return raw.only(keep)
    if isinstance(raw, np.ndarray):
        left: np.ndarray = raw[keep]
        return left
    return [value for value, kept in zip(raw, keep.tolist(), strict=True) if kept]
