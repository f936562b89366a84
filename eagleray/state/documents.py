"""Documents: JSON objects that carry what they are, `{"kind": "lease", "format": 1, …}`.

Who rewrites a document keeps the fields that it does not know, so what a newer EagleRay has added
outlives a rewrite by an older one. Without `kind` and `format` a document is of format 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eagleray import errors
from eagleray.storage import Storage

Fields = dict[str, Any]
MISSED = (errors.ObjectExistsError, errors.ObjectChangedError, errors.ObjectNotFoundError)
"""What `replace` raises when the document is not the one that was read."""


@dataclass(frozen=True)
class Type:
    """A kind of document, and the newest format of it that this EagleRay reads."""

    kind: str
    format: int

    def encode(self, fields: Mapping[str, Any]) -> bytes:
        """Write a document; `fields` may hold some that this EagleRay does not know."""
        return json.dumps({**fields, "kind": self.kind, "format": self.format}).encode()

    def decode(self, data: bytes, where: str) -> Fields:
        """Read a document, found at `where`.

        Raises:
            CorruptObjectError: it is no JSON object, or of another kind.
            NewerFormatError: a newer EagleRay has written it.
        """
        fields = parse(data, where)
        kind, number = fields.get("kind", self.kind), fields.get("format", 0)
        if kind != self.kind or not isinstance(number, int):
            raise errors.CorruptObjectError(f"{where}: must be a {self.kind}, but got a {kind}")
        if number > self.format:
            raise errors.NewerFormatError(
                f"{where}: must be a {self.kind} of format {self.format} or older, but got "
                f"{number}; a newer EagleRay has written it"
            )
        return fields


def parse(data: bytes, where: str) -> Fields:
    """Read a JSON object of any kind.

    Raises:
        CorruptObjectError: it is none.
    """
    try:
        fields = json.loads(data)
    except ValueError as cause:
        raise errors.CorruptObjectError(f"{where}: must be JSON, but {cause}") from cause
    if not isinstance(fields, dict):
        raise errors.CorruptObjectError(f"{where}: must be a JSON object, but got {fields!r:.60}")
    return fields


def replace(store: Storage, key: str, data: bytes, etag: str | None) -> str:
    """Write over the document that has this etag, or where there is none; give the new etag."""
    if etag is None:
        return store.put_if_absent(key, data)
    return store.compare_and_swap(key, data, etag)
