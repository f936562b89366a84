"""Runs: the package of each experiment that was sent, its search and its result.

`eagleray.client.package` makes the package, `eagleray.client.runs` the attempts at the run. A run
may also predict files: what was sent is a `batches.Request` then, and the result is in its output.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

from eagleray import errors, storage
from eagleray.state import batches, documents, keys
from eagleray.storage import blobs

D = TypeVar("D", bound=documents.Document)


@dataclass(frozen=True)
class Run:
    """An experiment or a batch that was sent; a driver finds the rest in storage."""

    name: str  # the experiment's, or `predict-` and the model's
    id: str  # 12 hex digits of what decides the outcome
    storage: str  # URI of the storage that holds the package


class Sent(documents.Document, frozen=True):
    """The package of a run."""

    KIND = "run"

    package: blobs.Blob
    settled: bool = False  # whether the same package always has the same result
    # whether the columns choose the model of a file that names none, which before was always mlp
    model_by_columns: bool = False


class Begun(documents.Document, frozen=True):
    """The search of a run, on record since its driver has begun."""

    KIND = "run-search"
    MIGRATIONS = {0: lambda search: {"search": str(search)}}

    search: str


class Result(documents.Document, frozen=True):
    """How a run ended: `summary` for programs, `page` for people."""

    KIND = "run-result"

    summary: dict[str, Any]
    page: str


_KEYS: dict[type[documents.Document], str] = {
    Sent: keys.RUN,
    Begun: keys.RUN_SEARCH,
    Result: keys.RUN_RESULT,
    batches.Request: keys.RUN_BATCH,
}


def reach(uri: str, name: str) -> None:
    """Raise a StorageError where the searches of an experiment cannot be listed."""
    next(storage.open(uri).list(f"{keys.SEARCHES}{name}/"), None)


def send(run: Run, archive: bytes, *, settled: bool) -> None:
    """Store the package of a run."""
    content = blobs.put(storage.open(run.storage), archive)
    put(run, Sent(package=content, settled=settled, model_by_columns=True))


def fetch(run: Run) -> bytes:
    """Read the package of a run; NotFoundError when none was sent under this id."""
    if (sent := find(run, Sent)) is None:
        raise errors.NotFoundError(
            f"run: must have been sent before, but {run.storage} holds no package of "
            f"{run.name!r} with the id {run.id!r}"
        )
    return blobs.get(storage.open(run.storage), sent.package)


def put(run: Run, document: Sent | Begun | Result | batches.Request) -> None:
    """Write a document of a run."""
    key = _KEYS[type(document)].format(name=run.name, id=run.id)
    storage.open(run.storage).put(key, document.encode())


def find(run: Run, kind: type[D], *, attempts: int | None = None) -> D | None:
    """Read a document of a run; None where there is none yet. `attempts` limits the tries."""
    key = _KEYS[kind].format(name=run.name, id=run.id)
    return kind.find(storage.open(run.storage, attempts=attempts), key)
