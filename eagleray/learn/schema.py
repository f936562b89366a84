"""A model's input columns and target, and how raw values become canonical ones.

Training parses tables and serving parses JSON by this code, so a value means the same in both.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pydantic

from eagleray import errors
from eagleray.learn.columns import Column as Column
from eagleray.learn.columns import Columns as Columns
from eagleray.learn.columns import Raw as Raw
from eagleray.learn.columns import Tolerance as Tolerance
from eagleray.learn.columns import arrow, finite

ExtraFields = Literal["refuse", "ignore"]
"""How fields of a request's row that are no columns are treated."""


class Curve(pydantic.BaseModel, frozen=True):
    """A probability, linear between points, of the log-odds that a model says."""

    log_odds: tuple[float, ...]
    probability: tuple[float, ...]


class Target(pydantic.BaseModel, frozen=True):
    """What is predicted; of two `classes` the positive one comes last, as in a model's outputs.

    Attributes:
        threshold: probability from which the positive one of two classes is predicted.
        costs: cost of each mistake, truth by prediction; the class that is expected to cost least
            is predicted. Empty: the most probable one is.
        curves: isotonic calibration, see `Curve`: of two classes the positive one's, else one a
            class. Empty: probabilities stay as they are.
        quantiles: levels of a number's outputs, ascending, 0.5 among them.
        shifts: conformal calibration: what is added to each quantile. Empty: nothing is.
        user: the column of the user that items, the `classes`, are recommended to; empty where
            nothing is recommended.
        k: how many items are recommended.
    """

    name: str
    task: str
    classes: tuple[str, ...] = ()
    decimal_comma: bool = False
    threshold: float | None = None
    costs: tuple[tuple[float, ...], ...] = ()
    curves: tuple[Curve, ...] = ()
    quantiles: tuple[float, ...] = ()
    shifts: tuple[float, ...] = ()
    user: str = ""
    k: int = 10


class Schema(pydantic.BaseModel, frozen=True):
    """Input columns, identifiers left out, and the target."""

    columns: tuple[Column, ...]
    target: Target


def parse(schema: Schema, raw: Mapping[str, Raw]) -> Columns:
    """Canonical columns from raw values by name; DataError for a faulty value or missing column."""
    return {column.name: parse_column(column, _raw(column, raw)) for column in schema.columns}


def parse_rows(schema: Schema, raw: Mapping[str, Raw]) -> tuple[Columns, dict[int, str]]:
    """Canonical columns of the rows that can be parsed; faults of the others by row, from 0."""
    columns: Columns = {}
    faults: dict[int, list[str]] = {}
    for column in schema.columns:
        values = _raw(column, raw)
        tolerance = Tolerance()
        try:
            columns[column.name] = parse_column(column, values)
        except errors.DataError:
            columns[column.name] = parse_column(column, values, tolerance)
        for row, fault in tolerance.failures.items():
            faults.setdefault(row, []).append(f"{column.name}: {fault}")
    if not faults:
        return columns, {}
    sound = [row for row in range(len(next(iter(columns.values())))) if row not in faults]
    parsed = {name: array[sound] for name, array in columns.items()}
    return parsed, {row: "; ".join(faults[row]) for row in sorted(faults)}


def parse_column(column: Column, raw: Raw, tolerance: Tolerance | None = None) -> np.ndarray:
    """One canonical column from raw values; DataError for a faulty one, without `tolerance`."""
    parse = column.kind.parse
    if tolerance is not None or not isinstance(raw, arrow.Texts):
        return parse(column, raw, tolerance)
    if form := column.kind.plain(column):
        read = finite(raw.read(form, column.markers, lambda others: parse(column, others)))
        return column.kind.with_gaps(column, read)
    distinct, rows = raw.distinct()
    parsed: np.ndarray = parse(column, distinct)[rows]
    return parsed


def to_json(schema: Schema, columns: Columns) -> dict[str, list[Any]]:
    """JSON values by column, from which `parse` gives the same columns again."""
    return {one.name: one.kind.to_json(columns[one.name]) for one in schema.columns}


def _raw(column: Column, raw: Mapping[str, Raw]) -> Raw:
    if column.name not in raw:
        raise errors.DataError(f"{column.name}: every input column is needed, but got none")
    return raw[column.name]
