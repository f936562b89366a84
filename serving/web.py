"""The application itself: plain ASGI, because a framework around each request costs more than it.

Routes, reading of bodies, answers and errors. Which version answers is the follower's business.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from starlette.types import Receive, Scope, Send

from eagleray import errors
from serving import autoscaling, batching, docs, metrics, protocol
from serving.predictor import Predictor

log = logging.getLogger("ray.serve")

Headers = list[tuple[bytes, bytes]]
_JSON = b"application/json"
_FORM = b"application/x-www-form-urlencoded"  # what `curl -d` declares


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response."""

    status: int
    body: bytes
    content_type: bytes = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Application:
    """Answers HTTP for one model.

    Args:
        name: the model's.
        gauges: where requests are counted.
    """

    def __init__(self, name: str, gauges: metrics.Metrics) -> None:
        self.predictor: Predictor | None = None
        self.ongoing = autoscaling.Ongoing()
        self._name, self._metrics = name, gauges
        self._named = f"/v1/models/{name}:predict"
        self._pages: dict[str, Callable[[], Awaitable[Answer]]] = {
            "/": self._index,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._exposition,
            "/openapi.json": self._openapi,
        }

    def takes(self, path: str) -> bool:
        """Whether a path is one of the predictions', which the fast lane takes."""
        return path in ("/predict", self._named)

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
        try:
            answer = await self._answer(path, scope, receive)
            await send(
                {
                    "type": "http.response.start",
                    "status": answer.status,
                    "headers": [
                        (b"content-type", answer.content_type),
                        (b"content-length", b"%d" % len(answer.body)),
                        *answer.headers,
                    ],
                }
            )
            await send({"type": "http.response.body", "body": answer.body})
        finally:
            self.ongoing.leave()
        self._metrics.request(self._route(path), answer.status, time.perf_counter() - started)

    async def _answer(self, path: str, scope: Scope, receive: Receive) -> Answer:
        try:
            if self.takes(path):
                return await self._predict(scope, receive)
            return await self._page(path, scope["method"])
        except errors.RequestError as error:
            return _failure(error.status, str(error), field=error.field)
        except batching.QueueFullError:
            return _failure(503, "too many rows are waiting", headers=((b"retry-after", b"1"),))
        except Exception:
            number = dict(scope["headers"]).get(b"x-request-id", uuid.uuid4().hex.encode())
            log.exception("request %s to %s failed", number.decode("latin-1"), path)
            return _failure(500, "the server failed; its log says why", request=number)

    async def _predict(self, scope: Scope, receive: Receive) -> Answer:
        if scope["method"] != "POST":
            return _wrong_method("POST")
        predictor = self.predictor
        if predictor is None:
            return _failure(503, "no version is loaded yet", headers=((b"retry-after", b"1"),))
        content_type, length = _declared(scope["headers"])
        if content_type not in (_JSON, _FORM, b"") and not content_type.endswith(b"+json"):
            raise _wrong_type(content_type)
        try:
            body = await predictor.answer(await _read(receive, length))
        except errors.RequestError as error:
            if content_type == _FORM and error.status == 400:
                raise _wrong_type(content_type) from error
            raise
        return Answer(200, body, headers=(predictor.header,))

    async def _page(self, path: str, method: str) -> Answer:
        named = path.startswith("/v1/models/") and path.endswith(":predict")
        if named:
            asked = path.removeprefix("/v1/models/").removesuffix(":predict")
            return _failure(404, f"the model served here is {self._name}, but got {asked!r}")
        page = self._pages.get(path)
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
        return _json(200, {"status": "alive"})

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


def _declared(headers: Headers) -> tuple[bytes, int]:
    """Content type without parameters, and content length (0 when absent)."""
    content_type, length = b"", 0
    for name, value in headers:
        if name == b"content-type":
            content_type = value.partition(b";")[0].strip().lower()
        elif name == b"content-length":
            length = int(value)
    return content_type, length


async def _read(receive: Receive, length: int) -> bytes:
    """The body; one that is too long is refused before it is read, or as soon as it shows."""
    if length > protocol.MOST_BYTES:
        raise protocol.too_many_bytes()
    message = await receive()
    if not message.get("more_body", False):
        first: bytes = message.get("body", b"")
        return first
    parts = bytearray(message["body"])
    while message.get("more_body", False):
        message = await receive()
        parts += message.get("body", b"")
        if len(parts) > protocol.MOST_BYTES:
            raise protocol.too_many_bytes()
    return bytes(parts)


def _json(status: int, value: object, *headers: tuple[bytes, bytes]) -> Answer:
    return Answer(status, msgspec.json.encode(value), headers=headers)


_TYPES = {
    400: "bad_json",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    500: "internal",
    503: "unavailable",
}


def _failure(
    status: int,
    message: str,
    *,
    field: str | None = None,
    request: bytes | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> Answer:
    error = {"type": _TYPES[status], "message": message, "field": field}
    if request is not None:
        error["request_id"] = request.decode("latin-1")
        headers = (*headers, (b"x-request-id", request))
    return _json(status, {"error": error}, *headers)


def _wrong_method(allowed: str) -> Answer:
    headers = ((b"allow", allowed.encode()),)
    return _failure(405, f"the method must be {allowed}", headers=headers)


def _wrong_type(content_type: bytes) -> errors.RequestError:
    got = content_type.decode("latin-1")
    return errors.RequestError(f"the body must be application/json, but got {got}", status=415)
