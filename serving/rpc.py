"""The Open Inference Protocol v2 over gRPC: each call is a request to the HTTP application.

So keys, rates, admission, deadlines, rollouts, metrics and errors are those of REST. Ray Serve
starts a gRPC server in each replica, behind HAProxy, and calls `add_service` with it; its own way
from there to the replica's code is left out, as on the fast path of HTTP. It remains for calls that
wait for a first replica. See docs/adr/0037.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import msgspec
from starlette.types import ASGIApp, Message, Scope

from eagleray import errors, ray_compat
from serving import correlation, deadlines, fast_path, first_replica
from serving.wire import Header, inference_grpc, inference_pages
from serving.wire.inference_messages import SERVICE, message

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""The codes of HTTP statuses; any other is INTERNAL."""

_OWN = frozenset(("content-type", "content-length", "content-encoding", "accept-encoding"))
"""Metadata that would say something of the body, which is always a message."""
_TOLD = frozenset((b"x-eagleray-version", b"retry-after"))
"""Headers of an answer that become trailing metadata, beside the request's id."""
_MOST_DETAILS = 1000  # characters: gRPC's metadata have 8 KB, in which one may take nine bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What the application has answered."""

    status: int
    headers: Iterable[Header]
    body: bytes

    def read(self) -> dict[str, Any]:
        read: dict[str, Any] = msgspec.json.decode(self.body)
        return read

    def metadata(self) -> list[tuple[str, str]]:
        told = (item for item in self.headers if item[0] in _TOLD)
        return [(name.decode(), value.decode()) for name, value in told]


@dataclass(frozen=True, slots=True)
class Call:
    """A method of the service: where its answer is in HTTP, and how that becomes a message."""

    path: str  # with the model's, if the call names one
    response: Callable[[Answer], bytes]
    method: str = "GET"
    states: bool = False  # whether the answer is a state, so that 404 and 503 are no errors


def _flag(name: str, field: str, answer: Answer) -> bytes:
    made: bytes = message(name)(**{field: answer.status == 200}).SerializeToString()
    return made


def _metadata(name: str, answer: Answer) -> bytes:
    made = message(name)
    known = made.DESCRIPTOR.fields_by_name
    fields = {key: value for key, value in answer.read().items() if key in known}
    written: bytes = made(**fields).SerializeToString()
    return written


def _index(answer: Answer) -> bytes:
    listed = msgspec.json.decode(answer.body)
    made: bytes = message("RepositoryIndexResponse")(models=listed).SerializeToString()
    return made


def _state(path: str, name: str, field: str) -> Call:
    return Call(path, functools.partial(_flag, name, field), states=True)


_V2, _MODEL = inference_pages.ROOT, f"{inference_pages.ROOT}/models/{{}}"
CALLS: Mapping[str, Call] = {
    "ServerLive": _state(f"{_V2}/health/live", "ServerLiveResponse", "live"),
    "ServerReady": _state(f"{_V2}/health/ready", "ServerReadyResponse", "ready"),
    "ServerMetadata": Call(_V2, functools.partial(_metadata, "ServerMetadataResponse")),
    "ModelReady": _state(f"{_MODEL}/ready", "ModelReadyResponse", "ready"),
    "ModelMetadata": Call(_MODEL, functools.partial(_metadata, "ModelMetadataResponse")),
    "RepositoryIndex": Call(f"{_V2}/repository/index", _index, "POST"),
    "ModelInfer": Call(f"{_MODEL}/infer", lambda answer: answer.body, "POST"),
}


def add_service(_: object, server: Any) -> None:
    """Add the service to a gRPC server of Ray Serve, which calls this in each such process.

    Without an application of this process Ray Serve answers; its proxy, where calls wait for a
    first replica, within the bounds of `first_replica`.
    """
    application = fast_path.target()
    if application is not None:
        service = handlers(application)
    else:
        service = _service(functools.partial(_by_proxy, server))
    ray_compat.answer_directly(server, SERVICE)
    server.add_generic_rpc_handlers((service,))


def handlers(application: ASGIApp) -> grpc.GenericRpcHandler:
    """The service of an application, on whose event loop its server must run."""
    return _service(lambda name: _Method(application, CALLS[name]).answer)


def _by_proxy(server: Any, name: str) -> first_replica.Answering:
    answer = ray_compat.own_way(server, f"/{SERVICE}/{name}")
    return first_replica.bounded(answer) if ray_compat.is_serve_proxy() else answer


def _service(answer: Callable[[str], first_replica.Answering]) -> grpc.GenericRpcHandler:
    methods = {name: grpc.unary_unary_rpc_method_handler(answer(name)) for name in CALLS}
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def by_ray(name: str) -> Callable[..., Awaitable[Written]]:
    """A method of a replica for a call that comes by Ray Serve's own way.

    It does while there is no replica: the proxy of the head node holds the call until one runs.
    """

    async def answer(replica: Replica, request: bytes, grpc_context: Any) -> Written:
        method = _Method(replica.application, CALLS[name])
        return Written(await method.within(None, request, grpc_context))

    answer.__name__ = name
    return answer


class Replica(Protocol):
    """What has an application."""

    @property
    def application(self) -> ASGIApp: ...


@dataclass(frozen=True, slots=True)
class Written:
    """A message that Ray Serve is to write, which is written already."""

    data: bytes

    def SerializeToString(self) -> bytes:  # noqa: N802 (protobuf's name)
        return self.data


class _Method:
    """A method of the service."""

    def __init__(self, application: ASGIApp, call: Call) -> None:
        self._application, self._call = application, call
        self._running: set[asyncio.Task[None]] = set()

    async def answer(self, request: bytes, context: Any) -> bytes:
        """Answer a call of a gRPC server."""
        return await self.within(context.time_remaining(), request, context)

    async def within(self, limit_s: float | None, request: bytes, context: Any) -> bytes:
        """Answer a call; a code in its context says that it failed."""
        call, headers = self._call, _headers(context.invocation_metadata() or ())
        identity = correlation.request_id(headers)
        headers[correlation.REQUEST_ID] = identity
        marked = [(correlation.REQUEST_ID.decode(), identity.decode())]
        context.set_trailing_metadata(marked)
        try:
            path = _path(call.path, request)
        except errors.RequestError as cause:
            return _failed(context, cause.status, str(cause))
        answer = await self._ask(_scope(call.method, path, context, headers, limit_s), request)
        context.set_trailing_metadata([*marked, *answer.metadata()])
        if answer.status == 200 or (call.states and answer.status in (404, 503)):
            return call.response(answer)
        return _failed(context, answer.status, answer.read()["error"])

    async def _ask(self, scope: Scope, body: bytes) -> Answer:
        """The application's answer; it is told when the client leaves, as by an HTTP server."""
        exchange = _Exchange(body)
        asking = self._application(scope, exchange.receive, exchange.send)
        task = asyncio.ensure_future(asking)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await asyncio.shield(task)
        finally:
            exchange.left.set()
        return exchange.answer()


class _Exchange:
    """One request to the application, and its answer."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._start: Message = {}
        self._parts: list[bytes] = []
        self.left = asyncio.Event()

    def answer(self) -> Answer:
        return Answer(self._start["status"], self._start["headers"], b"".join(self._parts))

    async def receive(self) -> Message:
        body, self._body = self._body, None
        if body is None:
            await self.left.wait()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body}

    async def send(self, sent: Message) -> None:
        if sent["type"] == "http.response.start":
            self._start = sent
        else:
            self._parts.append(sent["body"])


def _failed(context: Any, status: int, details: str) -> bytes:
    context.set_code(CODES.get(status, grpc.StatusCode.INTERNAL))
    context.set_details(details[:_MOST_DETAILS])
    return b""


def _path(pattern: str, request: bytes) -> str:
    """Where the model and version that a request names are in HTTP."""
    if "{}" not in pattern:
        return pattern
    asked = inference_grpc.decode("ModelReadyRequest", request)
    if "/" in asked.name + asked.version:
        law = "names and versions must be without '/'"
        raise errors.RequestError(f"{law}, but got {asked.name[:100]!r}", status=404)
    named = [asked.name, "versions", asked.version] if asked.version else [asked.name]
    return pattern.format("/".join(named))


def _scope(
    method: str, path: str, context: Any, headers: dict[bytes, bytes], limit_s: float | None
) -> Scope:
    if limit_s is not None and limit_s * 1000 < deadlines.MOST_MS:
        headers[deadlines.HEADER] = b"%d" % max(1, limit_s * 1000)
    headers[b"content-type"] = inference_grpc.CONTENT_TYPE
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": list(headers.items()),
        "client": (context.peer().rpartition(":")[0], 0),
    }


def _headers(metadata: Iterable[tuple[str, str | bytes]]) -> dict[bytes, bytes]:
    """Metadata as headers; of several of a name the last one counts, as in `serving.web`."""
    return {
        name.encode(): value if isinstance(value, bytes) else value.encode()
        for name, value in metadata
        if name not in _OWN
    }
