"""The Open Inference Protocol v2 in the OpenAPI document: its paths, and requests by column.

OpenAPI cannot say that each input has as many values as its shape, that all have the same number of
rows, and that each name stands once.
"""

import itertools
from collections.abc import Iterator
from typing import Any

from eagleray.bundle import Bundle
from eagleray.learn.columns import values
from eagleray.learn.schema import Column, ExtraFields
from serving import protocol
from serving.openapi_parts import (
    BINARY,
    FLAG,
    INTEGER,
    JSON,
    NUMBER,
    STRING,
    Document,
    array,
    closed,
    failures,
    open_page,
    page,
    reference,
    response,
)
from serving.wire import inference, tensors

BYTES = inference.BINARY.decode()


def paths(version: Bundle) -> Document:
    """The protocol's paths, with and without the number of the version."""
    model = f"/v2/models/{version.name}"
    numbered = f"/v2/models/{version.name}/versions/{version.number}"
    described = _infer()
    made = {
        "/v2": {"get": _page("Name and version of the server, and its extensions.")},
        "/v2/health/live": {"get": open_page("The process is alive and can predict.")},
        "/v2/health/ready": {"get": open_page("The model is loaded.")},
        "/v2/repository/index": {"post": _page("The models that are served here.")},
        f"{model}/infer": {"post": described | {"operationId": "infer"}},
        f"{numbered}/infer": {"post": described | {"operationId": "inferVersion"}},
    }
    for path in (model, numbered):
        made[path] = {"get": _page("The model's inputs and outputs.")}
        made[f"{path}/ready"] = {"get": _page("Whether the model is ready.")}
    return made


def schemas(version: Bundle, extra_fields: ExtraFields) -> Document:
    """Requests and answers; the names of inputs and outputs are those of the model."""
    columns = version.schema.columns
    needed = [column for column in columns if not column.nullable]
    inputs = [one for column in columns for one in _inputs(column)]
    bounds = {"minItems": max(1, len(needed)), "maxItems": len(columns)}
    if extra_fields == "ignore":
        del bounds["maxItems"]
        inputs += _others([column.name for column in columns])
    answered = {"name": STRING, "shape": array(INTEGER), "datatype": STRING}
    request = {
        "inputs": array({"anyOf": inputs}, **bounds),
        "outputs": array(_output(version)),
        "id": STRING,
        "parameters": {"type": "object", "properties": {"binary_data_output": FLAG}},
    }
    answer = {
        "model_name": STRING,
        "model_version": STRING,
        "outputs": array(closed({**answered, "data": array(_DATUM)})),
        "id": STRING,
    }
    return {
        "InferRequest": {"type": "object", "properties": request, "required": ["inputs"]},
        "InferAnswer": closed(answer, ["model_name", "model_version", "outputs"]),
        "InferError": closed({"error": STRING}),
    }


def _infer() -> Document:
    text = "The JSON of a request, and after it the values of inputs with `binary_data_size`."
    request = {
        JSON: {"schema": reference("InferRequest")},
        BYTES: {"schema": BINARY | {"description": text}},
    }
    answers = response("One tensor an output.", reference("InferAnswer"))
    answers["content"] |= {BYTES: {"schema": BINARY}}
    return {
        "summary": "Predict for tensors of one or more rows.",
        "parameters": [_HEADER_SIZE],
        "requestBody": {"required": True, "content": request},
        "responses": {"200": answers, **failures(schema="InferError")},
    }


def _page(text: str) -> Document:
    """A page whose errors have the protocol's form."""
    made = page(text)
    failed = failures(401, 403, 429, schema="InferError")
    return made | {"responses": made["responses"] | failed}


def _inputs(column: Column) -> Iterator[Document]:
    """The tensors that a column may be sent as, one for each kind of their values."""
    for kind, datatypes in _kinds(tensors.taken(column.kind.tensor)):
        value = _texts(column) if kind == "BYTES" else _VALUES[kind]
        value = value | ({"nullable": True} if column.nullable else {})
        yield _input({"type": "string", "enum": [column.name]}, datatypes, value)


def _others(names: list[str]) -> Iterator[Document]:
    """Tensors of other names, which are ignored."""
    name = STRING | {"not": {"enum": names}}
    for kind, datatypes in _kinds(tensors.taken(None)):
        value = STRING if kind == "BYTES" else _VALUES[kind]
        yield _input(name, datatypes, value | {"nullable": True})


def _input(name: Document, datatypes: list[str], value: Document) -> Document:
    properties = {
        "name": name,
        "shape": _SHAPE,
        "datatype": {"type": "string", "enum": datatypes},
        "data": array({"anyOf": [value, array(value, minItems=1)]}, **_ROWS),
        "parameters": {"type": "object"},
    }
    required = ["name", "shape", "datatype", "data"]
    return {"type": "object", "properties": properties, "required": required}


def _kinds(datatypes: frozenset[str]) -> Iterator[tuple[str, list[str]]]:
    """Datatypes by what their values are in JSON."""
    for kind, of in itertools.groupby(sorted(datatypes), _kind):
        yield kind, list(of)


def _kind(datatype: str) -> str:
    return datatype if datatype in ("BOOL", "BYTES") else datatype.rstrip("0123456789")


def _texts(column: Column) -> Document:
    """The texts that a column takes, but for marks of missing values where these are refused."""
    known = list(_of_type(column.kind.openapi(column), "string")) or [STRING]
    described: Document = known[0] if len(known) == 1 else {"anyOf": known}
    return described if column.nullable else described | {"not": values.pattern(column.markers)}


def _of_type(described: Document, name: str) -> Iterator[Document]:
    """The alternatives of a schema that are of a type."""
    for one in (*described.get("anyOf", ()), *described.get("oneOf", ())):
        yield from _of_type(one, name)
    if described.get("type") == name:
        yield described


def _output(version: Bundle) -> Document:
    name = {"type": "string", "enum": list(inference.outputs(version.task))}
    properties = {"name": name, "parameters": closed({"binary_data": FLAG}, ())}
    return {"type": "object", "properties": properties, "required": ["name"]}


_VALUES: dict[str, Document] = {"FP": NUMBER, "INT": INTEGER, "UINT": INTEGER, "BOOL": FLAG}
_DATUM: Document = {"anyOf": [STRING, NUMBER]}
_ROWS = {"minItems": 1, "maxItems": protocol.MOST_ROWS}
_SHAPE: dict[str, Any] = {
    **array({"type": "integer", "minimum": 1, "maximum": protocol.MOST_ROWS}, minItems=1),
    "maxItems": 2,
    "description": "[N] or [N, 1].",
}
_HEADER_SIZE = {
    "name": inference.HEADER_SIZE.decode(),
    "in": "header",
    "description": "The bytes of the body's JSON, if values follow it.",
    "schema": {"type": "integer", "minimum": 0},
}
