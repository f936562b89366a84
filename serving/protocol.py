"""What goes over the wire: a model's schema as a strict type, and its answers.

A request is `{"instances": [{column: value, …}, …]}`. It is decoded in one pass, straight into a
type made from the schema, which is where most errors are found; `serving.problems` then names all
of them. See docs/serving.md for the laws.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from eagleray import errors
from eagleray.bundle import Prediction
from eagleray.learn import schema, tasks
from eagleray.learn.columns import pictures
from serving import problems

MOST_ROWS = 10_000
MOST_BYTES = 16 * 1024 * 1024

Body = bytes | bytearray
Row = msgspec.Struct
Rows = Sequence[Row]


class Codec:
    """Reads requests for one model, and gives its answers their form.

    Args:
        known: the model's schema.
        extra_fields: whether fields of a row that are no columns are refused or ignored.
    """

    def __init__(
        self, known: schema.Schema, *, extra_fields: schema.ExtraFields = "refuse"
    ) -> None:
        self._columns = {f"f{number}": column for number, column in enumerate(known.columns)}
        self._parsed = {
            f: column for f, column in self._columns.items() if column.kind.parsed_dtype
        }
        self._slow = [f for f, column in self._columns.items() if column.kind.is_slow]
        self._arrays = {column.name: _array(column) for column in known.columns}
        row = _row(self._columns, extra_fields)
        self._rows: Any = list[row]  # type: ignore[valid-type]
        body = msgspec.defstruct("Body", [("instances", self._rows)], forbid_unknown_fields=True)
        self._decode: Callable[[Body], Any] = msgspec.json.Decoder(body).decode
        kinds = {column.name: _value(column) for column in known.columns}
        self._faults = problems.Finder(known.columns, kinds, row, extra_fields)
        self._task = tasks.of(known.target)

    def plain(self, body: Body) -> Rows | None:
        """The rows of a request in which nothing is wrong; None leaves it to `rows`."""
        try:
            rows: Rows = self._decode(body).instances
        except (msgspec.DecodeError, UnicodeDecodeError):  # of which ValidationError is one
            return None
        return rows if 0 < len(rows) <= MOST_ROWS else None

    def rows(self, body: Body) -> Rows:
        """The rows of a request; `parse` has to follow.

        Raises:
            RequestError: 400 for what is not JSON, 413 for too many rows, else 422.
        """
        try:
            rows: Rows = self._decode(body).instances
        except msgspec.ValidationError as cause:
            rows = self._retried(body, cause)
        except (msgspec.DecodeError, UnicodeDecodeError) as cause:
            raise problems.malformed(body, cause) from cause
        if not rows:
            raise errors.RequestError("at least one row is needed, but got none", field="instances")
        if len(rows) > MOST_ROWS:
            raise too_many_rows(len(rows))
        return rows

    def is_slow(self, rows: Rows) -> bool:
        """Whether `parse` takes long, as it does where pictures have to be unpacked."""
        return any(type(getattr(row, field)) is str for field in self._slow for row in rows)

    def parse(self, rows: Rows) -> Rows:
        """Put canonical values in place of those that JSON's types do not settle, once and for all.

        Raises:
            RequestError: 422, naming each value that cannot be read.
        """
        budget = pictures.PixelBudget()
        found: list[problems.Problem] = []
        for field, column in self._parsed.items():
            raw = [getattr(row, field) for row in rows]
            values, faults = problems.parsed(column, raw, budget)
            found += faults
            for row, value in zip(rows, values, strict=True):
                setattr(row, field, value)
        if found:
            raise problems.error(found)
        return rows

    def columns(self, rows: Rows) -> schema.Columns:
        """Canonical columns of rows that were parsed, as `Bundle.predict_columns` takes them."""
        together = zip(*map(msgspec.structs.astuple, rows), strict=True)
        return {
            name: array(values)
            for (name, array), values in zip(self._arrays.items(), together, strict=True)
        }

    def answers(self, prediction: Prediction) -> list[dict[str, object]]:
        """What is said of each row.

        Raises:
            ServingError: the model gave something that is not a number.
        """
        if not np.isfinite(prediction.outputs).all():
            raise errors.ServingError("a model's outputs must be finite numbers, but got others")
        answers = list(self._task.answers(prediction.outputs))
        for answer, warnings in zip(answers, prediction.warnings, strict=True):
            if warnings:
                answer["warnings"] = warnings
        return answers

    def _retried(self, body: Body, cause: msgspec.ValidationError) -> Rows:
        """The rows, where all that was wrong is how a missing value is written."""
        try:
            sent = msgspec.json.decode(body)
        except msgspec.DecodeError:  # a number that no double holds
            raise problems.only(cause) from cause
        instances = self._faults.instances(sent)
        if len(instances) > MOST_ROWS:
            raise too_many_rows(len(instances))
        if faults := self._faults.find(instances):
            raise problems.error(faults) from cause
        rows: Rows = msgspec.convert(instances, self._rows)
        return rows


def _array(column: schema.Column) -> Callable[[Sequence[Any]], np.ndarray]:
    """What makes a canonical column of the values of rows that were parsed."""
    if dtype := column.kind.parsed_dtype:
        return functools.partial(np.array, dtype=dtype)
    return functools.partial(column.kind.parse, column)


def _row(columns: dict[str, schema.Column], extra: schema.ExtraFields) -> type[msgspec.Struct]:
    """The type of a row. Columns may have any name, so fields are numbered and renamed."""
    fields: list[Any] = []
    for field, column in columns.items():
        kind = _value(column)
        fields.append((field, kind, None) if column.nullable else (field, kind))
    return msgspec.defstruct(
        "Row",
        fields,
        rename={field: column.name for field, column in columns.items()},
        forbid_unknown_fields=extra == "refuse",
        kw_only=True,
        gc=False,
    )


def _value(column: schema.Column) -> Any:
    """The JSON types of a column's values."""
    wire = column.kind.wire(column)
    return wire | None if column.nullable else wire


def too_many_rows(count: int) -> errors.RequestError:
    """For a request of more than `MOST_ROWS`."""
    message = f"at most {MOST_ROWS} rows are taken at once, but got {count}"
    return errors.RequestError(message, field="instances", status=413)


def too_many_bytes() -> errors.RequestError:
    """For a body of more than `MOST_BYTES`."""
    message = f"a body has at most {MOST_BYTES} bytes, but got more"
    return errors.RequestError(message, status=413)
