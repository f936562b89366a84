"""One version of a model, ready to answer: its bundle, its codec and its batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import msgspec

from eagleray import bundle
from serving import batching, openapi, protocol

LARGE = 256 * 1024
"""Bytes from which on a body is decoded beside the event loop."""


class Observer(Protocol):
    """Is told of each batch."""

    def batch(self, rows: int, warnings: int) -> None:
        """So many rows were predicted, with so many warnings."""


class Predictor:
    """Answers requests with one version; replaced as a whole when the alias moves.

    Args:
        loaded: a bundle whose golden rows are reproduced.
        limits: of its batches.
        thread: where its slow batches run.
        observer: is told of each batch.
    """

    def __init__(
        self,
        loaded: bundle.Bundle,
        limits: batching.Limits,
        thread: ThreadPoolExecutor,
        observer: Observer,
    ) -> None:
        assert loaded.golden is not None
        self.name, self.number = loaded.name, loaded.number
        self.golden_rows = len(loaded.golden.outputs)
        self.example = openapi.row(loaded.golden.rows)
        self.schema = loaded.schema
        self.header = (b"x-eagleray-version", b"%d" % loaded.number)
        self._bundle, self._observer = loaded, observer
        self._codec = protocol.Codec(loaded.schema)
        self._encode = msgspec.json.Encoder().encode
        self._batcher = batching.Batcher(self._run, limits, thread)

    async def answer(self, body: bytes) -> bytes:
        """The answer to a request's body.

        Raises:
            RequestError: what is wrong with the request.
            QueueFullError: too many rows are waiting.
        """
        if len(body) > LARGE:
            rows = await asyncio.to_thread(self._codec.rows, body)
        else:
            rows = self._codec.rows(body)
        predictions = await self._batcher.submit(rows)
        return self._encode(
            {"model": self.name, "version": self.number, "predictions": predictions}
        )

    def document(self) -> bytes:
        """The OpenAPI document of this version."""
        return self._encode(openapi.document(self.name, self.number, self.schema, self.example))

    def _run(self, rows: protocol.Rows) -> Sequence[dict[str, Any]]:
        prediction = self._bundle.predict(self._codec.raw(rows))
        self._observer.batch(len(rows), sum(map(len, prediction.warnings)))
        return self._codec.answers(prediction)
