"""Valid bodies for Schemathesis, of what OpenAPI cannot describe: tables, tensors that fit."""

import contextlib
import csv
import io
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import schemathesis
from hypothesis import strategies as st
from schemathesis import hooks
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.case import Case
from schemathesis.hooks import HookContext
from schemathesis.specs.openapi import media_types

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


@contextlib.contextmanager
def valid(columns: Columns, row: Row, *, pictures: Sequence[str], rows: int) -> Iterator[None]:
    """Let Schemathesis send valid tables and tensors while the block runs.

    `pictures` are encoded ones, `row` has the values of inputs that a request lacks; requests have
    so many `rows` at most.
    """
    _register(columns, pictures, rows)
    fit = _fit(columns, row, rows)
    schemathesis.hook("before_call")(fit)
    try:
        yield
    finally:
        hooks.unregister(fit)
        media_types.unregister_all()


def _register(columns: Columns, pictures: Sequence[str], rows: int) -> None:
    """Send valid tables and binary tensors of these columns."""
    made = st.fixed_dictionaries({one.name: _value(one, pictures) for one in columns})
    tables = st.lists(made, min_size=1, max_size=rows)
    schemathesis.openapi.media_type(openapi.CSV, tables.map(_as_csv))
    schemathesis.openapi.media_type(openapi.ARROW, tables.map(_as_arrow))
    binary = tables.map(lambda table: _as_binary(columns, table))
    schemathesis.openapi.media_type(inference_openapi.BYTES, binary)


def _fit(columns: Columns, row: Row, rows: int) -> Callable[..., None]:
    """What makes valid requests of tensors what OpenAPI cannot say; see `inference_openapi`."""
    name = inference.HEADER_SIZE.decode()

    def fit(context: HookContext, case: Case, **_: object) -> None:
        if case.meta is None or not case.path.endswith("/infer"):
            return
        header = case.meta.components.get(ParameterLocation.HEADER)
        if header is not None and header.mode.is_positive:  # a size that no body has
            case.headers.pop(name, None)
        if not case.meta.generation.mode.is_positive:
            return
        if isinstance(case.body, bytes):
            text = case.body.decode("latin-1")
            case.headers[name] = str(json.JSONDecoder().raw_decode(text)[1])
        elif isinstance(case.body, dict):
            fitted = _fitted(columns, row, case.body["inputs"], rows)
            case.body = {**case.body, "inputs": fitted}

    return fit


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
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
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


def _fitted(columns: Columns, row: Row, inputs: list[Row], rows: int) -> list[Row]:
    """Each input once, none absent, all with as many values as the shortest, `rows` at most."""
    known = {one["name"]: one for one in inputs}
    for column in columns:
        if column.name not in known and not column.nullable:
            known[column.name] = _tensor(column, [row[column.name]])
    flat = {name: _flat(one["data"]) for name, one in known.items()}
    count = min(rows, *map(len, flat.values()))
    return [_cut(one, flat[name][:count]) for name, one in known.items()]


def _cut(tensor: Row, values: list[Any]) -> Row:
    nested = isinstance(tensor["data"][0], list)
    shape = [len(values), 1][: len(tensor["shape"])]
    return tensor | {"shape": shape, "data": [[one] for one in values] if nested else values}


def _flat(values: list[Any]) -> list[Any]:
    parts = (one if isinstance(one, list) else [one] for one in values)
    return [one for part in parts for one in part]
