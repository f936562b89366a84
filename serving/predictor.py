"""One version of a model in service: its bundle, codec and batches."""

import asyncio
import contextlib
import contextvars
import functools
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, Self

import msgspec

from eagleray import bundle
from eagleray.engines import placement
from eagleray.learn import schema
from serving import (
    admission,
    batching,
    capture,
    explanation,
    metrics,
    openapi,
    protocol,
    tracing,
    wire,
)
from serving.protocol import Body, Packed
from serving.settings import Settings
from serving.wire import Answers, inference_pages

LARGE = 256 * 1024  # a body with more bytes is decoded in a thread
_NOTHING = contextlib.nullcontext()

way_s: contextvars.ContextVar[float] = contextvars.ContextVar("way_s", default=0.0)
"""Seconds that the current request was on its way to another process and back."""


class Batches(Protocol):
    """Runs the rows of many requests; see `serving.batching`."""

    is_quick: bool  # whether the last one ran on the event loop

    @property
    def failure(self) -> str | None: ...
    async def submit(self, rows: protocol.Rows) -> Answers: ...


class Remote(Batches, Protocol):
    """Runs them in another process; see `serving.remote`."""

    grown_mb: float  # memory of that process, since the version was loaded there

    async def explained(self, rows: protocol.Rows) -> Answers: ...


class Predictor:
    """Answers requests with one verified version; `extra_fields` overrides the bundle's.

    With a `remote` its model is there, and the bundle is an outline.
    """

    def __init__(
        self,
        loaded: bundle.Bundle,
        limits: batching.Limits,
        thread: ThreadPoolExecutor,
        observer: metrics.Metrics,
        *,
        extra_fields: schema.ExtraFields | None = None,
        samples: capture.Capture | None = None,
        spans: tracing.Tracing | None = None,
        remote: Remote | None = None,
        schedule: batching.Schedule | None = None,
    ) -> None:
        assert loaded.golden is not None
        self.number, self.golden_rows = loaded.number, len(loaded.golden.outputs)
        self.header = (b"x-eagleray-version", b"%d" % loaded.number)
        self.bundle = loaded
        self._samples, self._spans = samples, spans
        self._extra_fields = extra_fields or loaded.extra_fields
        self._codec = protocol.Codec(loaded.schema, extra_fields=self._extra_fields)
        self._decoding, self._explaining = asyncio.Lock(), asyncio.Lock()
        self._explainer, self._thread = explanation.Explainer(loaded), thread
        self.remote = remote
        # not a method of this: in a cycle, a version that has left would wait for the collector
        run = functools.partial(_predict, loaded, self._codec, observer, spans)
        self._batcher: Batches = remote or batching.Batcher(run, limits, thread, schedule)

    @classmethod
    def of(
        cls,
        settings: Settings,
        loaded: bundle.Bundle,
        observer: metrics.Metrics,
        *,
        samples: capture.Capture | None = None,
        spans: tracing.Tracing | None = None,
        remote: Remote | None = None,
        schedule: batching.Schedule | None = None,
    ) -> Self:
        """A version with a thread of its own: if it hangs, the others go on."""
        place, name = settings.place(), f"batch-{loaded.number}"
        return cls(
            loaded,
            batching.Limits(settings.max_rows, settings.wait_ms / 1000),
            ThreadPoolExecutor(1, name, initializer=placement.use, initargs=(place,)),
            observer,
            extra_fields=settings.extra_fields,
            samples=samples,
            spans=spans,
            remote=remote,
            schedule=schedule,
        )

    async def answer(
        self, body: Body, reservation: admission.Reservation, exchange: wire.Exchange
    ) -> wire.Encoded:
        """Answer a request; raises what `predict` raises."""
        return self.encode(exchange, await self.predict(body, reservation, exchange))

    async def predict(
        self, body: Body, reservation: admission.Reservation, exchange: wire.Exchange
    ) -> Answers:
        """Predict the rows of a request.

        RequestError if it is invalid or beyond the capacity, ServingError if the model fails.
        """
        rows, size = await self._rows(body, reservation, exchange), len(body)
        del body
        reservation.decoded(len(rows))
        answering = self._explained(rows) if exchange.explain else self._batcher.submit(rows)
        with self._spans.rows(rows) if self._spans is not None else _NOTHING:
            answers = await answering
        if self._samples is not None and (identity := capture.sampled.get()) is not None:
            self._samples.offer(self._sample(identity, rows, size, answers))
        return answers

    async def timed(
        self, body: Body, reservation: admission.Reservation, exchange: wire.Exchange
    ) -> tuple[Answers, float]:
        """Predict, and the seconds that it took without the way to another process."""
        way_s.set(0.0)
        began = time.perf_counter()
        answers = await self.predict(body, reservation, exchange)
        return answers, time.perf_counter() - began - way_s.get()

    async def run(self, packed: Packed, *, explain: bool) -> Answers:
        """Predict rows that another process has decoded."""
        rows = self._codec.unpacked(packed)
        return await (self._explained(rows) if explain else self._batcher.submit(rows))

    def encode(self, exchange: wire.Exchange, predictions: Answers) -> wire.Encoded:
        """The answer with these predictions."""
        return exchange.encode(self.bundle, predictions)

    def outcome(self, answer: Mapping[str, Any]) -> str:
        """What an answer counts as, see `Task.outcome`."""
        return self.bundle.task.outcome(answer, self.bundle.scale)

    def reward(self, predicted: object, truth: object) -> float:
        """How right a prediction was, see `Task.reward`."""
        return self.bundle.task.reward(predicted, truth, self.bundle.scale)

    @property
    def is_quick(self) -> bool:
        """Whether its last batch ran on the event loop."""
        return self._batcher.is_quick

    @property
    def failure(self) -> str | None:
        return self._batcher.failure

    def document(self, *, keys: bool) -> bytes:
        """The OpenAPI document; `keys` where the endpoint asks for them."""
        fields = self._extra_fields
        return msgspec.json.encode(openapi.document(self.bundle, extra_fields=fields, keys=keys))

    def metadata(self) -> dict[str, Any]:
        """The inputs and outputs, as the Open Inference Protocol describes them."""
        return inference_pages.metadata(self.bundle)

    async def _rows(
        self, body: Body, reservation: admission.Reservation, exchange: wire.Exchange
    ) -> protocol.Rows:
        """Decode a body; one that is large, invalid or takes long in a thread, one at a time."""
        rows = None if len(body) > LARGE else exchange.quick_rows(self._codec, body)
        if rows is not None:
            return rows
        async with self._decoding:
            reservation.capacity.check_rows()
            return await asyncio.to_thread(exchange.rows, self._codec, body)

    async def _explained(self, rows: protocol.Rows) -> Answers:
        """Predict and explain; batches run between two rows."""
        explanation.check(self.bundle, len(rows))
        if self.remote is not None:
            return await self.remote.explained(rows)
        answers, loop = await self._batcher.submit(rows), asyncio.get_running_loop()
        explained = []
        for row, answer in zip(rows, answers, strict=True):
            columns = self._codec.columns([row])
            async with self._explaining:
                found = loop.run_in_executor(self._thread, self._explainer.explain, columns)
                explained.append({**answer, "explanation": await found})
        return explained

    def _sample(
        self, identity: bytes, rows: protocol.Rows, size: int, answers: Answers
    ) -> capture.Sample:
        return capture.Sample(
            request_id=identity.decode("ascii"),
            time_s=time.time(),
            version=self.number,
            rows=rows,
            size=size,
            columns=self._codec.columns,
            answers=answers,
        )


def _predict(
    loaded: bundle.Bundle,
    codec: protocol.Codec,
    observer: metrics.Metrics,
    spans: tracing.Tracing | None,
    rows: protocol.Rows,
) -> Answers:
    """Predict a batch."""
    with spans.batch(rows, loaded.number) if spans is not None else _NOTHING:
        prediction = loaded.predict_columns(codec.columns(rows))
    answers = codec.answers(prediction)
    observer.predicted(loaded, prediction)
    return answers
