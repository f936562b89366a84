"""What goes over the wire: a model's schema as a strict type, its answers, and its errors.

A request is `{"instances": [{column: value, …}, …]}`. It is decoded in one pass, straight into a
type made from the schema, which is where most errors are found; see docs/serving.md for the laws.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Union

import msgspec
import numpy as np

from eagleray import errors, schema
from eagleray.bundle import Prediction

MOST_ROWS = 10_000
MOST_BYTES = 16 * 1024 * 1024
LONGEST = 100
"""Characters of what a client sent that an error repeats."""

Row = msgspec.Struct
Rows = Sequence[Row]

_CHECKED = frozenset({"boolean", "datetime", "image"})
"""Types whose values JSON's types do not settle: such columns are parsed before they are queued."""

_SHAPE = re.compile(r"^Expected `(.+)`, got `(.+)`$")
_MISSING = re.compile(r"^Object missing required field `(.+)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(.*)`$", re.DOTALL)
_ENUM = re.compile(r"^Invalid enum value (.+)$", re.DOTALL)
_WORDS = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}


class Codec:
    """Reads requests for one model, and gives its answers their form."""

    def __init__(self, known: schema.Schema) -> None:
        self._names = [column.name for column in known.columns]
        checked = tuple(column for column in known.columns if column.type in _CHECKED)
        self._checked = known.model_copy(update={"columns": checked}) if checked else None
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(_body(known)).decode
        self._classes = known.target.classes

    def rows(self, body: bytes) -> Rows:
        """The rows of a request.

        Raises:
            RequestError: 400 for what is not JSON, 413 for too many rows, else 422.
        """
        try:
            rows: Rows = self._decode(body).instances
        except msgspec.ValidationError as cause:
            raise _invalid(str(cause), self._names) from cause
        except (msgspec.DecodeError, UnicodeDecodeError) as cause:
            raise _malformed(body, cause) from cause
        if not rows:
            raise errors.RequestError("at least one row is needed, but got none", field="instances")
        if len(rows) > MOST_ROWS:
            raise too_many_rows(len(rows))
        if self._checked is not None:
            self._check(self._checked, rows)
        return rows

    def raw(self, rows: Rows) -> dict[str, Sequence[Any]]:
        """Raw values by column, as `Bundle.predict` takes them."""
        values = zip(*map(msgspec.structs.astuple, rows), strict=True)
        return dict(zip(self._names, values, strict=True))

    def answers(self, prediction: Prediction) -> list[dict[str, object]]:
        """What is said of each row.

        Raises:
            ServingError: the model gave something that is not a number.
        """
        if not np.isfinite(prediction.outputs).all():
            raise errors.ServingError("a model's outputs must be finite numbers, but got others")
        answers = list(self._rendered(prediction.outputs))
        for answer, warnings in zip(answers, prediction.warnings, strict=True):
            if warnings:
                answer["warnings"] = warnings
        return answers

    def _rendered(self, outputs: np.ndarray) -> Iterator[dict[str, object]]:
        classes = self._classes
        if not classes:
            yield from ({"value": value} for value in outputs.tolist())
            return
        best = outputs.argmax(1).tolist()
        for index, row in zip(best, outputs.tolist(), strict=True):
            yield {
                "label": classes[index],
                "probability": row[index],
                "probabilities": dict(zip(classes, row, strict=True)),
            }

    def _check(self, checked: schema.Schema, rows: Rows) -> None:
        raw = self.raw(rows)
        try:
            columns = schema.parse(checked, raw)
        except errors.DataError as cause:
            raise _located(checked, raw) or cause from cause
        needed = (column for column in checked.columns if not column.nullable)
        if any(np.isnan(columns[column.name]).any() for column in needed):
            raise _located(checked, raw) or AssertionError("a missing value was just found")


def _body(known: schema.Schema) -> type[msgspec.Struct]:
    """The type of a request. Columns may have any name, so fields are numbered and renamed."""
    names = {f"f{number}": column.name for number, column in enumerate(known.columns)}
    fields: list[Any] = []
    for field, column in zip(names, known.columns, strict=True):
        kind = _kind(column)
        fields.append((field, kind | None, None) if column.nullable else (field, kind))
    row = msgspec.defstruct(
        "Row", fields, rename=names, forbid_unknown_fields=True, kw_only=True, gc=False
    )
    return msgspec.defstruct("Body", [("instances", list[row])], forbid_unknown_fields=True)  # type: ignore[valid-type]


def _kind(column: schema.Column) -> Any:
    """The JSON types of a column's values."""
    if column.type == "numeric":
        return Union[float, Literal[column.missing]] if column.missing else float  # noqa: UP007
    if column.type == "boolean":
        return bool | float | str
    if column.type == "datetime":
        return float | str
    if column.type == "image":
        assert column.image_shape is not None
        grey = column.image_shape[0] == 1
        return str | (list[list[float]] if grey else list[list[list[float]]])
    return bool | float | str if column.unquoted else str


def too_many_rows(count: int) -> errors.RequestError:
    """For a request of more than `MOST_ROWS`."""
    message = f"at most {MOST_ROWS} rows are taken at once, but got {count}"
    return errors.RequestError(message, field="instances", status=413)


def too_many_bytes() -> errors.RequestError:
    """For a body of more than `MOST_BYTES`."""
    message = f"a body has at most {MOST_BYTES} bytes, but got more"
    return errors.RequestError(message, status=413)


def _malformed(body: bytes, cause: Exception) -> errors.RequestError:
    """What is wrong with a body that is not JSON; NaN and Infinity are told from other faults."""
    if b"NaN" in body or b"Infinity" in body:
        try:
            field = next(_not_finite(json.loads(body), ""), None)
        except (ValueError, RecursionError):
            field = None
        if field is not None:
            return errors.RequestError(
                "a finite number is needed, but got NaN or Infinity", field=field
            )
    detail = str(cause).removeprefix("JSON is malformed: ")
    return errors.RequestError(f"the body must be JSON, but {_lower(detail)}", status=400)


def _not_finite(value: object, path: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _not_finite(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{path}[{index}]")


def _invalid(message: str, names: list[str]) -> errors.RequestError:
    """A message of msgspec in our form, and its path (`$.instances[3].age`) as the field."""
    fault, _, path = message.partition(" - at `$")
    path = path.removesuffix("`").removeprefix(".")
    if match := _MISSING.match(fault):
        return errors.RequestError(
            "this field is needed, but is absent", field=_join(path, match[1])
        )
    if match := _UNKNOWN.match(fault):
        known = names if path else ["instances"]
        name = match[1][:LONGEST]
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        message = f"only the model's columns are taken, but got another field{hint}"
        return errors.RequestError(message, field=_join(path, name))
    if match := _SHAPE.match(fault):
        return errors.RequestError(
            f"{_words(match[1])} is needed, but got {_words(match[2])}", field=path
        )
    if match := _ENUM.match(fault):
        needed = "a number or one of the column's marks for missing"
        got = match[1][:LONGEST]
        return errors.RequestError(f"{needed} is needed, but got {got}", field=path)
    if fault == "Number out of range":
        fault = "a number of double precision is needed, but got a larger one"
    return errors.RequestError(_lower(fault), field=path or None)


def _located(checked: schema.Schema, raw: dict[str, Sequence[Any]]) -> errors.RequestError | None:
    """The first value that cannot be parsed, or that is missing in a column that has them all."""
    for column in checked.columns:
        alone = checked.model_copy(update={"columns": (column,)})
        for index, value in enumerate(raw[column.name]):
            message = ""
            try:
                parsed = schema.parse(alone, {column.name: [value]})[column.name]
            except errors.DataError as cause:
                message = str(cause).removeprefix(f"{column.name}: ")
            else:
                if not column.nullable and np.isnan(parsed).any():
                    message = "a value is needed, but got a mark for a missing one"
            if message:
                return errors.RequestError(message, field=f"instances[{index}].{column.name}")
    return None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _words(kinds: str) -> str:
    return " or ".join(_WORDS.get(kind, kind) for kind in kinds.split(" | "))


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
