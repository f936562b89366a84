"""Removal of contents that no document refers to.

A content is written before the document that refers to it, so one that was written within the
grace period stays. Contents are listed before documents are read, and each is looked at again
before it is removed: one that was written anew meanwhile is young (`blobs.put`).

Whatever looks like a hash in a document counts as a reference, in fields of newer releases too. A
document that cannot be read, or is too new, stops the sweep before anything is removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from eagleray import errors
from eagleray.state import documents, keys, leases, models, runs, searches
from eagleray.state.aliases import Aliases
from eagleray.state.events import Event
from eagleray.storage import Entry, Storage, blobs

_DOCUMENTS = (
    *(Aliases, Event, models.Version, runs.Begun, runs.Result, runs.Sent),
    *(searches.Record, searches.Result, searches.State, searches.View),
)
_TYPES = {one.kind: one for one in (*(one.TYPE for one in _DOCUMENTS), leases.TYPE, leases.FENCE)}
_FATES = ("referenced", "young", "removed")


@dataclass(frozen=True)
class Swept:
    """Result of a sweep: the contents by their fate.

    Attributes:
        documents: how many were read.
        referenced: that a document refers to.
        young: that nothing refers to, within the grace period; or just gone or written anew.
        removed: that nothing referred to.
    """

    documents: int
    referenced: list[Entry]
    young: list[Entry]
    removed: list[Entry]


def sweep(store: Storage, older_than: timedelta, *, dry_run: bool = False) -> Swept:
    """Remove contents that no document refers to.

    Args:
        store: where they are.
        older_than: the grace period, by the server's clock.
        dry_run: remove nothing.

    Raises:
        CorruptObjectError: a document cannot be read; nothing was removed.
        NewerFormatError: a newer EagleRay has written one; nothing was removed.
    """
    limit = (store.clock() or datetime.now(UTC)) - older_than
    contents = [one for one in store.list(blobs.PREFIX) if blobs.hashes(one.key.encode())]
    read, hashes = _marked(store)

    def settle(one: Entry) -> str:
        if one.key.removeprefix(blobs.PREFIX) in hashes:
            return "referenced"
        old = one.modified < limit
        return "removed" if old and (dry_run or _remove(store, one, limit)) else "young"

    settled = list(zip(documents.read_all(settle, contents), contents, strict=True))
    fates = ([one for fate, one in settled if fate == name] for name in _FATES)
    return Swept(read, *fates)


def _marked(store: Storage) -> tuple[int, set[str]]:
    """How many documents there are, and all hashes in them."""
    read = documents.read_all(lambda key: _hashes(store, key), _documents(store))
    return len(read), set().union(*read)


def _documents(store: Storage) -> Iterator[str]:
    for folder in keys.FOLDERS:
        yield from (one.key for one in store.list(folder) if one.key.endswith(".json"))


def _hashes(store: Storage, key: str) -> set[str]:
    try:
        data = store.get(key)
    except errors.ObjectNotFoundError:
        return set()  # it was there when it was listed
    where = documents.where(store, key)
    _check_readable(documents.load(data, where), where)
    return blobs.hashes(data)


def _check_readable(found: Any, where: str) -> None:
    """Refuse what only a newer EagleRay reads; JSON of others has no kind of ours."""
    kind = found.get("kind") if isinstance(found, dict) else None
    if kind in _TYPES:
        _TYPES[kind].check(found, where)
    elif kind is not None:
        law = f"kind: must be one of {', '.join(_TYPES)}, but got {kind!r}"
        raise errors.NewerFormatError(f"{where}: {law}; {documents.reader(found)}")


def _remove(store: Storage, content: Entry, limit: datetime) -> bool:
    found = [one for one in store.list(content.key) if one.key == content.key]
    if not found or found[0].modified >= limit:
        return False
    store.delete(content.key)
    return True
