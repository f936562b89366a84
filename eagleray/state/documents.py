"""Documents: JSON objects that carry what they are.

    {"kind": "trial", "format": 1, "written_by": "0.2.0", …}

Whoever rewrites a document keeps the fields that it does not know, so what a newer EagleRay has
added outlives a rewrite by an older one. A document of an older format is migrated when it is read,
and has the newest format once it is rewritten. Without `kind` and `format` it has format 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

import pydantic

from eagleray import __version__, errors
from eagleray.storage import Storage

Fields = dict[str, Any]
ENVELOPE = ("kind", "format", "written_by")
MISSED = (errors.ObjectExistsError, errors.ObjectChangedError, errors.ObjectNotFoundError)
"""What `replace` raises when the document is not the one that was read."""

_READERS = 8

Key = TypeVar("Key")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Type:
    """A kind of document.

    Attributes:
        kind: its name.
        format: the newest format that this EagleRay reads, and the one that it writes.
        migrations: for a format n, the function that makes format n + 1 of a document; without one
            the two differ in the envelope alone.
    """

    kind: str
    format: int = 1
    migrations: Mapping[int, Callable[[Any], Fields]] = field(default_factory=dict)

    def stamp(self, fields: Mapping[str, Any]) -> Fields:
        """Add the envelope."""
        return {**fields, "kind": self.kind, "format": self.format, "written_by": __version__}

    def encode(self, fields: Mapping[str, Any]) -> bytes:
        """Write a document; `fields` may hold some that this EagleRay does not know."""
        return json.dumps(self.stamp(fields)).encode()

    def decode(self, found: Any, where: str) -> Fields:
        """Bring a document's JSON to the newest format, without its envelope.

        Raises:
            CorruptObjectError: it is no such document; the message says `where`.
            NewerFormatError: a newer EagleRay has written it.
        """
        for number in range(self.check(found, where), self.format):
            found = self.migrations[number](found) if number in self.migrations else found
        if not isinstance(found, dict):
            raise errors.CorruptObjectError(
                f"{where}: must be a {self.kind}, but got {found!r:.60}"
            )
        return {name: value for name, value in found.items() if name not in ENVELOPE}

    def check(self, found: Any, where: str) -> int:
        """The format of a document, which must be of this kind and not too new."""
        fields = found if isinstance(found, dict) else {}
        kind, number = fields.get("kind", self.kind), fields.get("format", 0)
        if kind != self.kind or type(number) is not int or number < 0:
            raise errors.CorruptObjectError(f"{where}: must be a {self.kind}, but got a {kind}")
        if number > self.format:
            law = f"must be a {self.kind} of format {self.format} or older, but got {number}"
            raise errors.NewerFormatError(f"{where}: {law}; {reader(fields)}")
        return number


class Document(pydantic.BaseModel, extra="allow"):
    """A document as a value; the fields that this EagleRay does not know stay in it."""

    TYPE: ClassVar[Type]

    @classmethod
    def read(cls, store: Storage, key: str) -> Self:
        """Read the document of a key; the errors are those of `Storage.get` and `decode`."""
        at = where(store, key)
        return cls.decode(load(store.get(key), at), at)

    @classmethod
    def find(cls, store: Storage, key: str) -> Self | None:
        """Read the document of a key; None where there is none."""
        try:
            return cls.read(store, key)
        except errors.ObjectNotFoundError:
            return None

    @classmethod
    def decode(cls, found: Any, where: str) -> Self:
        """Make the value of a document's JSON; the errors are those of `Type.decode`."""
        fields = cls.TYPE.decode(found, where)
        try:
            return cls.model_validate(fields)
        except pydantic.ValidationError as cause:
            first = cause.errors()[0]
            says = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            message = f"{where}: must be a {cls.TYPE.kind}, but {says}"
            raise errors.CorruptObjectError(message) from cause

    def fields(self) -> Fields:
        """The document as JSON values, with its envelope."""
        return self.TYPE.stamp(json.loads(self.model_dump_json()))

    def encode(self) -> bytes:
        return json.dumps(self.fields()).encode()


def read_all(read: Callable[[Key], Found], wanted: Iterable[Key]) -> list[Found]:
    """Call `read` with each key, several at once; results in the order of the keys."""
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read, wanted))


def load(data: bytes, where: str) -> Any:
    """Read JSON; CorruptObjectError when it is none."""
    try:
        return json.loads(data)
    except ValueError as cause:
        raise errors.CorruptObjectError(f"{where}: must be JSON, but {cause}") from cause


def parse(data: bytes, where: str) -> Fields:
    """Read a JSON object of any kind; CorruptObjectError when it is none."""
    found = load(data, where)
    if not isinstance(found, dict):
        raise errors.CorruptObjectError(f"{where}: must be a JSON object, but got {found!r:.60}")
    return found


def replace(store: Storage, key: str, data: bytes, etag: str | None) -> str:
    """Write over the document that has this etag, or where there is none; give the new etag."""
    if etag is None:
        return store.put_if_absent(key, data)
    return store.compare_and_swap(key, data, etag)


def where(store: Storage, key: str) -> str:
    """Storage and key, as messages name them."""
    return f"{store.uri}: key {key!r}"


def reader(fields: Fields) -> str:
    """Which EagleRay reads a document that is too new for this one."""
    version = fields.get("written_by")
    return f"EagleRay {version} reads it" if version else "a newer EagleRay has written it"
