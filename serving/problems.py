"""The problems of an invalid request, all at once, each with its field.

The decoder stops at the first problem. A request that it refuses is therefore checked again, value
by value, which takes longer.
"""

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec
import numpy as np

from eagleray import errors, names
from eagleray.learn import columns, schema
from eagleray.learn.columns import pictures

MOST = 20  # problems that an error names
LONGEST = 100  # characters that an error repeats of a client's text
WRAPPED = '{"instances": [{…}, …]}'

_SHAPE = re.compile(r"^Expected `(.+)`, got `(.+)`$")
_ENUM = re.compile(r"^Invalid enum value (.+)$", re.DOTALL)
_ROW = re.compile(r"instances\[(\d+)\]")
_WORDS = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "list": "a list",
    "object": "an object",
    "dict": "an object",
    "NoneType": "null",
}
"""Types as msgspec's messages and Python name them."""


class Problem(NamedTuple):
    """The dotted path of a field, such as `instances[3].age`, and what is wrong with it."""

    field: str
    message: str


class Finder:
    """Finds the problems of requests that the decoder refused; `row` is the type of a valid row."""

    def __init__(
        self,
        columns: Sequence[schema.Column],
        row: type[msgspec.Struct],
        extra_fields: schema.ExtraFields,
    ) -> None:
        self._columns, self._row, self._extra_fields = columns, row, extra_fields
        self._types = {field.encode_name: field.type for field in msgspec.structs.fields(row)}

    def instances(self, body: bytes | bytearray) -> list[Any]:
        """Return the rows of a body, unchecked.

        RequestError is 400 if the body is not JSON; 422 if its rows are not wrapped in
        `instances`, or a number is not finite.
        """
        try:
            sent = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
            raise _unreadable(body, cause) from cause
        if not isinstance(sent, dict) or "instances" not in sent:
            law, got = "the rows must be wrapped in instances", self._shape(sent)
            raise errors.RequestError(f"{law}, but got {got}; send {WRAPPED}", field="instances")
        rows = sent.pop("instances")
        if sent:
            message = "instances is the only field of a body, but got another"
            raise errors.RequestError(message, field=next(iter(sent))[:LONGEST])
        if not isinstance(rows, list):
            message = f"a list of rows is needed, but got {_json_type(rows)}; send {WRAPPED}"
            raise errors.RequestError(message, field="instances")
        return rows

    def find(self, rows: list[Any]) -> list[Problem]:
        """Return the problems of rows in their order, at most `MOST` + 1.

        Markers for missing values become None in the rows. Values of the right JSON type are parsed
        only if others have the wrong one; otherwise `Codec.parse` parses them.
        """
        found = list(islice(self._type_problems(rows), MOST + 1))
        if found:
            found += islice(self._value_problems(rows), MOST + 1 - len(found))
        return sorted(found, key=_row_number)

    def names(self, sent: Collection[str]) -> list[Problem]:
        """Return the problems of a table's columns, at most `MOST` + 1: absent and unknown ones."""
        absent = [column.name for column in self._columns if column.name not in sent]
        needed = [column.name for column in self._columns if not column.nullable]
        law = "this column is needed, but is absent"
        found = [Problem(name, law) for name in absent if name in needed]
        if self._extra_fields == "refuse":
            found += islice(self._unknown("", sent, absent), MOST + 1)
        return found[: MOST + 1]

    def _shape(self, sent: object) -> str:
        if isinstance(sent, list):
            return "a bare list"
        if not isinstance(sent, dict):
            return _json_type(sent)
        if any(name in self._types for name in sent):
            return "a bare row"
        shown = ", ".join(name[:LONGEST] for name in islice(sent, 5))
        more = ", …" if len(sent) > 5 else ""
        return f"only {shown}{more}" if sent else "no field at all"

    def _type_problems(self, rows: list[Any]) -> Iterator[Problem]:
        for number, row in enumerate(rows):
            path = f"instances[{number}]"
            if not isinstance(row, dict):
                yield Problem(path, f"an object is needed, but got {_json_type(row)}")
            elif _mismatch(row, self._row):  # most rows are valid, and quickly checked as a whole
                for column in self._columns:
                    yield from self._field(column, row, path)
                if self._extra_fields == "refuse":
                    yield from self._unknown_fields(row, path)

    def _field(self, column: schema.Column, row: dict[str, Any], path: str) -> Iterator[Problem]:
        name, field = column.name, f"{path}.{column.name}"
        if name not in row:
            if not column.nullable:
                yield Problem(field, "this field is needed, but is absent")
        elif column.nullable and _is_marker(column, row[name]):
            row[name] = None
        elif mismatch := _mismatch(row[name], self._types[name]):
            yield _translated(field, mismatch)

    def _unknown_fields(self, row: dict[str, Any], path: str) -> Iterator[Problem]:
        yield from self._unknown(f"{path}.", row, [name for name in self._types if name not in row])

    def _unknown(self, path: str, sent: Iterable[str], absent: list[str]) -> Iterator[Problem]:
        for name in sent:
            if name not in self._types:
                near = names.near(name[:LONGEST], absent or self._types)
                message = f"only the model's columns are taken, but got another field{near}"
                yield Problem(f"{path}{name[:LONGEST]}", message)

    def _value_problems(self, rows: list[Any]) -> Iterator[Problem]:
        """Yield the problems of values that have the right JSON type."""
        pixels = pictures.PixelBudget()
        for column in self._columns:
            if column.kind.parsed_dtype:
                name, kind = column.name, self._types[column.name]
                numbers = [
                    number
                    for number, row in enumerate(rows)
                    if isinstance(row, dict) and name in row and not _mismatch(row[name], kind)
                ]
                values = [rows[number][name] for number in numbers]
                yield from parse(column, values, numbers, pixels)[1] if values else ()


def parse(
    column: schema.Column, raw: schema.Raw, numbers: Sequence[int], pixels: pictures.PixelBudget
) -> tuple[Sequence[Any] | np.ndarray, list[Problem]]:
    """Parse values of a column; return canonical values, and the problems of raw ones.

    `numbers` has the row of each value, from 0; `pixels` limits the pixels of pictures.
    """
    tolerance = schema.Tolerance(pixels=pixels)
    array = schema.parse_column(column, raw, tolerance)
    failures = tolerance.failures
    if not column.nullable:
        missing = np.flatnonzero(columns.missing_rows(array)).tolist()
        law = "a value is needed, but got a mark for a missing one"
        failures = dict.fromkeys(missing, law) | failures
    found = [
        Problem(f"instances[{numbers[index]}].{column.name}", message)
        for index, message in sorted(failures.items())
    ]
    return (array if array.ndim > 1 else array.tolist()), found


def error(found: Sequence[Problem]) -> errors.RequestError:
    """Make one error of problems: its field is the first one's, its message names up to `MOST`."""
    named = tuple(found[:MOST])
    message = named[0].message
    if len(found) > 1:
        message = "; ".join(f"{problem.field}: {problem.message}" for problem in named)
    if len(found) > MOST:
        message += f"; and more than these {MOST}"
    return errors.RequestError(message, field=named[0].field, details=named)


def _unreadable(body: bytes | bytearray, cause: Exception) -> errors.RequestError:
    """Make the error for a body whose JSON is malformed or has numbers that are not finite."""
    try:
        fields = list(islice(_not_finite(json.loads(body), ""), MOST + 1))
    except (ValueError, RecursionError):
        fields = []
    if fields:
        law = "a finite number is needed, but got NaN or Infinity"
        if isinstance(cause, msgspec.ValidationError):
            law = "a number of double precision is needed, but got a larger one"
        return error([Problem(field, law) for field in fields])
    detail = _lower(str(cause).removeprefix("JSON is malformed: "))
    return errors.RequestError(f"the body must be JSON, but {detail}", status=400)


def _is_marker(column: schema.Column, value: object) -> bool:
    """Whether a value is blank, or marks a missing value in the training data."""
    markers = {"", *(marker.strip().casefold() for marker in column.missing)}
    return isinstance(value, str) and value.strip().casefold() in markers


def _not_finite(value: object, path: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            name = key[:LONGEST]
            yield from _not_finite(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{path}[{index}]")


def _mismatch(value: object, wanted: Any) -> str:
    """Return the decoder's message for a value of another type; empty for one of this type."""
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError as cause:
        return str(cause)
    return ""


def _translated(field: str, message: str) -> Problem:
    """Translate a message of msgspec, whose end may name a part of the field (`$[3][1]`)."""
    fault, _, path = message.partition(" - at `$")
    field += path.removesuffix("`")
    if match := _SHAPE.match(fault):
        return Problem(field, f"{_words(match[1])} is needed, but got {_words(match[2])}")
    if match := _ENUM.match(fault):
        law = "a number or one of the column's marks for missing is needed"
        return Problem(field, f"{law}, but got {match[1][:LONGEST]}")
    if fault == "Number out of range":
        fault = "a number of double precision is needed, but got a larger one"
    return Problem(field, _lower(fault))


def _row_number(problem: Problem) -> int:
    match = _ROW.match(problem.field)
    return int(match[1]) if match else 0


def _json_type(value: object) -> str:
    return _WORDS[type(value).__name__]


def _words(types: str) -> str:
    return " or ".join(_WORDS.get(name, name) for name in types.split(" | "))


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
