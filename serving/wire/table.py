"""Many rows as a table: its values mean what they mean in a training file."""

from __future__ import annotations

import csv
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eagleray import errors
from eagleray.bundle import Bundle
from eagleray.learn.schema import Raw
from serving.protocol import Body, Codec, Rows
from serving.wire import options, typed_json
from serving.wire.wire import Answers, Encoded, Headers

if TYPE_CHECKING:
    import pyarrow as pa


_DAMAGED = ValueError, OSError, OverflowError, TypeError, struct.error, csv.Error
"""What reading a damaged body raises, beside Arrow's errors."""


@dataclass(frozen=True)
class Table:
    """The wire of one format of tables; answers are JSON unless `accept` asks for the format."""

    content_type: bytes
    read: Callable[[Body], pa.Table]  # raises `_DAMAGED`, or RequestError for what it refuses
    write: Callable[[pa.Table], bytes]

    def open(self, headers: Headers, query: bytes) -> Sent:
        asked = options.accepts(headers.get(b"accept", b""), self.content_type)
        return Sent(self, bool(query) and options.explain(query), answers_table=asked)


class Sent:
    """One table and its answer."""

    def __init__(self, form: Table, explain: bool, *, answers_table: bool) -> None:
        self.explain = self.alone = explain
        self._form, self._answers_table = form, answers_table

    def quick_rows(self, codec: Codec, body: Body) -> Rows | None:
        return None

    def rows(self, codec: Codec, body: Body) -> Rows:
        return codec.table_rows(self._columns(body))

    def encode(self, version: Bundle, answers: Answers) -> Encoded:
        if not self._answers_table:
            return typed_json.JSON.encode(version, answers)
        import pyarrow as pa

        table = pa.Table.from_pylist([_cells(version, answer) for answer in answers])
        return self._form.write(table), self._form.content_type, ()

    def _columns(self, body: Body) -> dict[str, Raw]:
        import pyarrow as pa

        from eagleray.tabular import delimited, load

        try:
            return load.table(delimited.frame(self._form.read(body)))
        except (pa.ArrowException, *_DAMAGED) as cause:
            law = f"the body must be {self._form.content_type.decode()}"
            raise errors.RequestError(f"{law}, but {str(cause)[:200]}") from cause


def _cells(version: Bundle, answer: dict[str, Any]) -> dict[str, Any]:
    """An answer as cells by heading; `warnings` are one text."""
    cells = {**version.task.flat(answer), "warnings": "; ".join(answer.get("warnings", ()))}
    explanation = answer.get("explanation")
    if explanation is not None:
        cells["mean"] = explanation["mean"]
        for name, value in explanation["contributions"].items():
            cells[f"contribution of {name}"] = value
    return cells
