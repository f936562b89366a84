"""The protocol of a wire: how a request's body becomes rows, and predictions become an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from eagleray.bundle import Bundle
from serving.protocol import Body, Codec, Rows

Header: TypeAlias = tuple[bytes, bytes]
Headers: TypeAlias = Mapping[bytes, bytes]
Answers: TypeAlias = Sequence[dict[str, Any]]
Encoded: TypeAlias = tuple[bytes, bytes, tuple[Header, ...]]
"""The body of an answer, its content type and further headers."""


class Exchange(Protocol):
    """One request of a wire, and its answer.

    A request may be decoded more than once: by two versions that are compared.
    """

    explain: bool  # whether answers have contributions by column
    alone: bool  # whether the stable version answers it, also during a rollout

    def quick_rows(self, codec: Codec, body: Body) -> Rows | None:
        """Decode and parse a small body on the event loop; None for one that takes `rows`."""

    def rows(self, codec: Codec, body: Body) -> Rows:
        """Decode and parse any body, in a thread; RequestError names each faulty field."""

    def encode(self, version: Bundle, answers: Answers) -> Encoded:
        """The answer of a version; `answers` are those of its task, one a row."""


class Wire(Protocol):
    """A protocol of predictions. Its members are in `serving.wire`."""

    def open(self, headers: Headers, query: bytes) -> Exchange:
        """Begin a request by its headers and its URL's query; RequestError if these are invalid."""
