"""The application's OpenAPI 3.0 document, made from a model's schema and a golden row."""

from collections.abc import Iterable, Mapping
from typing import Any

from eagleray import bundle
from eagleray.learn import schema, tasks
from serving import explanation, protocol

JSON = "application/json"
Document = dict[str, Any]

_STRING, _INTEGER = {"type": "string"}, {"type": "integer"}


def document(
    loaded: bundle.Bundle, *, extra_fields: schema.ExtraFields = "refuse", keys: bool = False
) -> Document:
    """Describe one version of a model in OpenAPI 3.0, which the bundled Swagger UI shows.

    With `keys`, every path but those of health asks for one; see `serving.keys`.
    """
    name, target = loaded.name, loaded.schema.target
    predict = _predict(example(loaded))
    rows = _array("Row") | {"maxItems": protocol.MOST_ROWS}
    answers = {"model": _STRING, "version": _INTEGER, "predictions": _array("Answer")}
    return {
        "openapi": "3.0.3",
        "info": {
            "title": name,
            "version": str(loaded.number),
            "description": f"Predicts `{target.name}` ({target.task}).",
        },
        "paths": {
            "/predict": {"post": predict | {"operationId": "predict"}},
            f"/v1/models/{name}:predict": {"post": predict | {"operationId": "predictNamed"}},
            f"/v1/models/{name}:label": {"post": _label()},
            f"/v1/models/{name}": {"get": _get("Name and version, and whether it is ready.")},
            "/healthz": {"get": _open("The process is alive and can predict.")},
            "/readyz": {"get": _open("The loaded version, which has reproduced its golden rows.")},
            "/metrics": {"get": _get("Prometheus metrics.", "text/plain")},
            "/live": {"get": _get("Traffic of a node, and the rollout.")},
        },
        "components": {
            "schemas": {
                "Row": _row(loaded.schema) | {"additionalProperties": extra_fields == "ignore"},
                "Request": _object({"instances": rows}),
                "Answer": _answer(target),
                "Answers": _object(answers),
                "Label": {"anyOf": [_about(_TRUE), _about(_REWARD)]},
                "Labels": _object({"labels": _array("Label") | {"maxItems": protocol.MOST_LABELS}}),
                "Counted": _object(dict.fromkeys(("counted", "repeated", "ignored"), _INTEGER)),
                "Error": _object({"error": _ERROR}),
            },
            "securitySchemes": _KEYS if keys else {},
        },
        "security": [{name: []} for name in _KEYS] if keys else [],
    }


def example(loaded: bundle.Bundle) -> dict[str, list[dict[str, Any]]]:
    """Return the body of a request for the first golden row."""
    assert loaded.golden is not None
    return {"instances": [{name: values[0] for name, values in loaded.golden.rows.items()}]}


def _predict(body: Mapping[str, Any]) -> Document:
    request = {JSON: {"schema": _reference("Request"), "example": body}}
    return {
        "summary": "Predict for one or more rows.",
        "parameters": [_EXPLAIN],
        "requestBody": {"required": True, "content": request},
        "responses": _responses("One answer a row.", "Answers"),
    }


def _label() -> Document:
    return {
        "summary": "Report what was true of requests that were answered.",
        "operationId": "label",
        "requestBody": {"required": True, "content": {JSON: {"schema": _reference("Labels")}}},
        "responses": _responses("How many requests were counted.", "Counted"),
    }


def _responses(text: str, answer: str) -> Document:
    return {
        "200": _response(text, _reference(answer)),
        **_failures(*(status for status, (_, text) in protocol.ERRORS.items() if text)),
    }


def _row(known: schema.Schema) -> Document:
    properties = {
        column.name: column.kind.openapi(column) | ({"nullable": True} if column.nullable else {})
        for column in known.columns
    }
    return _object(properties, [column.name for column in known.columns if not column.nullable])


def _answer(target: schema.Target) -> Document:
    warnings = {"type": "array", "items": _STRING, "description": "Warnings about the row."}
    values = tasks.of(target).answer_schema()
    return _object({**values, "warnings": warnings, "explanation": _EXPLANATION}, values)


def _object(properties: Mapping[str, Any], required: Iterable[str] | None = None) -> Document:
    needed = list(properties if required is None else required)
    described = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return described | ({"required": needed} if needed else {})


_KEYS: Document = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
_NUMBER = {"type": "number"}
_VALUE = {"anyOf": [_STRING, _NUMBER, {"type": "boolean"}]}
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
    "schema": {"type": "boolean"},
}
_EXPLANATION = _object(
    {"mean": _NUMBER, "contributions": {"type": "object", "additionalProperties": _NUMBER}}
)
_PROBLEM = _object({"field": _STRING, "message": _STRING})
_ERROR = _object(
    {
        "type": _STRING,
        "message": _STRING,
        "field": {"type": "string", "nullable": True},
        "details": {"type": "array", "items": _PROBLEM},
        "request_id": _STRING,
    },
    ["type", "message", "field"],
)


def _about(said: Document) -> Document:
    return _object(_OF | said, ["request_id", "version", *said])


def _array(name: str) -> Document:
    return {"type": "array", "minItems": 1, "items": _reference(name)}


def _reference(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _get(text: str, content: str = JSON) -> Document:
    responses = {"200": _response(text, {}, content), "503": _response("Not now; says why.", {})}
    return {"summary": text, "responses": responses | _failures(401, 403, 429)}


def _open(text: str) -> Document:
    """A page that asks for no key."""
    responses = {"200": _response(text, {}), "503": _response("Not now; says why.", {})}
    return {"summary": text, "responses": responses, "security": []}


def _failures(*statuses: int) -> Document:
    failed = _reference("Error")
    return {str(one): _response(protocol.ERRORS[one][1], failed) for one in statuses}


def _response(text: str, described: Document, content: str = JSON) -> Document:
    return {"description": text, "content": {content: {"schema": described}}}
