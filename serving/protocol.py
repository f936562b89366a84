"""Requests and answers as JSON; docs/serving.md describes them.

A request is `{"instances": [{column: value, …}, …]}`. It is decoded in one pass into a type made
from the schema. If that fails, `serving.problems` finds all errors.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from eagleray import errors
from eagleray.bundle import Prediction
from eagleray.learn import schema, tasks
from eagleray.learn.columns import Parser, pictures
from serving import problems

MOST_ROWS = 10_000
MOST_LABELS = 10_000
MOST_BYTES = 16 * 1024 * 1024
MOST_VERSION = 2**31 - 1
"""Of a label; no model has as many versions."""

ERRORS = {
    400: ("bad_json", "The body is not JSON."),
    401: ("unauthorized", "The request has no key, or an unknown one."),
    403: ("forbidden", "The key lacks the scope."),
    404: ("not_found", ""),
    405: ("method_not_allowed", ""),
    408: ("timeout", "The body did not arrive in time."),
    413: ("too_large", f"More than {MOST_ROWS} rows or {MOST_BYTES} bytes."),
    415: ("unsupported_media_type", "The body is declared as a type that is not listed here."),
    422: ("invalid", "Fields are missing, unknown or of another type; `error.details` names each."),
    429: ("too_many_requests", "The rate is exceeded; try again after `Retry-After` seconds."),
    499: ("client_left", ""),
    500: ("internal", "The server failed; its log says why."),
    503: ("unavailable", "Too much is in progress; try again after `Retry-After` seconds."),
    504: ("deadline", "The answer was not there within `x-request-timeout-ms`."),
}
"""By status: type of the error, and what it means for a prediction; empty for other pages'."""

Body = bytes | bytearray
Row = msgspec.Struct
Rows = Sequence[Row]
Packed = list[tuple[Any, ...]]
"""Rows without their type, for another process."""


class Codec:
    """Decodes requests for models of one schema, and forms their answers."""

    def __init__(
        self, known: schema.Schema, *, extra_fields: schema.ExtraFields = "refuse"
    ) -> None:
        fields = {f"f{number}": column for number, column in enumerate(known.columns)}
        self._fields = fields
        self._parsed = {f: column for f, column in fields.items() if column.kind.parsed_dtype}
        self._slow = [f for f, column in fields.items() if column.kind.is_slow]
        self._names = [column.name for column in known.columns]
        self._groups = _groups(known.columns)
        row = _row(fields, extra_fields)
        self._row = row
        self._rows: Any = list[row]  # type: ignore[valid-type]
        body = msgspec.defstruct("Body", [("instances", self._rows)], forbid_unknown_fields=True)
        self._decode: Callable[[Body], Any] = msgspec.json.Decoder(body).decode
        self._problems = problems.Finder(known.columns, row, extra_fields)
        self._task = tasks.of(known.target)

    def valid_rows(self, body: Body) -> Rows | None:
        """Decode a valid request; return None for any other."""
        try:
            rows: Rows = self._decode(body).instances
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return rows if 0 < len(rows) <= MOST_ROWS else None

    def rows(self, body: Body) -> Rows:
        """Decode a request; call `parse` with its rows next.

        RequestError is 400 for a body that is not JSON, 413 for too many rows, else 422.
        """
        valid = self.valid_rows(body)
        if valid is not None:
            return valid
        instances = self._problems.instances(body)
        check_rows(len(instances))
        if found := self._problems.find(instances):
            raise problems.error(found)
        rows: Rows = msgspec.convert(instances, self._rows)
        return rows

    def table_rows(self, raw: Mapping[str, schema.Raw]) -> Rows:
        """Parse raw values by column, which mean what they mean in a training file.

        RequestError names each column that is absent or unknown, and each faulty value.
        """
        check_rows(count := len(next(iter(raw.values()), ())))
        if found := self._problems.names(raw):
            raise problems.error(found)
        pixels, numbers, parsed = pictures.PixelBudget(), range(count), {}
        for field, column in self._fields.items():
            values = raw[column.name] if column.name in raw else [None] * count
            parsed[field], more = problems.parse(column, values, numbers, pixels)
            found += more
        if found:
            raise problems.error(found)
        row, fields = self._row, list(parsed)
        together = zip(*parsed.values(), strict=True)
        return [row(**dict(zip(fields, values, strict=True))) for values in together]

    @property
    def has_slow(self) -> bool:
        """Tell whether texts of a column take long to parse."""
        return bool(self._slow)

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self._names)

    @property
    def tensors(self) -> dict[str, str]:
        """The datatype of each column in the Open Inference Protocol."""
        return {column.name: column.kind.tensor for column in self._fields.values()}

    def is_slow(self, rows: Rows) -> bool:
        """Tell whether `parse` takes long, as it does for encoded pictures."""
        return any(type(getattr(row, field)) is str for field in self._slow for row in rows)

    def parse(self, rows: Rows) -> Rows:
        """Replace values that have more than one form in JSON by canonical ones, in place.

        RequestError names each value that cannot be parsed.
        """
        pixels, numbers = pictures.PixelBudget(), range(len(rows))
        found: list[problems.Problem] = []
        for field, column in self._parsed.items():
            raw = [getattr(row, field) for row in rows]
            values, more = problems.parse(column, raw, numbers, pixels)
            found += more
            for row, value in zip(rows, values, strict=True):
                setattr(row, field, value)
        if found:
            raise problems.error(found)
        return rows

    def unpacked(self, packed: Packed) -> Rows:
        """The rows that `pack` was given, by a codec of the same schema."""
        fields = list(self._fields)
        return [self._row(**dict(zip(fields, values, strict=True))) for values in packed]

    def columns(self, rows: Rows) -> schema.Columns:
        """Return the canonical columns of parsed rows, for `Bundle.predict_columns`."""
        together = list(zip(*map(msgspec.structs.astuple, rows), strict=True))
        found: dict[int, np.ndarray] = {}
        for places, arrays in self._groups:
            found.update(zip(places, arrays([together[one] for one in places]), strict=True))
        return {name: found[place] for place, name in enumerate(self._names)}

    def answers(self, prediction: Prediction) -> list[dict[str, object]]:
        """Return the answer for each row; ServingError where an output is not finite."""
        if not np.isfinite(prediction.outputs).all():
            raise errors.ServingError("a model's outputs must be finite numbers, but got others")
        answers = list(self._task.answers(prediction.outputs))
        for answer, warnings in zip(answers, prediction.warnings, strict=True):
            if warnings:
                answer["warnings"] = warnings
        return answers


def pack(rows: Rows) -> Packed:
    """Parsed rows without their type."""
    return list(map(msgspec.structs.astuple, rows))


def check_rows(count: int) -> None:
    """Refuse a request of no row (422), or of more than `MOST_ROWS` (413)."""
    if not count:
        raise errors.RequestError("at least one row is needed, but got none", field="instances")
    if count > MOST_ROWS:
        message = f"at most {MOST_ROWS} rows are taken at once, but got {count}"
        raise errors.RequestError(message, field="instances", status=413)


def too_many_bytes() -> errors.RequestError:
    """Make the error for a body of more than `MOST_BYTES`."""
    message = f"a body has at most {MOST_BYTES} bytes, but got more"
    return errors.RequestError(message, status=413)


def _groups(columns: Sequence[schema.Column]) -> list[tuple[list[int], Parser]]:
    """The columns of each kind by their place, and what makes canonical ones of parsed values."""
    kinds: dict[str, list[int]] = {}
    for place, column in enumerate(columns):
        kinds.setdefault(column.kind.name, []).append(place)
    return [(places, _parser([columns[one] for one in places])) for places in kinds.values()]


def _parser(columns: Sequence[schema.Column]) -> Parser:
    kind = columns[0].kind
    if (dtype := kind.parsed_dtype) is not None:
        return lambda values: [np.array(one, dtype) for one in values]
    return kind.parser(columns)


def _row(columns: dict[str, schema.Column], extra_fields: schema.ExtraFields) -> type[Row]:
    """Make the type of a row. Columns may have any name, so fields are numbered and renamed."""
    fields: list[Any] = []
    for field, column in columns.items():
        kind = column.kind.wire(column)
        fields.append((field, kind | None, None) if column.nullable else (field, kind))
    return msgspec.defstruct(
        "Row",
        fields,
        rename={field: column.name for field, column in columns.items()},
        forbid_unknown_fields=extra_fields == "refuse",
        kw_only=True,
        gc=False,
    )
