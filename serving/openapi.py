"""The application's OpenAPI 3.0 document, made from a model's schema and a golden row."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from eagleray import bundle
from eagleray.learn import schema, tasks
from serving import explanation, protocol
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
from serving.wire import inference_openapi, table_arrow, table_csv

CSV = table_csv.CSV.content_type.decode()
ARROW = table_arrow.ARROW.content_type.decode()


def document(
    loaded: bundle.Bundle, *, extra_fields: schema.ExtraFields = "refuse", keys: bool = False
) -> Document:
    """Describe one version of a model in OpenAPI 3.0, which the bundled Swagger UI shows.

    With `keys`, every path but those of health asks for one; see `serving.keys`.
    """
    name, target = loaded.name, loaded.schema.target
    return {
        "openapi": "3.0.3",
        "info": {
            "title": name,
            "version": str(loaded.number),
            "description": f"Predicts `{target.name}` ({target.task}).",
        },
        "paths": _paths(loaded) | inference_openapi.paths(loaded),
        "components": {
            "schemas": _schemas(loaded.schema, extra_fields)
            | inference_openapi.schemas(loaded, extra_fields),
            "securitySchemes": _KEYS if keys else {},
        },
        "security": [{name: []} for name in _KEYS] if keys else [],
    }


def example(loaded: bundle.Bundle) -> dict[str, list[dict[str, Any]]]:
    """Return the body of a request for the first golden row."""
    assert loaded.golden is not None
    return {"instances": [{name: values[0] for name, values in loaded.golden.rows.items()}]}


def _paths(loaded: bundle.Bundle) -> Document:
    name, predict = loaded.name, _predict(example(loaded))
    return {
        "/predict": {"post": predict | {"operationId": "predict"}},
        f"/v1/models/{name}:predict": {"post": predict | {"operationId": "predictNamed"}},
        f"/v1/models/{name}:label": {"post": _label()},
        f"/v1/models/{name}": {"get": page("Name and version, and whether it is ready.")},
        "/v1/models": {"get": page("The names of the models that are served here.")},
        "/healthz": {"get": open_page("The process is alive and can predict.")},
        "/readyz": {"get": open_page("The loaded version, which has reproduced its golden rows.")},
        "/metrics": {"get": page("Prometheus metrics.", "text/plain")},
        "/live": {"get": page("Traffic of a node, and the rollout.")},
    }


def _schemas(known: schema.Schema, extra_fields: schema.ExtraFields) -> Document:
    rows = array(reference("Row"), minItems=1, maxItems=protocol.MOST_ROWS)
    labels = array(reference("Label"), minItems=1, maxItems=protocol.MOST_LABELS)
    predictions = array(reference("Answer"), minItems=1)
    return {
        "Row": _row(known) | {"additionalProperties": extra_fields == "ignore"},
        "Request": closed({"instances": rows}),
        "Answer": _answer(known.target),
        "Answers": closed({"model": STRING, "version": INTEGER, "predictions": predictions}),
        "Label": {"anyOf": [_about(_TRUE), _about(_REWARD)]},
        "Labels": closed({"labels": labels}),
        "Counted": closed(dict.fromkeys(("counted", "repeated", "ignored"), INTEGER)),
        "Error": closed({"error": _ERROR}),
    }


def _predict(body: Mapping[str, Any]) -> Document:
    """Rows as JSON or as a table; the answer is JSON unless `accept` names the table's type."""
    request = {
        JSON: {"schema": reference("Request"), "example": body},
        CSV: {"schema": _CSV, **_as_csv(body["instances"][0])},
        ARROW: {"schema": _ARROW},
    }
    answers = response("One answer a row.", reference("Answers"))
    answers["content"] |= {CSV: {"schema": STRING}, ARROW: {"schema": BINARY}}
    return {
        "summary": "Predict for one or more rows.",
        "parameters": [_EXPLAIN],
        "requestBody": {"required": True, "content": request},
        "responses": {"200": answers, **failures()},
    }


def _as_csv(row: Mapping[str, Any]) -> Document:
    """A row as an example in CSV; none where a value is no cell, such as a picture's numbers."""
    if any(isinstance(value, list) for value in row.values()):
        return {}
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([row.keys(), row.values()])
    return {"example": text.getvalue()}


def _label() -> Document:
    return {
        "summary": "Report what was true of requests that were answered.",
        "operationId": "label",
        "requestBody": {"required": True, "content": {JSON: {"schema": reference("Labels")}}},
        "responses": {
            "200": response("How many requests were counted.", reference("Counted")),
            **failures(),
        },
    }


def _row(known: schema.Schema) -> Document:
    properties = {
        column.name: column.kind.openapi(column) | ({"nullable": True} if column.nullable else {})
        for column in known.columns
    }
    return closed(properties, [column.name for column in known.columns if not column.nullable])


def _answer(target: schema.Target) -> Document:
    warnings = array(STRING) | {"description": "Warnings about the row."}
    values = tasks.of(target).answer_schema()
    return closed({**values, "warnings": warnings, "explanation": _EXPLANATION}, values)


def _about(said: Document) -> Document:
    return closed(_OF | said, ["request_id", "version", *said])


_KEYS: Document = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
_CSV = STRING | {"description": "A header, then a line for each row (RFC 4180)."}
_ARROW = BINARY | {"description": "An Arrow IPC stream, not compressed."}
_VALUE = {"anyOf": [STRING, NUMBER, FLAG]}
_OF = {
    "request_id": {"type": "string", "minLength": 1, "maxLength": 128},
    "version": {"type": "integer", "minimum": 1, "maximum": protocol.MOST_VERSION},
    "row": {"type": "integer", "minimum": 0, "maximum": protocol.MOST_ROWS - 1},
}
_TRUE = {"predicted": _VALUE, "label": _VALUE}
_REWARD = {"reward": {"type": "number", "minimum": 0, "maximum": 1}}
_EXPLAIN = {
    "name": "explain",
    "in": "query",
    "description": f"Contributions of each column, for {explanation.MOST_ROWS} rows at most.",
    "schema": FLAG,
}
_EXPLANATION = closed(
    {"mean": NUMBER, "contributions": {"type": "object", "additionalProperties": NUMBER}}
)
_PROBLEM = closed({"field": STRING, "message": STRING})
_ERROR = closed(
    {
        "type": STRING,
        "message": STRING,
        "field": {"type": "string", "nullable": True},
        "details": array(_PROBLEM),
        "request_id": STRING,
    },
    ["type", "message", "field"],
)
