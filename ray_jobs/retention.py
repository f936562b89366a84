"""What a search keeps of its trials: of those that run a checkpoint, of the best their weights.

A trial that has ended needs no checkpoint, but for others of its population. Weights stay of the
best few of each model, and of the Pareto front: the winner's, those of which an ensemble is made,
and those that take its place when they are damaged. What removal leaves, such as after a crash, is
removed when the search ends, or by `eagleray storage sweep`.
"""

import logging
from contextlib import suppress

from eagleray import errors
from eagleray.state import searches
from eagleray.storage import blobs
from ray_jobs import checkpoints, folded, search, snapshots

log = logging.getLogger(__name__)


class Retention:
    """The contents of a search; used by its driver, which holds the lease."""

    def __init__(self, searched: search.Search, trials: dict[int, searches.Record]) -> None:
        self._search, self._store, self._trials = searched, searched.storage, trials
        self._records = searched.records
        self._shared = searched.experiment.tune.scheduler == "pbt"
        self._replaced: dict[int, set[blobs.Blob]] = {}  # weights by number of the trial

    def replace(self, record: searches.Record, weights: tuple[blobs.Blob, ...], epoch: int) -> None:
        """Record a trial's newer weights, empty if it cannot win; epoch 0 changes nothing."""
        if not epoch or (weights, epoch) == (record.weights, record.weights_epoch):
            return
        self._replaced.setdefault(record.number, set()).update(record.weights)
        record.weights, record.weights_epoch = weights, epoch

    def settle(self, record: searches.Record) -> None:
        """Give an ended trial the newest weights in storage, and the scores of their epoch.

        They are not of its best epoch where the search ran out of time.
        """
        if record.unfinished or record.status == "failed" or not _has_checkpoint(record):
            return
        state = self._records.state(record.number, record.values)
        for saved in state.checkpoints[:1]:
            if record.weights_epoch < saved.best_epoch <= len(record.history):
                self.replace(record, saved.files_named(snapshots.BEST), saved.best_epoch)
        if record.weights and 0 < record.weights_epoch <= len(record.history):
            record.best_epoch = record.weights_epoch
            record.best = record.history[record.best_epoch - 1]
            if record.folds > 1:
                done, metric = record.history[: record.best_epoch], self._search.metric
                record.best, record.standard_error = folded.summary(done, metric)
            record.score = record.best[self._search.metric]

    def clean(self, record: searches.Record) -> None:
        """Remove what an ended trial, which is on record, does not need any more."""
        self._clean(record, stated=_has_checkpoint(record))

    def clean_up(self) -> None:
        """Remove checkpoints that a worker has written after its trial ended."""
        with suppress(errors.StorageUnavailableError):
            for number in self._records.stated():
                if number in self._trials:
                    self._clean(self._trials[number], stated=True)

    def _clean(self, record: searches.Record, *, stated: bool) -> None:
        sharing = list(self._trials.values()) if self._shared else [record]
        if any(one.unfinished for one in sharing):
            return
        found = set(self._replaced.get(record.number, ()))
        if stated:
            found |= self._records.state(record.number, record.values).contents
            self._records.remove_state(record.number)
        self._remove(found)
        self._replaced.pop(record.number, None)
        trials = list(self._trials.values())  # others may begin meanwhile
        ended = [one for one in trials if one.weights and not one.unfinished]
        kept = {point.number for point in self._search.front(ended)}
        kept |= {one.number for one in self._search.leading(ended, checkpoints.BEST)}
        for worse in self._search.scored(ended):
            if worse.number in kept:
                continue
            contents, worse.weights = set(worse.weights), ()
            self._records.save(worse)
            self._remove(contents)

    def _remove(self, contents: set[blobs.Blob]) -> None:
        """Remove what no record refers to; members of a population may share weights."""
        for blob in contents.difference(*(one.weights for one in list(self._trials.values()))):
            with suppress(errors.StorageError):  # the sweep removes it
                self._store.delete(blobs.key(blob))


def _has_checkpoint(record: searches.Record) -> bool:
    """Whether one is known of; one that came later than the reports waits for `clean_up`."""
    return record.state_epoch + record.state_batch > 0
