"""The checkpoints of a trial: saved in the background, committed by a manifest, restored verified.

A training is blocked while its state is copied to host memory. The copy waits for its upload; at
most one waits, and a newer one replaces it. The manifest (`searches.State`) is written after all
files, and names the checkpoint before too, whose files are removed one checkpoint later.

Under `fsdp` each worker uploads what it holds; the leading one writes the manifest when it has seen
between two batches that all have done so.

While storage fails, training goes on, and the newest state is tried again until it is saved.
"""

import logging
import math
import threading
import time
import uuid
from concurrent import futures
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eagleray import errors
from eagleray.state import documents, searches
from eagleray.storage import Storage, blobs, cache, streams
from ray_jobs import learner, snapshots, strategies

log = logging.getLogger(__name__)

FIRST_S = 1.0
"""Least time from a start to the first checkpoint, and between two."""
UPLOAD_RATIO = 10
"""Uploads of checkpoints take about one second in this many."""
UPLOAD_S = 0.02
"""What an upload takes at least, in the first estimate."""
BEST = 5
"""Ended trials of a search whose weights stay, of each model of `model.type: auto`."""
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
class UploadedPart:
    """One worker's part of a checkpoint: in storage, but in no manifest yet."""

    epoch: int
    batch: int
    best_epoch: int
    files: dict[str, blobs.Blob]
    seconds: float  # of its upload


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

    All workers of a group take part in each call.

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
        found = self._state.checkpoints
        self._protected = {blob for one in found for blob in one.files_named(snapshots.BEST)}
        self._best: tuple[int, blobs.Blob] | None = None  # the epoch whose weights are in storage
        self._best_lock = threading.Lock()
        self._saving = threading.Condition()
        self._waiting: snapshots.Snapshot | list[UploadedPart] | None = None
        self._part: UploadedPart | None = (
            None  # uploaded; those of the other workers may not be yet
        )
        self._spare: snapshots.Spare | None = None  # of what was sent
        self._running = self._superseded = False
        self._closed = threading.Event()
        self.saved: searches.Checkpoint | None = None
        self.evidence: list[str] = []  # what was found damaged

    @property
    def values(self) -> dict[str, Any]:
        """The configuration that the checkpoints are of."""
        return self._state.values

    @property
    def pending(self) -> bool:
        """Whether a checkpoint was saved but is not committed yet."""
        return self._running or self._part is not None

    def restore(self, trained: learner.Learner) -> None:
        """Load the newest checkpoint that is whole, if there is one.

        Raises:
            StorageError: storage cannot be read; a damaged checkpoint is no error, but evidence.
        """
        self.saved = self._best = None
        for checkpoint in self._state.checkpoints:
            damage = self._load(trained, checkpoint)
            if damage is None:
                self.saved, best = checkpoint, checkpoint.files_named(snapshots.BEST)
                if len(best) == self._strategy.parts:
                    self._best = checkpoint.best_epoch, best[self._strategy.rank % len(best)]
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

    def save(self, trained: learner.Learner) -> None:
        """Copy the state of a training at rest, and upload it in the background."""
        with self._saving:
            spare, self._spare = self._spare, None
        snapshot = trained.snapshot(self._owner, spare)
        if snapshot is not None:
            with self._saving:
                self._begin(snapshot)

    def gather(self) -> None:
        """Commit the newest checkpoint of which all workers have uploaded their parts."""
        if self._strategy.parts == 1:
            return
        own = self._part
        parts = [one for one in self._strategy.each(own) if one is not None]
        places = {(one.epoch, one.batch) for one in parts}
        with self._saving:
            if len(parts) < self._strategy.parts or len(places) > 1 or self._part is not own:
                return
            self._part = None
            if self._strategy.leads and self._waiting is None:
                self._begin(parts)

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was saved is committed; False if it is not in time."""
        until = time.monotonic() + timeout_s
        self._wait(until)
        self.gather()
        return self._wait(until)

    def upload_weights(self, trained: learner.Learner) -> tuple[blobs.Blob, ...]:
        """Upload the weights of the best epoch, unless they are there; waits for storage.

        Returns:
            The part of each worker that saves, which call it alone.

        Raises:
            StorageError: storage refuses, or does not answer for `PATIENCE_S`.
        """
        until, epoch = time.monotonic() + PATIENCE_S, trained.progress.best_epoch
        while True:
            try:
                own = self._put_best(epoch, trained.best(self._owner))
            except errors.StorageUnavailableError:
                if time.monotonic() >= until:
                    raise
                self._closed.wait(PAUSE_S)
                continue
            found = tuple(self._strategy.each(own)) if self._strategy.parts > 1 else (own,)
            self._protected.update(found)  # a record may refer to them
            return found

    def close(self) -> None:
        """Give up what is not uploaded yet."""
        with self._saving:
            self._closed.set()
            self._waiting = None

    def _load(self, trained: learner.Learner, checkpoint: searches.Checkpoint) -> str | None:
        """Load a checkpoint; return what is damaged of it, as the leading worker finds it."""
        with ExitStack() as stack:
            wanted = trained.needed_parts(len(checkpoint.parts))
            parts, own = self._open(stack, [checkpoint.parts[number] for number in wanted])
            damage = next((one for one in self._strategy.each(own) if one is not None), None)
            if damage is None:
                trained.restore(parts)
            return damage

    def _open(
        self, stack: ExitStack, parts: list[dict[str, blobs.Blob]]
    ) -> tuple[list[dict[str, Path]], str | None]:
        """The files of parts of a checkpoint, verified; or what is damaged of them."""
        place = self._place

        def opened(blob: blobs.Blob) -> Path:
            return stack.enter_context(place.local.open(place.storage, blob))

        try:
            found = [{name: opened(blob) for name, blob in one.items()} for one in parts]
        except UNFIT as cause:
            return [], str(cause)
        return found, None

    def _begin(self, work: snapshots.Snapshot | list[UploadedPart]) -> None:
        """Queue work for the upload thread, in place of what waits; the caller holds the lock."""
        self._waiting = work
        if not self._running:
            self._running = True
            self._place.uploads.submit(self._drain)

    def _wait(self, until: float) -> bool:
        """Wait until this worker has nothing more to do for what was saved."""
        with self._saving:
            left = max(0.0, until - time.monotonic())
            self._saving.wait_for(lambda: not self._running, left)
            return not self.pending

    def _drain(self) -> None:
        """Upload what waits and commit it, in the thread of uploads."""
        while (work := self._next()) is not None:
            try:
                if isinstance(work, snapshots.Snapshot):
                    part, self._spare = self._upload(work), work.spare
                    work = [part]
                if len(work) == self._strategy.parts:
                    self._commit(work)
                else:
                    (self._part,) = work
            except errors.StorageError as cause:
                log.warning("trial %s: its checkpoint waits: %s", self._number, cause)
                self._again(work)
            except Exception:
                log.exception("trial %s: its checkpoint is not saved", self._number)

    def _next(self) -> snapshots.Snapshot | list[UploadedPart] | None:
        with self._saving:
            work, self._waiting = self._waiting, None
            if work is None or self._closed.is_set() or self._superseded:
                self._running = False
                self._saving.notify_all()
                return None
            return work

    def _upload(self, snapshot: snapshots.Snapshot) -> UploadedPart:
        began = time.monotonic()
        best = self._put_best(snapshot.best_epoch, snapshot.stream(snapshots.BEST))
        files = {snapshots.BEST: best, snapshots.MODEL: best}
        if snapshot.files[snapshots.MODEL] is not snapshot.files[snapshots.BEST]:
            files[snapshots.MODEL] = self._put(snapshot.stream(snapshots.MODEL))
        files[snapshots.OPTIMIZER] = self._put(snapshot.stream(snapshots.OPTIMIZER))
        seconds = time.monotonic() - began
        return UploadedPart(snapshot.epoch, snapshot.batch, snapshot.best_epoch, files, seconds)

    def _commit(self, parts: list[UploadedPart]) -> None:
        """Write the manifest of a checkpoint after all workers have uploaded their parts."""
        if self._closed.is_set():
            return
        first, *others = parts
        checkpoint = searches.Checkpoint(
            epoch=first.epoch,
            batch=first.batch,
            best_epoch=first.best_epoch,
            files=first.files,
            others=[one.files for one in others],
        )
        began = time.monotonic()
        try:
            self._write(self._state, [checkpoint, *([self.saved] if self.saved else [])])
        except documents.MISSED as cause:
            self._missed(parts, cause)
        else:
            longest = max(one.seconds for one in parts)
            self._place.pace.took(longest + time.monotonic() - began)

    def _missed(self, parts: list[UploadedPart], cause: errors.StorageError) -> None:
        """Try again if a write of this worker, whose answer was lost, is what was found."""
        found = self._place.records.state(self._number, self._state.values)
        if found.writer != self._writer:
            log.warning("trial %s: another worker trains it: %s", self._number, cause)
            self._superseded = True
            return
        self._committed(found)
        newest = found.checkpoints[0]
        if (newest.epoch, newest.batch) != (parts[0].epoch, parts[0].batch):
            self._again(parts)

    def _again(self, work: snapshots.Snapshot | list[UploadedPart]) -> None:
        """Let work wait again, unless newer work does."""
        self._closed.wait(PAUSE_S)
        with self._saving:
            if not self._closed.is_set():
                self._waiting = self._waiting or work

    def _put(self, content: streams.Buffers) -> blobs.Blob:
        return blobs.put(self._place.storage, content)

    def _write(self, over: searches.State, found: list[searches.Checkpoint]) -> None:
        self._committed(self._place.records.save_state(self._number, over, found, self._writer))

    def _committed(self, state: searches.State) -> None:
        """Go on from a manifest that is in storage, and remove what it replaced."""
        before, self._state, self.saved = self._state, state, state.checkpoints[0]
        if not self._place.population:
            self._remove(before.contents - state.contents - self._protected)

    def _put_best(self, epoch: int, weights: streams.Buffers) -> blobs.Blob:
        """Upload the weights of the best epoch, unless they are there."""
        with self._best_lock:
            if self._best is None or self._best[0] != epoch:
                self._best = epoch, self._put(weights)
            return self._best[1]

    def _remove(self, contents: set[blobs.Blob]) -> None:
        for blob in contents:
            try:
                self._place.storage.delete(blobs.key(blob))
            except errors.StorageError as cause:
                log.warning("trial %s: a content is left to the sweep: %s", self._number, cause)
