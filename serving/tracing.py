"""Spans of requests and of their batches, sent by OpenTelemetry's OTLP over HTTP.

Only where `OTEL_EXPORTER_OTLP_ENDPOINT` is set, which needs the extra `eagleray[otel]`; nothing of
OpenTelemetry is imported otherwise. Its other variables hold too, such as `OTEL_SERVICE_NAME`,
`OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_TRACES_SAMPLER`:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from eagleray import errors
from serving import correlation

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

VARIABLES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Tracing:
    """Makes spans for one model; they are sent in a thread, and dropped where nobody takes them."""

    def __init__(self, model: str) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as cause:
            law = f"{VARIABLES[0]} needs the extra eagleray[otel]"
            raise errors.UserError(f"{law}, but {cause}") from cause
        name = os.environ.get("OTEL_SERVICE_NAME") or "eagleray"
        resource = Resource.create({"service.name": name, "eagleray.model": model})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("eagleray")
        self._trace, self._propagator = trace, TraceContextTextMapPropagator()
        self._model = model
        self._rows: dict[int, SpanContext] = {}  # of rows in progress, by identity

    @classmethod
    def of_environment(cls, model: str) -> Tracing | None:
        """None where no endpoint is set; UserError where the extra is not installed."""
        return cls(model) if any(map(os.environ.get, VARIABLES)) else None

    async def request(self, app: App, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request in a span, whose parent is the client's if it sends one."""
        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in (b"traceparent", b"tracestate")
        }
        attributes = {"http.request.method": scope["method"], "url.path": scope["path"]}
        with self._tracer.start_as_current_span(
            scope["method"],
            context=self._propagator.extract(carrier),
            kind=self._trace.SpanKind.SERVER,
            attributes=attributes,
        ) as span:

            async def sent(message: Any) -> None:
                if message["type"] == "http.response.start":
                    span.set_attributes(_answered(message))
                    if message["status"] >= 500:
                        span.set_status(self._trace.StatusCode.ERROR)
                await send(message)

            await app(scope, receive, sent)

    @contextlib.contextmanager
    def rows(self, rows: Sequence[object]) -> Iterator[None]:
        """While the block runs, batches with these rows are linked to the current span."""
        context = self._trace.get_current_span().get_span_context()
        mine = dict.fromkeys(map(id, rows), context)
        self._rows |= mine
        try:
            yield
        finally:
            for row in mine:
                self._rows.pop(row, None)

    @contextlib.contextmanager
    def batch(self, rows: Sequence[object], version: int) -> Iterator[None]:
        """A span of a batch: below the request of its first row, linked to those of all."""
        found = {one.span_id: one for row in rows if (one := self._rows.get(id(row))) is not None}
        contexts = list(found.values())
        parent = (
            self._trace.set_span_in_context(self._trace.NonRecordingSpan(contexts[0]))
            if contexts
            else None
        )
        attributes: dict[str, str | int] = {
            "eagleray.model": self._model,
            "eagleray.version": version,
            "eagleray.rows": len(rows),
            "eagleray.requests": len(contexts),
        }
        links = [self._trace.Link(one) for one in contexts]
        with self._tracer.start_as_current_span(
            "batch", context=parent, attributes=attributes, links=links
        ):
            yield

    def stop(self) -> None:
        """Send what waits, and stop."""
        self._provider.shutdown()


def _answered(message: Any) -> dict[str, str | int]:
    headers = dict(message["headers"])
    found: dict[str, str | int] = {"http.response.status_code": message["status"]}
    for name, header in (
        ("eagleray.version", b"x-eagleray-version"),
        ("eagleray.request_id", correlation.REQUEST_ID),
    ):
        if header in headers:
            found[name] = headers[header].decode("latin-1")
    return found
