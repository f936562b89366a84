"""The checkpoints of a trial: saved in the background, committed by a manifest, restored verified.

A training is blocked while its state is copied to host memory. The copy waits for its upload; at
most one waits, and a newer one replaces it. The manifest (`searches.State`) is written after all
files, and names the checkpoint before too, whose files are removed one checkpoint later.

While storage fails, training goes on, and the newest state is tried again until it is saved.
"""

import logging
import math
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent import futures
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from eagleray import errors
from eagleray.state import documents, searches
from eagleray.storage import Storage, blobs, cache
from ray_jobs import snapshots, strategies, training

log = logging.getLogger(__name__)

FIRST_S = 1.0
"""Least time from a start to the first checkpoint, and between two."""
UPLOAD_RATIO = 10
"""Uploads of checkpoints take about one second in this many."""
UPLOAD_S = 0.02
"""What an upload takes at least, in the first estimate."""
BEST = 5
"""Ended trials of a search whose weights stay."""
PAUSE_S = 2.0
"""Time between two attempts while storage fails."""
PATIENCE_S = 600.0
"""How long a training that needs its weights in storage waits for storage to answer again."""
UNFIT = (errors.CorruptObjectError, errors.ObjectNotFoundError)
"""Errors of a checkpoint that is damaged: the one before is used."""


class Pace:
    """When the next checkpoints of the members of a session are worth their cost."""

    def __init__(self) -> None:
        self.due = math.inf

    def begin(self, members: int) -> None:
        """So many begin to train, or are saved now."""
        self.due = time.monotonic() + max(FIRST_S, UPLOAD_RATIO * UPLOAD_S * members)

    def took(self, seconds: float) -> None:
        """The upload of one of them has ended."""
        self.due += UPLOAD_RATIO * seconds


@dataclass(frozen=True)
class Place:
    """What the members of a session share beside their data: where and when they are saved."""

    storage: Storage
    records: searches.Records
    uploads: futures.Executor
    local: cache.Cache
    files: frozenset[str] = frozenset()  # of the user's code
    cost: str | None = None  # what is measured of each model, see `costs`
    population: bool = False  # members go on from files of others, so files are kept
    pace: Pace = field(default_factory=Pace)


class Checkpoints:
    """The checkpoints of one trial, in the process that trains it.

    Of the workers of a group the leading one saves; all take part.

    Raises:
        StorageError: the manifest cannot be read.
    """

    def __init__(
        self,
        place: Place,
        number: int,
        values: dict[str, Any],
        strategy: strategies.OneProcess | None = None,
    ) -> None:
        self._place, self._number = place, number
        self._strategy = strategy or strategies.OneProcess()
        self._owner, self._writer = f"{place.records.search_id}/{number}", uuid.uuid4().hex
        self._state = self._strategy.agree(
            # in a population its values count: they may be later than those on record
            lambda: place.records.state(number, values, other=place.population)
        )
        self._protected = {
            one.files[snapshots.BEST] for one in self._state.checkpoints if _has_best(one)
        }
        self._best: tuple[int, blobs.Blob] | None = None  # the epoch whose weights are in storage
        self._best_lock = threading.Lock()
        self._saving = threading.Condition()
        self._waiting: snapshots.Snapshot | None = None
        self._spare: snapshots.Snapshot | None = None  # sent: its memory is used again
        self.busy = self._superseded = False
        self._closed = threading.Event()
        self.saved: searches.Checkpoint | None = None
        self.evidence: list[str] = []  # what was found damaged

    @property
    def values(self) -> dict[str, Any]:
        """The configuration that the checkpoints are of."""
        return self._state.values

    def restore(self, trainer: training.Trainer) -> None:
        """Load the newest checkpoint that is whole, if there is one.

        Raises:
            StorageError: storage cannot be read; a damaged checkpoint is no error, but evidence.
        """
        self.saved = self._best = None
        for checkpoint in self._state.checkpoints:
            damage = self._load(trainer, checkpoint)
            if damage is None:
                self.saved = checkpoint
                if _has_best(checkpoint):
                    self._best = checkpoint.best_epoch, checkpoint.files[snapshots.BEST]
                return
            log.error(
                "trial %s: the checkpoint of epoch %s is damaged, the one before is used: %s",
                self._number, checkpoint.epoch, damage,
            )  # fmt: skip
            self.evidence.append(damage)

    def adopt(self, values: dict[str, Any], checkpoint: searches.Checkpoint) -> None:
        """Replace all checkpoints by one of another trial, under other values; files are shared.

        Raises:
            StorageError: the manifest cannot be written.
        """
        with self._saving:
            self._waiting = None
        if not self.flush(PATIENCE_S):
            raise errors.StorageUnavailableError(f"trial {self._number}: a state is not saved yet")
        self._write(self._state.model_copy(update={"values": values}), [checkpoint])

    def save(self, trainer: training.Trainer) -> None:
        """Copy the state of a training at rest, and upload it in the background."""
        with self._saving:
            spare, self._spare = self._spare, None
        snapshot = snapshots.take(trainer, self._owner, spare)
        if snapshot is None:
            return
        with self._saving:
            self._waiting = snapshot
            if not self.busy:
                self.busy = True
                self._place.uploads.submit(self._drain)

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was saved is committed; False if it is not in time."""
        with self._saving:
            return self._saving.wait_for(lambda: not self.busy, timeout_s)

    def weights(self, trainer: training.Trainer) -> blobs.Blob:
        """Upload the weights of the best epoch, unless they are there; waits for storage.

        Raises:
            StorageError: storage refuses, or does not answer for `PATIENCE_S`.
        """
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                blob = self._put_best(trainer.progress.best_epoch, trainer.best_weights)
            except errors.StorageUnavailableError:
                if time.monotonic() >= until:
                    raise
                self._closed.wait(PAUSE_S)
                continue
            self._protected.add(blob)  # a record may refer to it
            return blob

    def close(self) -> None:
        """Give up what is not uploaded yet."""
        with self._saving:
            self._closed.set()
            self._waiting = None

    def _load(self, trainer: training.Trainer, checkpoint: searches.Checkpoint) -> str | None:
        """Load a checkpoint; return what is damaged of it, as the leading worker finds it."""
        with ExitStack() as stack:
            files, own = self._open(stack, checkpoint)
            damage = self._strategy.agree(lambda: own)
            if damage is None:
                if own is not None:  # on this worker's machine alone
                    raise errors.CorruptObjectError(own)
                snapshots.restore(trainer, files)
            return damage

    def _open(
        self, stack: ExitStack, checkpoint: searches.Checkpoint
    ) -> tuple[dict[str, Path], str | None]:
        """The files of a checkpoint, verified; or what is damaged of them."""
        place, files = self._place, dict[str, Path]()
        try:
            for name, blob in checkpoint.files.items():
                files[name] = stack.enter_context(place.local.open(place.storage, blob))
        except UNFIT as cause:
            return {}, str(cause)
        return files, None

    def _drain(self) -> None:
        """Commit what waits, in the thread of uploads."""
        while (snapshot := self._next()) is not None:
            began = time.monotonic()
            try:
                self._commit(snapshot)
            except documents.MISSED as cause:
                self._missed(snapshot, cause)
            except errors.StorageError as cause:
                log.warning("trial %s: its checkpoint waits: %s", self._number, cause)
                self._again(snapshot)
            except Exception:
                log.exception("trial %s: its checkpoint is not saved", self._number)
            else:
                self._spare = snapshot
                self._place.pace.took(time.monotonic() - began)

    def _next(self) -> snapshots.Snapshot | None:
        with self._saving:
            snapshot, self._waiting = self._waiting, None
            if snapshot is None or self._closed.is_set() or self._superseded:
                self.busy = False
                self._saving.notify_all()
                return None
            return snapshot

    def _missed(self, snapshot: snapshots.Snapshot, cause: errors.StorageError) -> None:
        """Try again if a write of this worker, whose answer was lost, is what was found."""
        try:
            found = self._place.records.state(self._number, self._state.values)
        except errors.StorageError:
            self._again(snapshot)
            return
        if found.writer != self._writer:
            log.warning("trial %s: another worker trains it: %s", self._number, cause)
            self._superseded = True
            return
        self._committed(found)
        newest = found.checkpoints[0]
        if (newest.epoch, newest.batch) != (snapshot.epoch, snapshot.batch):
            self._again(snapshot)

    def _again(self, snapshot: snapshots.Snapshot) -> None:
        """Let a state wait again, unless a newer one does."""
        self._closed.wait(PAUSE_S)
        with self._saving:
            if not self._closed.is_set():
                self._waiting = self._waiting or snapshot

    def _commit(self, snapshot: snapshots.Snapshot) -> None:
        best = self._put_best(snapshot.best_epoch, snapshot.tensors[snapshots.BEST])
        files = {snapshots.BEST: best, snapshots.MODEL: best}
        if snapshot.tensors[snapshots.MODEL] is not snapshot.tensors[snapshots.BEST]:
            files[snapshots.MODEL] = self._put(snapshot, snapshots.MODEL)
        files[snapshots.OPTIMIZER] = self._put(snapshot, snapshots.OPTIMIZER)
        if self._closed.is_set():
            return
        checkpoint = searches.Checkpoint(
            epoch=snapshot.epoch,
            batch=snapshot.batch,
            best_epoch=snapshot.best_epoch,
            files=files,
        )
        self._write(self._state, [checkpoint, *([self.saved] if self.saved else [])])

    def _put(self, snapshot: snapshots.Snapshot, file: str) -> blobs.Blob:
        return blobs.put(self._place.storage, snapshot.stream(file))

    def _write(self, over: searches.State, found: list[searches.Checkpoint]) -> None:
        self._committed(self._place.records.save_state(self._number, over, found, self._writer))

    def _committed(self, state: searches.State) -> None:
        """Go on from a manifest that is in storage, and remove what it replaced."""
        before, self._state, self.saved = self._state, state, state.checkpoints[0]
        if not self._place.population:
            self._remove(before.contents - state.contents - self._protected)

    def _put_best(self, epoch: int, weights: Mapping[str, Tensor]) -> blobs.Blob:
        """Upload the weights of the best epoch, unless they are there."""
        with self._best_lock:
            if self._best is None or self._best[0] != epoch:
                blob = blobs.put(self._place.storage, snapshots.weights(weights, self._owner))
                self._best = epoch, blob
            return self._best[1]

    def _remove(self, contents: set[blobs.Blob]) -> None:
        for blob in contents:
            try:
                self._place.storage.delete(blobs.key(blob))
            except errors.StorageError as cause:
                log.warning("trial %s: a content is left to the sweep: %s", self._number, cause)


def _has_best(checkpoint: searches.Checkpoint) -> bool:
    return snapshots.BEST in checkpoint.files
