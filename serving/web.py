"""The HTTP API as a plain ASGI application: a framework would take longer than a prediction."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from starlette.types import Receive, Scope, Send

from eagleray import errors
from serving import (
    admission,
    autoscaling,
    capture,
    catalog,
    correlation,
    deadlines,
    encoding,
    guard,
    labels,
    metrics,
    pages,
    protocol,
    responses,
    routing,
    tracing,
    wire,
)
from serving.page import form
from serving.predictor import Predictor
from serving.responses import Response
from serving.wire import compressed, inference_pages, typed_json

log = logging.getLogger("ray.serve")

_ENCODINGS = {b"": False, b"identity": False, b"gzip": True, b"x-gzip": True}  # is it compressed?
_VERSION = b"x-eagleray-version"
_LONGEST_PATH = 200  # characters in a line of the log
_PART = 64 * 1024  # bytes of a response handed to the server at once

READ_S, SEND_S = 30.0, 60.0
"""Timeouts for a client to send its body and to read a large response; see `admission.Timeout`."""


@dataclass(slots=True)
class _Request:
    """A request that is being answered."""

    scope: Scope
    path: str  # without the prefix of the endpoint
    headers: dict[bytes, bytes]
    receive: Receive
    reservation: admission.Reservation
    identity: bytes  # see `correlation`

    @property
    def type(self) -> bytes:
        """The content type of the body, without its parameters."""
        return self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


class Application:
    """Answers HTTP requests for one model: predictions once it has a `predictor`.

    While it has a `split`, a candidate answers a share of them.
    """

    def __init__(
        self,
        name: str,
        observer: metrics.Metrics,
        capacity: admission.Capacity | None = None,
        *,
        read_s: float = READ_S,
    ) -> None:
        self.predictor: Predictor | None = None
        self.split: routing.Split | None = None
        self.guard: guard.Guard | None = None
        self.samples: capture.Capture | None = None
        self.load: Callable[[], Awaitable[Application]] | None = None  # see `serving.models`
        self.ongoing = autoscaling.Ongoing()
        self.tracing: tracing.Tracing | None = None
        self.access_log = False
        self._name, self._metrics = name, observer
        self.capacity = capacity or admission.Capacity()
        self._reads, self._sends = admission.Timeout(read_s), admission.Timeout(SEND_S)
        self.departures = deadlines.Departures()
        paths = dict.fromkeys(("/predict", "/predict/"), wire.PREDICT)
        self._predictions: dict[str, wire.Table] = {**paths, **predictions(name)}
        self._labels = labels.Labels(self._served, observer)
        self._label_paths = (f"/v1/models/{name}:label", f"/v1/models/{name}:label/")
        self.catalog = catalog.Catalog(name, lambda: self.predictor)
        self.pages = pages.Pages(
            name, observer, lambda: self.predictor, self.catalog, lambda: self.guard
        )
        self._routes = self.pages.routes | dict.fromkeys(self._predictions, metrics.PREDICT)
        self._routes |= dict.fromkeys(self._label_paths, "label")

    @property
    def failure(self) -> str | None:
        """Why batches cannot run any more; None while they can, or before a version is loaded."""
        return self.predictor.failure if self.predictor else None

    def beside(self, name: str, load: Callable[[], Awaitable[Application]]) -> Application:
        """An application of another model, which is loaded if a request passes the guard."""
        made = Application(name, self._metrics, self.capacity)
        made.guard, made.ongoing, made.load = self.guard, self.ongoing, load
        made.departures = self.departures
        return made

    def predicts(self, path: str) -> bool:
        return path in self._predictions or path in self._label_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        elif self.tracing is not None:
            await self.tracing.request(self._http, scope, receive, send)
        else:
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, headers = time.perf_counter(), dict(scope["headers"])
        path, identity = _path(scope), correlation.request_id(headers)
        self.ongoing.add(1)
        reservation = admission.Reservation(self.capacity)
        request = _Request(scope, path, headers, receive, reservation, identity)
        try:
            response = await self._response(request)
            if len(response.body) >= encoding.LEAST_BYTES:
                response = await responses.pack(response, headers)
            # Ray Serve itself marks what does not take the fast path
            await self._send(response, identity if self.predicts(path) else None, send)
        finally:
            reservation.release()
            self.ongoing.add(-1)
        route = self._routes.get(path, "other")
        seconds, version = time.perf_counter() - started, self._version(response)
        self._metrics.request(route, response.status, seconds, version=version)
        if self.access_log:
            self._log(request, response.status, seconds)

    def _log(self, request: _Request, status: int, seconds: float) -> None:
        known, scope = correlation.fields(request.headers, request.identity), request.scope
        line = {"method": scope["method"], "path": scope["path"][:_LONGEST_PATH], "status": status}
        milliseconds = round(seconds * 1000, 3)
        law = "%(method)s %(path)s %(status)s"
        log.info(law, line, extra={**known, **line, "milliseconds": milliseconds})

    def _version(self, response: Response) -> str:
        """The version that answered, or that failed; empty for a refusal and other pages."""
        for name, value in response.headers:
            if name == _VERSION:
                return value.decode()
        return str(self.predictor.number) if response.status == 500 and self.predictor else ""

    async def _send(self, response: Response, identity: bytes | None, send: Send) -> None:
        head = [
            (b"content-type", response.content_type),
            (b"content-length", b"%d" % len(response.body)),
            *response.headers,
        ]
        if identity is not None:
            head.append((correlation.REQUEST_ID, identity))
        await send({"type": "http.response.start", "status": response.status, "headers": head})
        if len(response.body) <= _PART:
            await send({"type": "http.response.body", "body": response.body})
            return
        view = memoryview(response.body)
        try:
            with self._sends:
                for end in range(_PART, len(view) + _PART, _PART):
                    part, more = bytes(view[end - _PART : end]), end < len(view)
                    await send({"type": "http.response.body", "body": part, "more_body": more})
        except TimeoutError:  # the server closes the connection of an incomplete response
            log.warning("a client took too long to read its answer")

    async def _response(self, request: _Request) -> Response:
        response = await self._answer(request)
        if response.status >= 400 and inference_pages.owns(request.path):
            return replace(response, body=inference_pages.restated(response.body))
        if response.status >= 400 and form.wanted(request.path, request.headers):
            return await asyncio.to_thread(form.refused, self._name, response)
        return response

    async def _answer(self, request: _Request) -> Response:
        path, headers = request.path, request.headers
        try:
            if self.guard is not None:
                self.guard.check(path, headers, request.scope)
            wires = self._wires(path)
            if wires is not None:
                if self.samples is not None:
                    self.samples.sample(request.identity)
                limit_s = deadlines.seconds(headers)
                answering = self._predict(wires, request)
                return await (deadlines.within(limit_s, answering) if limit_s else answering)
            loaded = self if self.load is None else await self.load()
            if path in self._label_paths:
                return await loaded._label(request)
            return await loaded.pages.get(path, request.scope["method"], headers)
        except errors.RequestError as error:
            return responses.refusal(error)
        except Exception:
            known = correlation.fields(headers, request.identity)
            log.exception("%s to %s failed", correlation.described(known), path, extra=known)
            message = "the server failed; its log says why"
            return responses.error(500, message, request_id=request.identity.decode())
        except asyncio.CancelledError:
            if self.departures.end():
                return responses.error(deadlines.LEFT, "the client has left")
            raise
        finally:
            self.departures.end()

    async def _predict(self, wires: wire.Table, request: _Request) -> Response:
        if request.scope["method"] != "POST":
            return responses.wrong_method(b"POST")
        predictor = self.predictor
        if predictor is None:
            return await self._predict_loaded(request)
        headers, reservation, content_type = request.headers, request.reservation, request.type
        kind = wires.get(content_type) or wire.named(wires, content_type)
        if kind is None:
            raise responses.wrong_type(wires, content_type)
        exchange = kind.open(headers, request.scope.get("query_string", b""))
        compression = headers.get(b"content-encoding", b"").strip().lower()
        if compression not in _ENCODINGS:
            law, got = "content-encoding must be gzip or absent", compression.decode("latin-1")
            return responses.error(415, f"{law}, but got {got}", (b"accept-encoding", b"gzip"))
        self.capacity.check_rows()
        self._check_length(headers)
        try:
            body = await self._read(request)
            if _ENCODINGS[compression]:
                exchange = compressed.Compressed(exchange)
            if (split := self.split) is None or exchange.alone:
                answer = await predictor.answer(body, reservation, exchange)
                version = predictor.header
            else:
                answer, version = await split.answer(body, reservation, headers, exchange)
        except errors.RequestError as error:
            if content_type == typed_json.FORM and error.status == 400:
                raise responses.wrong_type(wires, content_type) from error
            raise
        content, answered, more = answer
        return Response(200, content, answered, (version, *more))

    async def _predict_loaded(self, request: _Request) -> Response:
        """Let the model answer that is loaded for this request; without one, refuse it."""
        loaded = self if self.load is None else await self.load()
        wires = loaded._wires(request.path)
        if loaded.predictor is None or wires is None:
            raise responses.not_loaded()
        self._metrics = loaded._metrics
        return await loaded._predict(wires, request)

    def _wires(self, path: str) -> wire.Table | None:
        """The wires of a path of predictions; None for any other."""
        return self._predictions.get(path) or self._versioned(path)

    async def _label(self, request: _Request) -> Response:
        if request.scope["method"] != "POST":
            return responses.wrong_method(b"POST")
        headers, content_type = request.headers, request.type
        if content_type not in (b"", typed_json.CONTENT_TYPE) or headers.get(b"content-encoding"):
            law = "the body must be plain application/json"
            return responses.error(415, f"{law}, but got {content_type.decode('latin-1')}")
        self._check_length(headers)
        body = await self._read(request)
        rewarded = await asyncio.to_thread(self._labels.rewards, body)
        return self._labels.count(rewarded, self.split)

    def _served(self, version: int) -> Predictor | None:
        """The version of a number, if it answers requests now."""
        stable = self.predictor
        if stable is not None and stable.number == version:
            return stable
        return self.split.serves(version) if self.split is not None else None

    def _versioned(self, path: str) -> wire.Table | None:
        """Return the wires of a path that names a version, which must be the one that serves."""
        asked = inference_pages.target(path) if inference_pages.owns(path) else None
        if asked is None or asked.action != "infer":
            return None
        inference_pages.check(asked, self._name, self.pages.number)
        return wire.INFER_VERSION

    def _check_length(self, headers: dict[bytes, bytes]) -> None:
        """Refuse a body by its declared length, before it is read."""
        length = int(headers.get(b"content-length", 0))
        if length > protocol.MOST_BYTES:
            raise protocol.too_many_bytes()
        self.capacity.check_bytes(length)

    async def _read(self, request: _Request) -> protocol.Body:
        """Read the body; refuse it once it is too long, too late or exceeds the capacity."""
        receive, reservation = request.receive, request.reservation
        try:
            with self._reads:
                message = await receive()
                first: bytes = message.get("body", b"")
                reservation.add_bytes(len(first))
                more = message.get("more_body", False)
                body = await _read_parts(first, receive, reservation) if more else first
        except TimeoutError as late:
            law = f"the body must arrive within {self._reads.seconds:g} s, but is late"
            raise errors.RequestError(law, status=408) from late
        self.departures.watch(receive)
        return body


def predictions(name: str) -> dict[str, wire.Table]:
    """The paths of a model's predictions, and their wires."""
    model = f"/v1/models/{name}:predict"
    return {
        model: wire.PREDICT,
        f"{model}/": wire.PREDICT,
        f"/v2/models/{name}/infer": wire.INFER,
    }


def _path(scope: Scope) -> str:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _read_parts(
    first: bytes, receive: Receive, reservation: admission.Reservation
) -> protocol.Body:
    """Read the parts of a body after the first; return the whole body."""
    body, more = bytearray(first), True
    while more:
        message = await receive()
        part = message.get("body", b"")
        reservation.add_bytes(len(part))
        body += part
        if len(body) > protocol.MOST_BYTES:
            raise protocol.too_many_bytes()
        more = message.get("more_body", False)
    return body
