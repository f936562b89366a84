"""One version of a model, ready to answer: its bundle, its codec and its batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import msgspec

from eagleray import bundle, schema
from serving import admission, batching, encoding, openapi, protocol
from serving.protocol import Body

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
        extra_fields: goes before what the bundle says.
    """

    def __init__(
        self,
        loaded: bundle.Bundle,
        limits: batching.Limits,
        thread: ThreadPoolExecutor,
        observer: Observer,
        *,
        extra_fields: schema.ExtraFields | None = None,
    ) -> None:
        assert loaded.golden is not None
        self.name, self.number = loaded.name, loaded.number
        self.golden_rows = len(loaded.golden.outputs)
        self.example = openapi.row(loaded.golden.rows)
        self.schema = loaded.schema
        self.header = (b"x-eagleray-version", b"%d" % loaded.number)
        self._bundle, self._observer = loaded, observer
        self.extra_fields = extra_fields or loaded.extra_fields
        self._codec = protocol.Codec(loaded.schema, extra_fields=self.extra_fields)
        self._decoding = asyncio.Lock()
        self._encode = msgspec.json.Encoder().encode
        self._batcher = batching.Batcher(self._run, limits, thread)

    async def answer(self, body: Body, ticket: admission.Ticket, *, packed: bool = False) -> bytes:
        """The answer to a request's body.

        Args:
            body: JSON.
            ticket: what the request holds of the replica's room.
            packed: the body is compressed by gzip.

        Raises:
            RequestError: what is wrong with the request.
            FullError: there is no room for its rows.
            ServingError: the model fails to answer.
        """
        rows = await self._rows(body, ticket, packed)
        del body
        ticket.decoded(len(rows))
        predictions = await self._batcher.submit(rows)
        return self._encode(
            {"model": self.name, "version": self.number, "predictions": predictions}
        )

    @property
    def failure(self) -> str | None:
        """Why predictions cannot be made any more; None while they can."""
        return self._batcher.failure

    def document(self) -> bytes:
        """The OpenAPI document of this version."""
        return self._encode(
            openapi.document(
                self.name,
                self.number,
                self.schema,
                self.example,
                extra_fields=self.extra_fields,
            )
        )

    async def _rows(self, body: Body, ticket: admission.Ticket, packed: bool) -> protocol.Rows:
        """What is large, slow or wrong is decoded beside the event loop, one body at a time."""
        rows = None if packed or len(body) > LARGE else self._codec.plain(body)
        if rows is None:
            async with self._decoding:
                ticket.check_rows()
                return await asyncio.to_thread(self._decoded, body, packed)
        if self._codec.is_slow(rows):
            async with self._decoding:
                return await asyncio.to_thread(self._codec.parse, rows)
        return self._codec.parse(rows)

    def _decoded(self, body: Body, packed: bool) -> protocol.Rows:
        return self._codec.parse(self._codec.rows(encoding.unpack(body) if packed else body))

    def _run(self, rows: protocol.Rows) -> Sequence[dict[str, Any]]:
        prediction = self._bundle.predict_columns(self._codec.columns(rows))
        self._observer.batch(len(rows), sum(map(len, prediction.warnings)))
        return self._codec.answers(prediction)
