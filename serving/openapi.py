"""The application's OpenAPI 3.0 document, made from a model's schema and a golden row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eagleray.learn import schema, tasks
from serving import protocol

JSON = "application/json"
Document = dict[str, Any]

_ERRORS = {
    400: "The body is not JSON.",
    408: "The body did not arrive in time.",
    413: f"More than {protocol.MOST_ROWS} rows or {protocol.MOST_BYTES} bytes.",
    415: "The body is declared to be something else than JSON, plain or in gzip.",
    422: "Fields are missing, unknown or of the wrong type; `error.details` names each.",
    503: "Too much is in progress; try again after `Retry-After` seconds.",
}


def document(
    name: str,
    version: int,
    known: schema.Schema,
    example: Mapping[str, Any],
    *,
    extra_fields: schema.ExtraFields = "refuse",
) -> Document:
    """OpenAPI 3.0 (which the bundled Swagger UI shows) for one version of a model.

    Args:
        name: the model's.
        version: its number.
        known: its schema.
        example: a row that the model takes.
        extra_fields: what becomes of a row's fields that are no columns.
    """
    predict = _predict(example)
    return {
        "openapi": "3.0.3",
        "info": {
            "title": name,
            "version": str(version),
            "description": f"Predicts `{known.target.name}` ({known.target.task}).",
        },
        "paths": {
            "/predict": {"post": predict | {"operationId": "predict"}},
            f"/v1/models/{name}:predict": {"post": predict | {"operationId": "predictNamed"}},
            f"/v1/models/{name}": {"get": _get("Name and version, and whether it is ready.")},
            "/healthz": {"get": _get("The process is alive and can predict.")},
            "/readyz": {"get": _get("Which version is loaded, its golden rows reproduced.")},
            "/metrics": {"get": _get("Prometheus metrics.", "text/plain")},
        },
        "components": {
            "schemas": {
                "Row": _row(known) | {"additionalProperties": extra_fields == "ignore"},
                "Request": _object({"instances": _rows("Row") | {"maxItems": protocol.MOST_ROWS}}),
                "Answer": _answer(known.target),
                "Answers": _object(
                    {"model": _STRING, "version": _INTEGER, "predictions": _rows("Answer")}
                ),
                "Error": _object({"error": _ERROR}),
            }
        },
    }


def row(rows: Mapping[str, list[Any]], index: int = 0) -> dict[str, Any]:
    """One row of raw values by column."""
    return {name: values[index] for name, values in rows.items()}


_STRING = {"type": "string"}
_TEXT = {"type": "string", "nullable": True}
_INTEGER = {"type": "integer"}
_NUMBER = {"type": "number"}


def _predict(example: Mapping[str, Any]) -> Document:
    answers = {
        str(status): {"description": text, "content": _content("Error")}
        for status, text in _ERRORS.items()
    }
    return {
        "summary": "Predict for one or more rows.",
        "requestBody": {
            "required": True,
            "content": {
                JSON: {
                    "schema": {"$ref": "#/components/schemas/Request"},
                    "example": {"instances": [dict(example)]},
                }
            },
        },
        "responses": {"200": {"description": "One answer a row.", "content": _content("Answers")}}
        | answers,
    }


def _row(known: schema.Schema) -> Document:
    required = [column.name for column in known.columns if not column.nullable]
    properties = {column.name: _value(column) for column in known.columns}
    return _object(properties, required)


def _value(column: schema.Column) -> Document:
    described = column.kind.openapi(column)
    return described | {"nullable": True} if column.nullable else described


def _answer(target: schema.Target) -> Document:
    warnings = {"type": "array", "items": _STRING, "description": "What was odd about the row."}
    values = tasks.of(target).answer_schema()
    return _object({**values, "warnings": warnings}, list(values))


def _object(properties: Mapping[str, Any], required: list[str] | None = None) -> Document:
    needed = list(properties) if required is None else required
    described = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return described | ({"required": needed} if needed else {})


_FAULT = _object({"field": _STRING, "message": _STRING})
_ERROR = _object(
    {
        "type": _STRING,
        "message": _STRING,
        "field": _TEXT,
        "details": {"type": "array", "items": _FAULT},
        "request_id": _STRING,
    },
    ["type", "message", "field"],
)


def _rows(name: str) -> Document:
    return {"type": "array", "minItems": 1, "items": {"$ref": f"#/components/schemas/{name}"}}


def _content(name: str) -> Document:
    return {JSON: {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _get(text: str, content: str = JSON) -> Document:
    return {"summary": text, "responses": {"200": {"description": text, "content": {content: {}}}}}
