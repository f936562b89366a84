"""Documents: JSON objects with their kind, their format and the release that wrote them.

    {"kind": "trial", "format": 1, "written_by": "0.2.0", …}

A rewrite keeps unknown fields, so an older EagleRay loses nothing that a newer one has added. Older
formats are migrated when they are read. Without `kind` and `format`, a document has format 0.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Self, TypeVar

import pydantic

from eagleray import __version__, errors
from eagleray.storage import Storage

Fields = dict[str, Any]
MISSED = (errors.ObjectExistsError, errors.ObjectChangedError, errors.ObjectNotFoundError)
"""What `replace` raises if the document has changed since it was read."""

_ENVELOPE = ("kind", "format", "written_by")
_READERS = 8

Key = TypeVar("Key")
Value = TypeVar("Value")


class Document(pydantic.BaseModel, extra="allow"):
    """A document; fields that this EagleRay does not know stay in it."""

    KIND: ClassVar[str]
    FORMAT: ClassVar[int] = 1
    """The newest format that this EagleRay reads, and the one that it writes."""
    MIGRATIONS: ClassVar[Mapping[int, Callable[[Any], Any]]] = {}
    """By format n, the function that makes format n + 1; none if only the envelope differs."""

    @classmethod
    def read(cls, store: Storage, key: str) -> Self:
        """Read the document of a key; raises what `Storage.get` and `decode` raise."""
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
    def decode(cls, content: Any, where: str) -> Self:
        """Make a document of its JSON, migrated to the newest format; messages begin with `where`.

        CorruptObjectError if it is of another kind or invalid, NewerFormatError if it is newer.
        """
        law = f"{where}: must be of kind {cls.KIND}, but"
        for number in range(cls.check(content, where), cls.FORMAT):
            try:
                content = cls.MIGRATIONS[number](content) if number in cls.MIGRATIONS else content
            except (AttributeError, LookupError, TypeError, ValueError) as cause:
                raise errors.CorruptObjectError(f"{law} got {content!r:.60}") from cause
        if not isinstance(content, dict):
            raise errors.CorruptObjectError(f"{law} got {content!r:.60}")
        try:
            return cls.model_validate(without(content, *_ENVELOPE))
        except pydantic.ValidationError as cause:
            first = cause.errors()[0]
            at = ".".join(map(str, first["loc"]))
            raise errors.CorruptObjectError(f"{law} {at}: {first['msg']}") from cause

    @classmethod
    def check(cls, content: Any, where: str) -> int:
        """Return the format of a document; raises what `decode` raises."""
        fields = content if isinstance(content, dict) else {}
        kind, number = fields.get("kind", cls.KIND), fields.get("format", 0)
        if kind != cls.KIND or type(number) is not int or number < 0:
            raise errors.CorruptObjectError(f"{where}: must be of kind {cls.KIND}, but got {kind}")
        if number > cls.FORMAT:
            law = f"must be of kind {cls.KIND}, of format {cls.FORMAT} or older, but got {number}"
            raise errors.NewerFormatError(f"{where}: {law}; {reader(fields)}")
        return number

    def fields(self) -> Fields:
        """The document as JSON values, with its envelope."""
        envelope = {"kind": self.KIND, "format": self.FORMAT, "written_by": __version__}
        return {**json.loads(self.model_dump_json()), **envelope}

    def encode(self) -> bytes:
        return json.dumps(self.fields()).encode()


class Replaceable(Document, frozen=True):
    """A document that is changed by compare-and-swap."""

    etag: str | None = pydantic.Field(None, exclude=True)  # of the object read; None: no object

    @classmethod
    def tagged(cls, data: bytes, etag: str, where: str) -> Self:
        return cls.decode(load(data, where), where).model_copy(update={"etag": etag})

    def replace(self, store: Storage, key: str, **changes: Any) -> Self:
        """Write the document with changes over the one that was read; raises MISSED."""
        changed = self.model_copy(update=changes)
        etag = replace(store, key, changed.encode(), self.etag)
        return changed.model_copy(update={"etag": etag})


def read_all(read: Callable[[Key], Value], keys: Iterable[Key]) -> list[Value]:
    """Call `read` with each key, several at once; results in the order of the keys."""
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read, keys))


def load(data: bytes, where: str) -> Any:
    """Parse JSON; raises CorruptObjectError."""
    try:
        return json.loads(data)
    except ValueError as cause:
        raise errors.CorruptObjectError(f"{where}: must be JSON, but {cause}") from cause


def without(fields: Fields, *names: str) -> Fields:
    """The fields except those with these names."""
    return {name: value for name, value in fields.items() if name not in names}


def replace(store: Storage, key: str, data: bytes, etag: str | None) -> str:
    """Write over the object with this etag (None: there is none); return the new etag."""
    if etag is None:
        return store.put_if_absent(key, data)
    return store.compare_and_swap(key, data, etag)


def where(store: Storage, key: str) -> str:
    """Storage and key, as messages name them."""
    return f"{store.uri}: key {key!r}"


def reader(fields: Fields) -> str:
    """The part of a message that names the release which reads a newer document."""
    version = fields.get("written_by")
    return f"EagleRay {version} reads it" if version else "a newer EagleRay has written it"
