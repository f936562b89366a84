"""Valid bodies for Schemathesis, of what OpenAPI cannot describe: tables, tensors that fit."""

import csv
import io
import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import schemathesis
from hypothesis import strategies as st
from schemathesis.generation.case import Case
from schemathesis.hooks import HookContext
from schemathesis.schemas import BaseSchema

from eagleray.learn import schema
from serving import openapi
from serving.wire import inference, inference_openapi

Row = dict[str, Any]
Columns = Sequence[schema.Column]

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "FP64": st.floats(allow_nan=False, allow_infinity=False),
    "BOOL": st.booleans(),
}
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
TIMES = st.datetimes().map(lambda time: time.isoformat())


def register(columns: Columns, pictures: Sequence[str], rows: int) -> None:
    """Let Schemathesis send valid tables and binary tensors of these columns.

    `pictures` are encoded ones; requests have so many `rows` at most.
    """
    made = st.fixed_dictionaries({one.name: _value(one, pictures) for one in columns})
    tables = st.lists(made, min_size=1, max_size=rows)
    schemathesis.openapi.media_type(openapi.CSV, tables.map(_as_csv))
    schemathesis.openapi.media_type(openapi.ARROW, tables.map(_as_arrow))
    binary = tables.map(lambda table: _as_binary(columns, table))
    schemathesis.openapi.media_type(inference_openapi.BYTES, binary)


def fit(described: BaseSchema, columns: Columns, row: Row) -> None:
    """Let valid requests of tensors be as OpenAPI cannot say; see `inference_openapi`.

    Inputs that are absent have the values of `row`.
    """

    @described.hook
    def before_call(context: HookContext, case: Case, **_: object) -> None:
        positive = case.meta is not None and case.meta.generation.mode.is_positive
        if not positive or not case.path.endswith("/infer"):
            return
        name = inference.HEADER_SIZE.decode()
        (case.headers or {}).pop(name, None)
        if isinstance(case.body, bytes):
            text = case.body.decode("latin-1")
            case.headers[name] = str(json.JSONDecoder().raw_decode(text)[1])
        elif isinstance(case.body, dict):
            case.body = {**case.body, "inputs": _fitted(columns, row, case.body["inputs"])}


def _value(column: schema.Column, pictures: Sequence[str]) -> st.SearchStrategy[Any]:
    plain = VALUES.get(column.kind.tensor, TEXTS)
    if column.image_shape is not None:
        plain = st.sampled_from(pictures)
    elif column.kind.is_ordered and plain is TEXTS:
        plain = TIMES
    if plain is TEXTS and not column.nullable:
        plain = TEXTS.filter(lambda text: text.strip().casefold() not in column.markers)
    return plain | st.none() if column.nullable else plain


def _as_csv(rows: list[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow(row.values())
    return text.getvalue().encode()


def _as_arrow(rows: list[Row]) -> bytes:
    sink, table = io.BytesIO(), pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def _as_binary(columns: Columns, rows: list[Row]) -> bytes:
    inputs, parts = [], []
    for column in columns:
        tensor = _tensor(column, [row[column.name] for row in rows])
        parts.append(_bytes(tensor["datatype"], tensor.pop("data")))
        inputs.append(tensor | {"parameters": {"binary_data_size": len(parts[-1])}})
    return b"".join([json.dumps({"inputs": inputs}).encode(), *parts])


def _bytes(datatype: str, values: list[Any]) -> bytes:
    if datatype == "FP64":
        return np.array(values, np.float64).tobytes()
    texts = ["" if value is None else str(value) for value in values]
    return b"".join(struct.pack("<I", len(one.encode())) + one.encode() for one in texts)


def _tensor(column: schema.Column, values: list[Any]) -> Row:
    datatype = "FP64" if column.kind.tensor == "FP64" else "BYTES"
    return {"name": column.name, "shape": [len(values)], "datatype": datatype, "data": values}


def _fitted(columns: Columns, row: Row, inputs: list[Row]) -> list[Row]:
    """Each input once, none absent, all with as many values as the shortest."""
    known = {one["name"]: one for one in inputs}
    for column in columns:
        if column.name not in known and not column.nullable:
            known[column.name] = _tensor(column, [row[column.name]])
    flat = {name: _flat(one["data"]) for name, one in known.items()}
    count = min(map(len, flat.values()))
    return [_cut(one, flat[name][:count]) for name, one in known.items()]


def _cut(tensor: Row, values: list[Any]) -> Row:
    nested = isinstance(tensor["data"][0], list)
    shape = [len(values), 1][: len(tensor["shape"])]
    return tensor | {"shape": shape, "data": [[one] for one in values] if nested else values}


def _flat(values: list[Any]) -> list[Any]:
    parts = (one if isinstance(one, list) else [one] for one in values)
    return [one for part in parts for one in part]
