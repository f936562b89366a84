"""JSON with a type for each column: `{"instances": [{column: value, …}, …]}`."""

from __future__ import annotations

from typing import Any

import msgspec

from eagleray.bundle import Bundle
from serving.protocol import Body, Codec, Rows
from serving.wire import options
from serving.wire.wire import Answers, Encoded, Headers

CONTENT_TYPE = b"application/json"
FORM = b"application/x-www-form-urlencoded"  # what `curl -d` declares


class Json:
    """A wire without state, and so each of its requests."""

    def __init__(self, *, explain: bool = False) -> None:
        self.explain = self.alone = explain
        self._encode = msgspec.json.Encoder().encode

    def open(self, headers: Headers, query: bytes) -> Json:
        return EXPLAINED if query and options.explain(query) else self

    def quick_rows(self, codec: Codec, body: Body) -> Rows | None:
        rows = codec.valid_rows(body)
        return None if rows is None or codec.is_slow(rows) else codec.parse(rows)

    def rows(self, codec: Codec, body: Body) -> Rows:
        return codec.parse(codec.rows(body))

    def encode(self, version: Bundle, answers: Answers) -> Encoded:
        answer: dict[str, Any] = {"model": version.name, "version": version.number}
        answer["predictions"] = answers
        return self._encode(answer), CONTENT_TYPE, ()


JSON, EXPLAINED = Json(), Json(explain=True)
