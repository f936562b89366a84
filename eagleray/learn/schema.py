"""What a model's input and target look like, and the one way raw values become canonical columns.

Training reads a table and serving reads JSON; both call `parse`, so that a value means the same in
both. What a canonical column is, its kind says; see `eagleray.learn.columns`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pydantic

from eagleray import errors
from eagleray.learn.columns import LARGEST, arrow
from eagleray.learn.columns import Column as Column
from eagleray.learn.columns import Columns as Columns
from eagleray.learn.columns import Raw as Raw
from eagleray.learn.columns import Tolerance as Tolerance

ExtraFields = Literal["refuse", "ignore"]
"""What becomes of fields of a request's row that are no columns."""


class Target(pydantic.BaseModel, frozen=True):
    """What is predicted; of two classes the negative comes first, the positive last.

    Attributes:
        task: a name of `eagleray.learn.tasks`.
        classes: in the order of a model's outputs; empty where a task has none.
    """

    name: str
    task: str
    classes: tuple[str, ...] = ()
    decimal_comma: bool = False


class Schema(pydantic.BaseModel, frozen=True):
    """Input columns, identifiers left out, and the target."""

    columns: tuple[Column, ...]
    target: Target


def parse(schema: Schema, raw: Mapping[str, Raw]) -> Columns:
    """Canonical columns from raw values by column: a table's, or those of JSON.

    Raises:
        DataError: a column is absent, or holds a value that is neither of its kind nor missing.
    """
    return {column.name: parse_column(column, _given(column, raw)) for column in schema.columns}


def parse_rows(schema: Schema, raw: Mapping[str, Raw]) -> tuple[Columns, dict[int, str]]:
    """Canonical columns of the rows that can be parsed, and what is wrong with the others.

    Returns:
        Columns without the faulty rows, and by number of a faulty row, from 0, all that is wrong
        with it.

    Raises:
        DataError: a column is absent.
    """
    columns: Columns = {}
    faults: dict[int, list[str]] = {}
    for column in schema.columns:
        values = _given(column, raw)
        tolerance = Tolerance(pixels=None)
        try:
            columns[column.name] = parse_column(column, values)
        except errors.DataError:
            columns[column.name] = parse_column(column, values, tolerance)
        for row, fault in tolerance.failures.items():
            faults.setdefault(row, []).append(f"{column.name}: {fault}")
    sound = [row for row in range(len(next(iter(columns.values())))) if row not in faults]
    kept = {name: array[sound] for name, array in columns.items()} if faults else columns
    return kept, {row: "; ".join(faults[row]) for row in sorted(faults)}


def parse_column(column: Column, raw: Raw, tolerance: Tolerance | None = None) -> np.ndarray:
    """One canonical column from raw values.

    Args:
        column: what its values mean.
        raw: the values.
        tolerance: where given, takes note of what cannot be read, in place of the error.

    Raises:
        DataError: a value that is neither of the column's kind nor missing.
    """
    parse = column.kind.parse
    if tolerance is not None or not isinstance(raw, arrow.Texts):
        return parse(column, raw, tolerance)
    if plain := column.kind.plain(column):
        read = raw.read(plain, column.markers, lambda others: parse(column, others))
        numbers: np.ndarray = np.clip(read, -LARGEST, LARGEST)
        return numbers
    different, rows = raw.different()
    parsed: np.ndarray = parse(column, different)[rows]
    return parsed


def to_json(schema: Schema, columns: Columns) -> dict[str, list[Any]]:
    """Values by column, as JSON may hold them, from which `parse` gives the same columns again."""
    return {one.name: one.kind.to_json(columns[one.name]) for one in schema.columns}


def _given(column: Column, raw: Mapping[str, Raw]) -> Raw:
    if column.name not in raw:
        raise errors.DataError(f"{column.name}: every input column is needed, but got none")
    return raw[column.name]
