"""The HTTP API as a plain ASGI application: a framework costs more than a prediction.

Routes, request bodies, responses and errors. `serving.alias_watcher` chooses the version.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import msgspec
from starlette.types import Receive, Scope, Send

from eagleray import errors
from serving import admission, autoscaling, docs, encoding, metrics, protocol
from serving.predictor import Predictor

log = logging.getLogger("ray.serve")

Headers = list[tuple[bytes, bytes]]
_JSON = b"application/json"
_FORM = b"application/x-www-form-urlencoded"  # what `curl -d` declares
_PACKINGS = {b"": False, b"identity": False, b"gzip": True, b"x-gzip": True}
_PART = 64 * 1024  # bytes of an answer handed to the server at once

READ_S, SEND_S = 30.0, 60.0
"""Timeouts for a client to send its body and to read a large answer; see `Deadline`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response."""

    status: int
    body: bytes
    content_type: bytes = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Application:
    """Answers HTTP requests for one model.

    Args:
        name: the model's name.
        gauges: counts requests.
        room: the replica's capacity for requests.
        read_s: timeout for a client to send its body.
    """

    def __init__(
        self,
        name: str,
        gauges: metrics.Metrics,
        room: admission.Admission | None = None,
        *,
        read_s: float = READ_S,
    ) -> None:
        self.predictor: Predictor | None = None
        self.ongoing = autoscaling.Ongoing()
        self._name, self._metrics = name, gauges
        self._room = room or admission.Admission()
        self._reads, self._sends = admission.Deadline(read_s), admission.Deadline(SEND_S)
        self._named = f"/v1/models/{name}:predict"
        model = f"/v1/models/{name}"
        self._predicts = frozenset(("/predict", "/predict/", self._named, f"{self._named}/"))
        self._pages: dict[str, Callable[[], Awaitable[Answer]]] = {
            "/": self._index,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            model: self._model,
            f"{model}/": self._model,
            "/metrics": self._exposition,
            "/openapi.json": self._openapi,
        }

    def takes(self, path: str) -> bool:
        """Tell whether a path is a prediction's, for the fast path."""
        return path in self._predicts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        started = time.perf_counter()
        self.ongoing.enter()
        ticket = admission.Ticket(self._room)
        try:
            answer = await self._answer(path, scope, receive, ticket)
            if len(answer.body) >= encoding.LEAST_BYTES:
                answer = await _compressed(answer, scope["headers"])
            await self._send(answer, send)
        finally:
            ticket.close()
            self.ongoing.leave()
        self._metrics.request(self._route(path), answer.status, time.perf_counter() - started)

    async def _send(self, answer: Answer, send: Send) -> None:
        head = [
            (b"content-type", answer.content_type),
            (b"content-length", b"%d" % len(answer.body)),
            *answer.headers,
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": head})
        if len(answer.body) <= _PART:
            await send({"type": "http.response.body", "body": answer.body})
            return
        try:
            await self._sends.within(_send_in_parts(answer.body, send))
        except admission.LateError:  # the server closes the connection of an incomplete answer
            log.warning("a client took too long to read its answer")

    async def _answer(
        self, path: str, scope: Scope, receive: Receive, ticket: admission.Ticket
    ) -> Answer:
        try:
            if self.takes(path):
                return await self._predict(scope, receive, ticket)
            return await self._page(path, scope["method"])
        except errors.RequestError as error:
            return _refusal(error)
        except admission.FullError as full:
            return _failure(503, str(full), headers=_LATER)
        except admission.LateError:
            closing = ((b"connection", b"close"),)
            return _failure(408, "the body must arrive in time, but is late", headers=closing)
        except Exception:
            number = dict(scope["headers"]).get(b"x-request-id", uuid.uuid4().hex.encode())
            log.exception("request %s to %s failed", number.decode("latin-1"), path)
            return _failure(500, "the server failed; its log says why", request=number)

    async def _predict(self, scope: Scope, receive: Receive, ticket: admission.Ticket) -> Answer:
        if scope["method"] != "POST":
            return _wrong_method("POST")
        predictor = self.predictor
        if predictor is None:
            return _failure(503, "no version is loaded yet", headers=_LATER)
        kind, packing, length = _declared(scope["headers"])
        if kind not in (_JSON, _FORM, b"") and not kind.endswith(b"+json"):
            raise _wrong_type(kind)
        if packing not in _PACKINGS:
            return _wrong_encoding(packing)
        if length > protocol.MOST_BYTES:
            raise protocol.too_many_bytes()
        self._room.check_rows()
        self._room.check_bytes(length)
        try:
            body = await predictor.answer(
                await self._reads.within(_read(receive, ticket)),
                ticket,
                packed=_PACKINGS[packing],
            )
        except errors.RequestError as error:
            if kind == _FORM and error.status == 400:
                raise _wrong_type(kind) from error
            raise
        return Answer(200, body, headers=(predictor.header,))

    async def _page(self, path: str, method: str) -> Answer:
        page = self._pages.get(path)
        if page is None and path.startswith("/v1/models/"):
            asked = path.removeprefix("/v1/models/").rstrip("/").removesuffix(":predict")
            return _failure(404, f"the model served here is {self._name}, but got {asked!r}")
        file = docs.file(path)
        if page is None and file is None:
            return _failure(404, f"no page is at {path!r}; see /docs")
        if method not in ("GET", "HEAD"):
            return _wrong_method("GET, HEAD")
        if file is not None:
            return Answer(200, file.content, file.content_type)
        assert page is not None
        return await page()

    def _route(self, path: str) -> str:
        if self.takes(path):
            return "predict"
        if path.startswith("/v1/"):
            return "model" if path in self._pages else "other"
        return path.strip("/") or "index" if path in self._pages else "other"

    async def _index(self) -> Answer:
        loaded = self.predictor
        return _json(
            200,
            {
                "model": self._name,
                "version": loaded.number if loaded else None,
                "predict": ["/predict", self._named],
                "links": ["/docs", "/openapi.json", "/healthz", "/readyz", "/metrics"],
            },
        )

    async def _healthz(self) -> Answer:
        failure = self.predictor.failure if self.predictor else None
        if failure is not None:
            return _json(503, {"status": "failed", "why": failure})
        return _json(200, {"status": "alive"})

    async def _model(self) -> Answer:
        """Answer as KServe's V1 protocol does: name and readiness, with the version."""
        loaded = self.predictor
        ready = loaded is not None and loaded.failure is None
        said = {"name": self._name, "version": loaded.number if loaded else None, "ready": ready}
        return _json(200 if ready else 503, said)

    async def _readyz(self) -> Answer:
        loaded = self.predictor
        if loaded is None:
            return _json(503, {"status": "loading", "model": self._name})
        return _json(
            200,
            {
                "status": "ready",
                "model": self._name,
                "version": loaded.number,
                "golden_rows": loaded.golden_rows,
            },
        )

    async def _exposition(self) -> Answer:
        text = await asyncio.to_thread(self._metrics.exposition)
        return Answer(200, text, metrics.CONTENT_TYPE.encode())

    async def _openapi(self) -> Answer:
        if self.predictor is None:
            return _failure(503, "no version is loaded yet")
        return Answer(200, self.predictor.document())


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _declared(headers: Headers) -> tuple[bytes, bytes, int]:
    """Of a body its type without parameters, its encoding, and its length (0 when absent)."""
    content_type, packing, length = b"", b"", 0
    for name, value in headers:
        if name == b"content-type":
            content_type = value.partition(b";")[0].strip().lower()
        elif name == b"content-length":
            length = int(value)
        elif name == b"content-encoding":
            packing = value.strip().lower()
    return content_type, packing, length


async def _read(receive: Receive, ticket: admission.Ticket) -> protocol.Body:
    """Read the body, and refuse it as soon as it is too long or exceeds the capacity."""
    message = await receive()
    if not message.get("more_body", False):
        first: bytes = message.get("body", b"")
        ticket.read(len(first))
        return first
    parts = bytearray()
    while True:
        part = message.get("body", b"")
        ticket.read(len(part))
        parts += part
        if len(parts) > protocol.MOST_BYTES:
            raise protocol.too_many_bytes()
        if not message.get("more_body", False):
            return parts
        message = await receive()


async def _send_in_parts(body: bytes, send: Send) -> None:
    """Send the body in parts, each after the client has read the part before."""
    view = memoryview(body)
    for start in range(0, len(body), _PART):
        more = start + _PART < len(body)
        part = bytes(view[start : start + _PART])
        await send({"type": "http.response.body", "body": part, "more_body": more})


async def _compressed(answer: Answer, headers: Headers) -> Answer:
    """Compress the answer in a thread if the client accepts gzip."""
    marks: tuple[tuple[bytes, bytes], ...] = ((b"vary", b"accept-encoding"),)
    body = answer.body
    if encoding.accepted(dict(headers).get(b"accept-encoding", b"")):
        body = await asyncio.to_thread(encoding.pack, body)
        marks = (*marks, (b"content-encoding", b"gzip"))
    return replace(answer, body=body, headers=(*answer.headers, *marks))


def _json(status: int, value: object, *headers: tuple[bytes, bytes]) -> Answer:
    return Answer(status, msgspec.json.encode(value), headers=headers)


_TYPES = {
    400: "bad_json",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    500: "internal",
    503: "unavailable",
}


_LATER = ((b"retry-after", b"1"),)


def _refusal(error: errors.RequestError) -> Answer:
    said: dict[str, object] = {"field": error.field}
    if error.status == 422:
        details = error.details or ([(error.field, str(error))] if error.field else [])
        said["details"] = [{"field": field, "message": message} for field, message in details]
    return _error(error.status, str(error), said)


def _failure(
    status: int,
    message: str,
    *,
    request: bytes | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> Answer:
    said: dict[str, object] = {"field": None}
    if request is not None:
        said["request_id"] = request.decode("latin-1")
        headers = (*headers, (b"x-request-id", request))
    return _error(status, message, said, *headers)


def _error(
    status: int, message: str, more: dict[str, object], *headers: tuple[bytes, bytes]
) -> Answer:
    return _json(status, {"error": {"type": _TYPES[status], "message": message} | more}, *headers)


def _wrong_method(allowed: str) -> Answer:
    headers = ((b"allow", allowed.encode()),)
    return _failure(405, f"the method must be {allowed}", headers=headers)


def _wrong_type(content_type: bytes) -> errors.RequestError:
    got = content_type.decode("latin-1")
    return errors.RequestError(f"the body must be application/json, but got {got}", status=415)


def _wrong_encoding(got: bytes) -> Answer:
    message = f"content-encoding must be gzip or absent, but got {got.decode('latin-1')}"
    return _failure(415, message, headers=((b"accept-encoding", b"gzip"),))
