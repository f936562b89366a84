"""HTTP responses of the application: how each is made, and the form of errors."""

import asyncio
from dataclasses import dataclass, replace

import msgspec

from eagleray import errors
from serving import encoding, protocol, wire
from serving.wire import Header, typed_json

_HEADERS: dict[int, tuple[Header, ...]] = {
    401: ((b"www-authenticate", b"Bearer"),),
    408: ((b"connection", b"close"),),
    429: ((b"retry-after", b"1"),),
    503: ((b"retry-after", b"1"),),
}


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response."""

    status: int
    body: bytes
    content_type: bytes = typed_json.CONTENT_TYPE
    headers: tuple[Header, ...] = ()


def as_json(code: int, /, *headers: Header, **fields: object) -> Response:
    """Return a response with these fields."""
    return Response(code, msgspec.json.encode(fields), headers=headers)


def as_list(code: int, items: list[dict[str, str]]) -> Response:
    """Return a response whose body is a JSON list."""
    return Response(code, msgspec.json.encode(items))


async def pack(response: Response, headers: dict[bytes, bytes]) -> Response:
    """Return it compressed, where the request accepts that."""
    body, more = response.body, [(b"vary", b"accept-encoding")]
    if encoding.accepted(headers.get(b"accept-encoding", b"")):
        body = await asyncio.to_thread(encoding.compress, body)
        more.append((b"content-encoding", b"gzip"))
    return replace(response, body=body, headers=(*response.headers, *more))


def refusal(cause: errors.RequestError) -> Response:
    """Return what tells a client why its request is refused."""
    if cause.status != 422:
        return error(cause.status, str(cause), field=cause.field)
    details = cause.details or ([(cause.field, str(cause))] if cause.field else [])
    listed = [{"field": field, "message": message} for field, message in details]
    return error(422, str(cause), field=cause.field, details=listed)


def error(
    status: int, message: str, *headers: Header, field: str | None = None, **more: object
) -> Response:
    """Return an error; its type follows from the status."""
    described = {"type": protocol.ERRORS[status][0], "message": message, "field": field, **more}
    return as_json(status, *headers, *_HEADERS.get(status, ()), error=described)


def wrong_method(allowed: bytes) -> Response:
    """Return the error for a method other than those allowed."""
    return error(405, f"the method must be {allowed.decode()}", (b"allow", allowed))


def wrong_type(wires: wire.Table, content_type: bytes) -> errors.RequestError:
    """The error for a content type that none of the wires reads."""
    taken = ", ".join(one.decode() for one in wires if one and one != typed_json.FORM)
    got = content_type.decode("latin-1")
    return errors.RequestError(f"the body must be {taken}, but got {got}", status=415)


def not_loaded() -> errors.RequestError:
    """The error for a request that comes before a version is loaded."""
    return errors.RequestError("no version is loaded yet", status=503)
