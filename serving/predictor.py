"""One version of a model in service: its bundle, codec and batches."""

import asyncio
import functools
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from eagleray import bundle
from eagleray.learn import schema
from serving import admission, batching, capture, encoding, metrics, openapi, protocol
from serving.protocol import Body

Answers = Sequence[dict[str, Any]]
Header = tuple[bytes, bytes]
LARGE = 256 * 1024  # a body with more bytes is decoded in a thread


class Predictor:
    """Answers requests with one verified version; `extra_fields` overrides the bundle's."""

    def __init__(
        self,
        loaded: bundle.Bundle,
        limits: batching.Limits,
        thread: ThreadPoolExecutor,
        observer: metrics.Metrics,
        *,
        extra_fields: schema.ExtraFields | None = None,
        samples: capture.Capture | None = None,
    ) -> None:
        assert loaded.golden is not None
        self.number, self.golden_rows = loaded.number, len(loaded.golden.outputs)
        self.header = (b"x-eagleray-version", b"%d" % loaded.number)
        self._bundle, self._metrics, self._samples = loaded, observer, samples
        self._extra_fields = extra_fields or loaded.extra_fields
        self._codec = protocol.Codec(loaded.schema, extra_fields=self._extra_fields)
        self._decoding = asyncio.Lock()
        self._encode = msgspec.json.Encoder().encode
        self._batcher = batching.Batcher(self._run, limits, thread)

    async def answer(
        self, body: Body, reservation: admission.Reservation, *, compressed: bool = False
    ) -> bytes:
        """Answer a request, whose body is gzip if `compressed`; raises what `predict` raises."""
        return self.encode(await self.predict(body, reservation, compressed=compressed))

    async def predict(
        self, body: Body, reservation: admission.Reservation, *, compressed: bool = False
    ) -> Answers:
        """Predict the rows of a request.

        RequestError if it is invalid or beyond the capacity, ServingError if the model fails.
        """
        rows, size = await self._rows(body, reservation, compressed), len(body)
        del body
        reservation.decoded(len(rows))
        answers = await self._batcher.submit(rows)
        if self._samples is not None and (identity := capture.sampled.get()) is not None:
            self._samples.offer(self._sample(identity, rows, size, answers))
        return answers

    def encode(self, predictions: Answers) -> bytes:
        """The body of the answer with these predictions."""
        answer = {"model": self._bundle.name, "version": self.number, "predictions": predictions}
        return self._encode(answer)

    def outcome(self, answer: Mapping[str, Any]) -> str:
        """What an answer counts as, see `Task.outcome`."""
        return self._bundle.task.outcome(answer, self._bundle.scale)

    @property
    def failure(self) -> str | None:
        return self._batcher.failure

    def document(self) -> bytes:
        return self._encode(openapi.document(self._bundle, extra_fields=self._extra_fields))

    async def _rows(
        self, body: Body, reservation: admission.Reservation, compressed: bool
    ) -> protocol.Rows:
        """Decode a body; a large, compressed or invalid one in a thread, one at a time."""
        rows = None if compressed or len(body) > LARGE else self._codec.valid_rows(body)
        if rows is not None and not self._codec.is_slow(rows):
            return self._codec.parse(rows)
        async with self._decoding:
            if rows is not None:
                return await asyncio.to_thread(self._codec.parse, rows)
            reservation.capacity.check_rows()
            return await asyncio.to_thread(self._decoded, body, compressed)

    def _decoded(self, body: Body, compressed: bool) -> protocol.Rows:
        plain = encoding.decompress(body) if compressed else body
        return self._codec.parse(self._codec.rows(plain))

    def _sample(
        self, identity: bytes, rows: protocol.Rows, size: int, answers: Answers
    ) -> capture.Sample:
        return capture.Sample(
            request_id=identity.decode("ascii"),
            time_s=time.time(),
            version=self.number,
            rows=len(rows),
            size=size,
            columns=functools.partial(self._codec.columns, rows),
            answers=answers,
        )

    def _run(self, rows: protocol.Rows) -> Answers:
        prediction = self._bundle.predict_columns(self._codec.columns(rows))
        self._metrics.batch(len(rows), sum(map(len, prediction.warnings)))
        return self._codec.answers(prediction)
