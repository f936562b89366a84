"""Parts of an OpenAPI 3.0 document: objects, references, responses."""

from collections.abc import Iterable, Mapping
from typing import Any

from serving import protocol

JSON = "application/json"
STRING, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
FLAG, BINARY = {"type": "boolean"}, {"type": "string", "format": "binary"}
Document = dict[str, Any]


def closed(properties: Mapping[str, Any], required: Iterable[str] | None = None) -> Document:
    """An object of these properties alone, which are all required unless some are named."""
    needed = list(properties if required is None else required)
    described = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return described | ({"required": needed} if needed else {})


def array(items: Document, **bounds: int) -> Document:
    """An array of such items, with its bounds in JSON Schema's words."""
    return {"type": "array", "items": items, **bounds}


def reference(name: str) -> Document:
    """A schema of the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}


def response(text: str, described: Document, *contents: str) -> Document:
    """A response of a schema; each of `contents`, JSON if there is none, has it."""
    return {
        "description": text,
        "content": {one: {"schema": described} for one in contents or (JSON,)},
    }


def page(text: str, content: str = JSON) -> Document:
    """A path that is asked by GET."""
    answers = {"200": response(text, {}, content), "503": response("Not now; says why.", {})}
    return {"summary": text, "responses": answers | failures(401, 403, 429)}


def open_page(text: str) -> Document:
    """A page that asks for no key."""
    answers = {"200": response(text, {}), "503": response("Not now; says why.", {})}
    return {"summary": text, "responses": answers, "security": []}


def failures(*statuses: int, schema: str = "Error") -> Document:
    """Responses of refusals; without statuses all those of a prediction."""
    known = statuses or [status for status, (_, text) in protocol.ERRORS.items() if text]
    return {str(one): response(protocol.ERRORS[one][1], reference(schema)) for one in known}
