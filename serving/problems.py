"""What is wrong with a request: all of it at once, each fault with its field.

The decoder stops at the first fault, in its own words. What it refuses is therefore looked at once
more, value by value; that costs time, and only those who sent it wait for it.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from eagleray import errors
from eagleray.learn import columns, schema
from eagleray.learn.columns import pictures

MOST = 20
"""Maximum number of faults that an error names."""

LONGEST = 100
"""Characters of what a client sent that an error repeats."""

WRAPPED = '{"instances": [{…}, …]}'

_SHAPE = re.compile(r"^Expected `(.+)`, got `(.+)`$")
_ENUM = re.compile(r"^Invalid enum value (.+)$", re.DOTALL)
_WITHIN = re.compile(r"(\[\d+\])+$")
"""Where in a picture of nested numbers a fault is."""

_WORDS = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}


@dataclass(frozen=True)
class Problem:
    """A fault.

    Attributes:
        field: its dotted path, such as `instances[3].age`.
        message: the law and the value.
    """

    field: str
    message: str


class Finder:
    """Finds what is wrong with rows that the decoder refused.

    Args:
        columns: the model's.
        kinds: the JSON types of each column's values, by name.
        row: the type that rows without faults are decoded to.
        extra_fields: whether fields that are no columns are refused or ignored.
    """

    def __init__(
        self,
        columns: Sequence[schema.Column],
        kinds: Mapping[str, Any],
        row: type[msgspec.Struct],
        extra_fields: schema.ExtraFields,
    ) -> None:
        self._columns, self._kinds, self._row = columns, kinds, row
        self._extra = extra_fields

    def instances(self, sent: object) -> list[Any]:
        """The rows of a body.

        Raises:
            RequestError: rows that are not wrapped as they have to be.
        """
        if not isinstance(sent, dict):
            raise _unwrapped("a bare list" if isinstance(sent, list) else _json_type(sent))
        if "instances" not in sent:
            is_row = any(name in self._kinds for name in sent)
            raise _unwrapped("a bare row" if is_row else _listed(list(sent)))
        others = [name for name in sent if name != "instances"]
        if others:
            message = "instances is the only field of a body, but got another"
            raise errors.RequestError(message, field=others[0][:LONGEST])
        rows = sent["instances"]
        if not isinstance(rows, list):
            message = f"a list of rows is needed, but got {_json_type(rows)}; send {WRAPPED}"
            raise errors.RequestError(message, field="instances")
        return rows

    def find(self, rows: list[Any]) -> list[Problem]:
        """What is wrong; a fault beyond `MOST` ends it. Marks for missing become None in the rows.

        Only rows with other faults have their dates, truths and pictures read as well.
        """
        types = list(islice(self._types(rows), MOST + 1))
        if not types or len(types) > MOST:
            return types
        known = {_WITHIN.sub("", problem.field) for problem in types}
        found = [*types, *islice(self._unread(rows, known), MOST + 1 - len(types))]
        return sorted(found, key=lambda problem: _index(problem.field))

    def _types(self, rows: list[Any]) -> Iterator[Problem]:
        for index, row in enumerate(rows):
            path = f"instances[{index}]"
            if not isinstance(row, dict):
                yield Problem(path, f"an object is needed, but got {_json_type(row)}")
            elif not self._is_plain(row):
                for column in self._columns:
                    yield from self._value(column, row, path)
                if self._extra == "refuse":
                    yield from self._others(row, path)

    def _is_plain(self, row: dict[str, Any]) -> bool:
        """Whether the decoder takes the row; that is soon told, and true of most rows."""
        try:
            msgspec.convert(row, self._row)
        except msgspec.ValidationError:
            return False
        return True

    def _value(self, column: schema.Column, row: dict[str, Any], path: str) -> Iterator[Problem]:
        if column.name not in row:
            if not column.nullable:
                yield Problem(f"{path}.{column.name}", "this field is needed, but is absent")
            return
        value = row[column.name]
        if column.nullable and _is_mark(column, value):
            row[column.name] = None
            return
        try:
            msgspec.convert(value, self._kinds[column.name])
        except msgspec.ValidationError as cause:
            fault = _translated(str(cause))
            yield Problem(f"{path}.{column.name}{fault.field}", fault.message)

    def _others(self, row: dict[str, Any], path: str) -> Iterator[Problem]:
        absent = [name for name in self._kinds if name not in row]
        for name in row:
            if name not in self._kinds:
                near = _near(name, absent or list(self._kinds))
                message = f"only the model's columns are taken, but got another field{near}"
                yield Problem(f"{path}.{name[:LONGEST]}", message)

    def _unread(self, rows: list[Any], known: set[str]) -> Iterator[Problem]:
        """Values of the right JSON type that cannot be read, beside faults that are known."""
        budget = pictures.PixelBudget()
        for column in self._columns:
            if column.kind.parsed_dtype:
                where = [
                    index
                    for index, row in enumerate(rows)
                    if isinstance(row, dict)
                    and column.name in row
                    and f"instances[{index}].{column.name}" not in known
                ]
                raw = [rows[index][column.name] for index in where]
                yield from parsed(column, raw, budget, where)[1] if raw else ()


def parsed(
    column: schema.Column,
    raw: Sequence[Any],
    budget: pictures.PixelBudget,
    where: Sequence[int] | None = None,
) -> tuple[Sequence[Any] | np.ndarray, list[Problem]]:
    """Canonical values of a column, and what is wrong with the raw ones.

    Args:
        column: what its values mean.
        raw: the values.
        budget: pixels of its pictures.
        where: the row of each value; without it they are all rows in order.
    """
    tolerance = schema.Tolerance(pixels=budget)
    array = schema.parse_column(column, raw, tolerance)
    failures = dict(tolerance.failures)
    if not column.nullable:
        gone = np.flatnonzero(columns.missing_rows(array)).tolist()
        law = "a value is needed, but got a mark for a missing one"
        failures = dict.fromkeys(gone, law) | failures
    found = [
        Problem(f"instances[{index if where is None else where[index]}].{column.name}", message)
        for index, message in sorted(failures.items())
    ]
    return (array if array.ndim > 1 else array.tolist()), found


def error(found: Sequence[Problem]) -> errors.RequestError:
    """The answer to faults: the first one's field, and all of them in words."""
    named = found[:MOST]
    message = named[0].message
    if len(found) > 1:
        message = "; ".join(f"{problem.field}: {problem.message}" for problem in named)
    if len(found) > MOST:
        message += f"; and more than these {MOST}"
    details = tuple((problem.field, problem.message) for problem in named)
    return errors.RequestError(message, field=named[0].field, details=details)


def only(cause: msgspec.ValidationError) -> errors.RequestError:
    """The decoder's own fault, where no others can be found."""
    problem = _translated(str(cause))
    return errors.RequestError(problem.message, field=problem.field.removeprefix(".") or None)


def malformed(body: bytes | bytearray, cause: Exception) -> errors.RequestError:
    """What is wrong with a body that is not JSON; NaN and Infinity are told from other faults."""
    if b"NaN" in body or b"Infinity" in body:
        try:
            paths = list(islice(_not_finite(json.loads(body), ""), MOST + 1))
        except (ValueError, RecursionError):
            paths = []
        if paths:
            law = "a finite number is needed, but got NaN or Infinity"
            return error([Problem(path, law) for path in paths])
    detail = str(cause).removeprefix("JSON is malformed: ")
    return errors.RequestError(f"the body must be JSON, but {_lower(detail)}", status=400)


def _unwrapped(got: str) -> errors.RequestError:
    message = f"the rows must be wrapped in instances, but got {got}; send {WRAPPED}"
    return errors.RequestError(message, field="instances")


def _is_mark(column: schema.Column, value: object) -> bool:
    """Whether this is how the training file, or an empty cell, has a missing number."""
    marks = {"", *(mark.strip().casefold() for mark in column.missing)}
    return isinstance(value, str) and value.strip().casefold() in marks


def _not_finite(value: object, path: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _not_finite(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{path}[{index}]")


def _translated(message: str) -> Problem:
    """A message of msgspec in our form, and its path (`$.instances[3].age`) without the `$`."""
    fault, _, path = message.partition(" - at `$")
    path = path.removesuffix("`")
    if match := _SHAPE.match(fault):
        return Problem(path, f"{_words(match[1])} is needed, but got {_words(match[2])}")
    if match := _ENUM.match(fault):
        got = match[1][:LONGEST]
        return Problem(
            path, f"a number or one of the column's marks for missing is needed, but got {got}"
        )
    if fault == "Number out of range":
        fault = "a number of double precision is needed, but got a larger one"
    return Problem(path, _lower(fault))


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name[:LONGEST], known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _index(field: str) -> int:
    """The number of the row in a path."""
    match = re.match(r"instances\[(\d+)\]", field)
    return int(match[1]) if match else 0


_JSON_TYPES = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    type(None): "null",
}


def _json_type(value: object) -> str:
    return _JSON_TYPES.get(type(value), "a number")


def _listed(names: list[str]) -> str:
    shown = ", ".join(name[:LONGEST] for name in names[:5])
    return f"only {shown}" + (", …" if len(names) > 5 else "") if names else "no field at all"


def _words(kinds: str) -> str:
    return " or ".join(_WORDS.get(kind, kind) for kind in kinds.split(" | "))


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
