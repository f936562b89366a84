"""Runs: experiments that were sent, by what they are made of."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from eagleray import errors, storage
from eagleray.storage import blobs


@dataclasses.dataclass(frozen=True)
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


def send(run: Run, archive: bytes, *, settled: bool) -> None:
    """Store the archive of a run.

    Args:
        run: which run.
        archive: its package.
        settled: whether the same package always has the same result.
    """
    store = storage.open(run.storage)
    blob = blobs.put(store, archive)
    manifest = {"package": dataclasses.asdict(blob), "settled": settled}
    store.put(_manifest_key(run), json.dumps(manifest).encode())


def fetch(run: Run) -> bytes:
    """Read the archive of a run.

    Raises:
        NotFoundError: nothing was sent under this id.
        CorruptObjectError: the archive is not what was sent.
    """
    store = storage.open(run.storage)
    try:
        manifest = json.loads(store.get(_manifest_key(run)))
    except errors.ObjectNotFoundError as cause:
        raise errors.NotFoundError(f"run: must have been sent before, but {cause}") from cause
    return blobs.get(store, blobs.Blob(**manifest["package"]))


def begin(run: Run, search_id: str) -> None:
    """Put on record which search a run is."""
    storage.open(run.storage).put(_search_key(run), json.dumps(search_id).encode())


def search(run: Run) -> str | None:
    """Id of a run's search, where its driver has come so far."""
    try:
        return str(json.loads(storage.open(run.storage).get(_search_key(run))))
    except errors.ObjectNotFoundError:
        return None


def finish(run: Run, result: dict[str, Any]) -> None:
    """Put on record what came of a run."""
    storage.open(run.storage).put(_result_key(run), json.dumps(result).encode())


def result(run: Run) -> dict[str, Any] | None:
    """What came of a run, where it has come to an end."""
    try:
        found: dict[str, Any] = json.loads(storage.open(run.storage).get(_result_key(run)))
    except errors.ObjectNotFoundError:
        return None
    return found


def _manifest_key(run: Run) -> str:
    return f"runs/{run.name}/{run.id}.json"


def _search_key(run: Run) -> str:
    return f"runs/{run.name}/{run.id}/search.json"


def _result_key(run: Run) -> str:
    return f"runs/{run.name}/{run.id}/result.json"
