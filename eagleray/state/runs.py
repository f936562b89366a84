"""Runs: experiments that were sent, by what they are made of, and how they ended.

What belongs here: their documents. `eagleray.package` makes what is sent, `eagleray.runs` counts
the attempts at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eagleray import errors, storage
from eagleray.state import documents, keys
from eagleray.storage import blobs


@dataclass(frozen=True)
class Run:
    """An experiment that was sent: with these three, a driver anywhere finds the rest in storage.

    Attributes:
        name: the experiment's name.
        id: 12 hex digits of what decides the outcome.
        storage: URI of the storage that holds the package.
    """

    name: str
    id: str
    storage: str


class Sent(documents.Document, frozen=True):
    """Where the package of a run is.

    Attributes:
        package: its archive.
        settled: whether the same package always has the same result.
    """

    TYPE = documents.Type("run")

    package: blobs.Blob
    settled: bool = False


class Begun(documents.Document, frozen=True):
    """Which search a run is; format 0 is the id alone."""

    TYPE = documents.Type("run-search", 1, {0: lambda found: {"search": str(found)}})

    search: str


class Result(documents.Document, frozen=True):
    """How a run ended: for programs, and as it is shown to people."""

    TYPE = documents.Type("run-result")

    summary: dict[str, Any]
    page: str


def send(run: Run, archive: bytes, *, settled: bool) -> None:
    """Store the package of a run."""
    store = storage.open(run.storage)
    sent = Sent(package=blobs.put(store, archive), settled=settled)
    store.put(_key(keys.RUN, run), sent.encode())


def fetch(run: Run) -> bytes:
    """Read the package of a run.

    Raises:
        NotFoundError: nothing was sent under this id.
        CorruptObjectError: the package is not what was sent.
    """
    store = storage.open(run.storage)
    try:
        sent = Sent.read(store, _key(keys.RUN, run))
    except errors.ObjectNotFoundError as cause:
        raise errors.NotFoundError(f"run: must have been sent before, but {cause}") from cause
    return blobs.get(store, sent.package)


def begin(run: Run, search_id: str) -> None:
    """Put on record which search a run is; its driver does so at the beginning."""
    begun = Begun(search=search_id)
    storage.open(run.storage).put(_key(keys.RUN_SEARCH, run), begun.encode())


def search(run: Run) -> str | None:
    """Id of a run's search; None before its driver has begun."""
    begun = Begun.find(storage.open(run.storage), _key(keys.RUN_SEARCH, run))
    return begun.search if begun else None


def finish(run: Run, result: Result) -> None:
    """Put on record how a run ended."""
    storage.open(run.storage).put(_key(keys.RUN_RESULT, run), result.encode())


def result(run: Run) -> Result | None:
    """How a run ended; None before that."""
    return Result.find(storage.open(run.storage), _key(keys.RUN_RESULT, run))


def _key(template: str, run: Run) -> str:
    return template.format(name=run.name, id=run.id)
