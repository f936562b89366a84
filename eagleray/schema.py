"""What a model's input and target look like, and the one way raw values become canonical columns.

Training reads a table and serving reads JSON; both call `parse`, so that a value means the same in
both. A canonical column is one array of B rows:

    numeric               f64, NaN where missing; infinities become the largest number
    boolean               f64, 0, 1 or NaN
    datetime              f64, seconds since 1970 in UTC to the millisecond, or NaN
    categorical, text     object, str or None
    image                 f32 (B, C, H, W), NaN where missing
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Literal, TypeVar

import numpy as np
import pydantic

from eagleray import errors, pictures, texts, values

ColumnType = Literal["numeric", "categorical", "boolean", "text", "datetime", "image", "identifier"]
Task = Literal["binary", "multiclass", "regression"]
ExtraFields = Literal["refuse", "ignore"]
"""What becomes of fields of a request's row that are no columns."""

Raw = Sequence[Any] | np.ndarray
Columns = dict[str, np.ndarray]

T = TypeVar("T")

LARGEST = float(np.finfo(np.float64).max)
CALENDAR = (-62_135_596_800, 253_402_300_799)
"""The first and the last second of the years 1 to 9999."""

MOST_LISTED = 1000
"""A column's categories are listed in its schema up to this number."""

_PLAIN = frozenset({float, int, NoneType})


class Column(pydantic.BaseModel, frozen=True):
    """One input column.

    Attributes:
        nullable: whether values are missing in the training file.
        integer: whether all numbers are whole.
        decimal_comma: whether numbers written as text have a decimal comma.
        missing: markers for missing values that were seen, or named by `data.missing`.
        written: how dates that are not in ISO 8601 are written, as `datetime.strptime` has it.
        image_shape: (C, H, W).
        categories: values seen in the training file, sorted; None where there are very many.
    """

    name: str
    type: ColumnType
    nullable: bool = False
    integer: bool = False
    decimal_comma: bool = False
    missing: tuple[str, ...] = ()
    written: str | None = None
    image_shape: tuple[int, ...] | None = None
    categories: tuple[str, ...] | None = None

    @property
    def unquoted(self) -> bool:
        """Whether categories may be written as JSON has numbers and booleans, without quotes."""
        return self.type == "categorical" and any(map(_is_scalar, self.categories or ()))


class Target(pydantic.BaseModel, frozen=True):
    """What is predicted; of two classes the negative comes first, the positive last."""

    name: str
    task: Task
    classes: tuple[str, ...] = ()
    decimal_comma: bool = False

    @property
    def outputs(self) -> int:
        """C: the number of classes, or 1 for regression."""
        return max(1, len(self.classes))


class Schema(pydantic.BaseModel, frozen=True):
    """Input columns, identifiers left out, and the target."""

    columns: tuple[Column, ...]
    target: Target


@dataclass
class Tolerance:
    """How values are parsed: all that cannot be read is noted, and pictures are bounded.

    Attributes:
        failures: by index, why a value cannot be read; it counts as missing.
        pixels: what the pictures of a request may have; None for a table's.
    """

    failures: dict[int, str] = field(default_factory=dict)
    pixels: pictures.Allowance | None = field(default_factory=pictures.Allowance)


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
    parse = _PARSERS[column.type]
    if tolerance is not None or not isinstance(raw, texts.Texts):
        return parse(column, raw, tolerance)
    kind = "comma" if column.decimal_comma and column.type == "numeric" else column.type
    if kind in texts.PLAIN:
        marks = values.markers(column.type, column.missing)
        read = raw.read(kind, marks, lambda others: parse(column, others, None))
        numbers: np.ndarray = np.clip(read, -LARGEST, LARGEST)
        return numbers
    different, rows = raw.different()
    found: np.ndarray = parse(column, different, None)[rows]
    return found


def labels(target: Target, raw: Raw) -> np.ndarray:
    """The target of B rows: the class's index as int64, or the number as f32.

    Raises:
        DataError: a value is no number of a regression, or not among the classes.
    """
    if target.task == "regression":
        column = Column(name=target.name, type="numeric", decimal_comma=target.decimal_comma)
        largest = np.finfo(np.float32).max
        numbers: np.ndarray = np.clip(parse_column(column, raw), -largest, largest)
        return numbers.astype(np.float32)
    if isinstance(raw, texts.Texts):
        different, rows = raw.different()
        found: np.ndarray = labels(target, different)[rows]
        return found
    index = {name: number for number, name in enumerate(target.classes)}
    column = Column(name=target.name, type="categorical")
    return np.array(_each(column, raw, lambda value: index[values.category(value)], -1), np.int64)


def to_json(schema: Schema, columns: Columns) -> dict[str, list[Any]]:
    """Values by column, as JSON may hold them, from which `parse` gives the same columns again."""
    return {column.name: _jsonable(column, columns[column.name]) for column in schema.columns}


def _given(column: Column, raw: Mapping[str, Raw]) -> Raw:
    if column.name not in raw:
        raise errors.DataError(f"{column.name}: every input column is needed, but got none")
    return raw[column.name]


def _is_scalar(text: str) -> bool:
    try:
        return isinstance(json.loads(text), bool | int | float)
    except ValueError:
        return False


def _jsonable(column: Column, array: np.ndarray) -> list[Any]:
    if column.type == "image":
        return [None if np.isnan(picture).all() else pictures.nested(picture) for picture in array]
    if column.type in ("categorical", "text"):
        return list(array)
    writers: dict[str, Callable[[float], Any]] = {"boolean": bool, "datetime": values.isoformat}
    write = writers.get(column.type, _number)
    return [None if math.isnan(value) else write(value) for value in array.tolist()]


def _number(value: float) -> float | int:
    return int(value) if value.is_integer() and abs(value) < 2**53 and value else value


def _numeric(column: Column, raw: Raw, tolerance: Tolerance | None) -> np.ndarray:
    if isinstance(raw, np.ndarray) and raw.dtype.kind in "iufb":
        return np.clip(raw.astype(np.float64), -LARGEST, LARGEST)
    if _PLAIN.issuperset(map(type, raw)):
        try:
            numbers = np.array(raw, np.float64)
        except OverflowError:
            pass
        else:
            extreme = math.inf in raw or -math.inf in raw
            return np.clip(numbers, -LARGEST, LARGEST) if extreme else numbers

    def read(value: object) -> float:
        return values.number(value, comma=column.decimal_comma)

    found = _each(column, raw, read, math.nan, tolerance)
    return np.clip(np.array(found, np.float64), -LARGEST, LARGEST)


def _boolean(column: Column, raw: Raw, tolerance: Tolerance | None) -> np.ndarray:
    return np.array(_each(column, raw, values.truth, math.nan, tolerance), np.float64)


def _datetime(column: Column, raw: Raw, tolerance: Tolerance | None) -> np.ndarray:
    if isinstance(raw, np.ndarray) and raw.dtype.kind == "M":
        milliseconds = raw.astype("datetime64[ms]")
        seconds = milliseconds.astype(np.int64) / 1000
        known = (seconds >= CALENDAR[0]) & (seconds <= CALENDAR[1])  # NaT is far below
        return np.where(known, seconds, math.nan)

    def read(value: object) -> float:
        return values.moment(value, column.written)

    found = _each(column, raw, read, math.nan, tolerance)
    return np.array(found, np.float64)


def _words(column: Column, raw: Raw, tolerance: Tolerance | None) -> np.ndarray:
    words = np.empty(len(raw), object)
    words[:] = _each(column, raw, values.category, None, tolerance)
    return words


def _image(column: Column, raw: Raw, tolerance: Tolerance | None) -> np.ndarray:
    shape = column.image_shape
    assert shape is not None
    empty = np.full(shape, math.nan, np.float32)
    allowance = tolerance.pixels if tolerance is not None else None

    def read(value: object) -> np.ndarray:
        return pictures.fit(value, shape, allowance)

    found = _each(column, raw, read, empty, tolerance)
    return np.stack(found) if found else np.empty((0, *shape), np.float32)


_PARSERS: dict[str, Callable[[Column, Raw, Tolerance | None], np.ndarray]] = {
    "numeric": _numeric,
    "boolean": _boolean,
    "datetime": _datetime,
    "categorical": _words,
    "text": _words,
    "image": _image,
}

_NEEDED = {
    "numeric": "a number",
    "boolean": "true or false",
    "datetime": "a date or time in ISO 8601",
    "categorical": "one of the target's classes or a name",
    "text": "text",
    "image": "a picture of the training pictures' shape",
}


def _each(
    column: Column,
    raw: Raw,
    read: Callable[[Any], T],
    missing: T,
    tolerance: Tolerance | None = None,
) -> list[T]:
    """Each value read, equal texts once; markers and None give `missing`."""
    markers = values.markers(column.type, column.missing)
    seen: dict[str, T] = {}
    found = []
    for index, value in enumerate(raw.tolist() if isinstance(raw, np.ndarray) else raw):
        try:
            if isinstance(value, str):
                if value not in seen:
                    gone = value.strip().casefold() in markers
                    seen[value] = missing if gone else _read(column, value, read)
                found.append(seen[value])
            elif value is None or (isinstance(value, float) and value != value):
                found.append(missing)
            else:
                found.append(_read(column, value, read))
        except errors.DataError as cause:
            if tolerance is None:
                raise
            tolerance.failures[index] = str(cause).removeprefix(f"{column.name}: ")
            found.append(missing)
    return found


def _read(column: Column, value: Any, read: Callable[[Any], T]) -> T:
    try:
        return read(value)
    except errors.DataError as cause:
        raise errors.DataError(f"{column.name}: {cause}") from cause
    except (ValueError, KeyError, OverflowError) as cause:
        shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
        need = _NEEDED[column.type]
        raise errors.DataError(f"{column.name}: {need} is needed, but got {shown}") from cause
