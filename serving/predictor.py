"""One version of a model in service: its bundle, codec and batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import msgspec

from eagleray import bundle
from eagleray.learn import schema
from serving import admission, batching, encoding, openapi, protocol
from serving.protocol import Body

LARGE = 256 * 1024
"""A body with more bytes is decoded in a thread."""


class Observer(Protocol):
    """Called after each batch."""

    def batch(self, rows: int, warnings: int) -> None:
        """Record a batch of `rows` rows and the number of their warnings."""


class Predictor:
    """Answers requests with one version; a moved alias replaces it as a whole.

    Args:
        loaded: a verified bundle.
        limits: limits of its batches.
        thread: runs its slow batches.
        observer: called after each batch.
        extra_fields: overrides the bundle's setting.
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
        """Answer a request.

        Args:
            body: JSON.
            ticket: the request's share of the replica's capacity.
            packed: whether the body is compressed by gzip.

        Raises:
            RequestError: the request is invalid.
            FullError: the replica has no capacity for its rows.
            ServingError: the model fails.
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
        """Reason why the version cannot predict any more; None while it can."""
        return self._batcher.failure

    def document(self) -> bytes:
        """Return the OpenAPI document of this version."""
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
        """Decode a body; a large, compressed or invalid one in a thread, one at a time."""
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
