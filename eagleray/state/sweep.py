"""Removal of contents that no document refers to.

A content is written before the document that refers to it, so young ones stay for a grace period.
Contents are listed before documents are read, and each again before it is removed: one that was
written again meanwhile is young (`blobs.put`). Any hash in a document counts as a reference. A
document that is unreadable or too new stops the sweep before anything is removed.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from eagleray import errors
from eagleray.state import (
    batches,
    documents,
    evaluations,
    evidence,
    keys,
    leases,
    models,
    plans,
    rollouts,
    runs,
    searches,
)
from eagleray.state.aliases import Aliases, Event
from eagleray.storage import Entry, Storage, blobs

DOCUMENTS: dict[str, type[documents.Document]] = {
    one.KIND: one
    for one in (
        *(leases.Fence, leases.LeaseDocument, Aliases, Event, models.Version),
        *(batches.Plan, batches.Request, batches.Part, batches.Result),
        *(rollouts.Rollout, evidence.Evidence, plans.Defaults),
        *(evaluations.Evaluation, evaluations.Looks),
        *(runs.Begun, runs.Result, runs.Sent),
        *(searches.Audit, searches.Definition, searches.Record, searches.Result),
        *(searches.State, searches.View),
    )
}


@dataclass(frozen=True)
class Report:
    """What a sweep has read and removed."""

    documents: int
    referenced: list[Entry]  # contents that a document refers to
    young: list[Entry]  # contents without a reference, within the grace period or just removed
    removed: list[Entry]  # contents without a reference
    unfinished: int  # uploads that never ended, removed


def sweep(store: Storage, older_than: timedelta, *, dry_run: bool = False) -> Report:
    """Remove contents that no document refers to, and uploads that a killed process left.

    `older_than` is the grace period.

    CorruptObjectError or NewerFormatError if a document cannot be read; nothing is removed then.
    """
    limit = (store.clock() or datetime.now(UTC)) - older_than
    contents = [one for one in store.list(blobs.PREFIX) if blobs.hashes(one.key.encode())]
    listed = [one.key for folder in keys.FOLDERS for one in store.list(folder)]
    known = [key for key in listed if key.endswith(".json")]
    hashes = set().union(*documents.read_all(lambda key: _hashes(store, key), known))

    def sort(one: Entry) -> str:
        if one.key.removeprefix(blobs.PREFIX) in hashes:
            return "referenced"
        removed = one.modified < limit and (dry_run or _remove(store, one, limit))
        return "removed" if removed else "young"

    parts: dict[str, list[Entry]] = {"referenced": [], "young": [], "removed": []}
    for part, one in zip(documents.read_all(sort, contents), contents, strict=True):
        parts[part].append(one)
    return Report(len(known), **parts, unfinished=store.discard(limit, dry_run=dry_run))


def _hashes(store: Storage, key: str) -> set[str]:
    try:
        data = store.get(key)
    except errors.ObjectNotFoundError:
        return set()  # it was there when it was listed
    where = documents.where(store, key)
    _check_readable(documents.load(data, where), where)
    return blobs.hashes(data)


def _check_readable(content: Any, where: str) -> None:
    """Refuse a document that only a newer EagleRay reads; foreign JSON has no kind."""
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind in DOCUMENTS:
        DOCUMENTS[kind].check(content, where)
    elif kind is not None:
        law = f"kind: must be one of {', '.join(DOCUMENTS)}, but got {kind!r}"
        raise errors.NewerFormatError(f"{where}: {law}; {documents.reader(content)}")


def _remove(store: Storage, content: Entry, limit: datetime) -> bool:
    current = [one for one in store.list(content.key) if one.key == content.key]
    if not current or current[0].modified >= limit:
        return False
    store.delete(content.key)
    return True
