"""A configuration in training: its trainer, and what is saved of it.

The worker itself saves a member's state in storage. If the worker is lost, the next one resumes
from this state, even if the driver has received no report of it.
"""

import contextlib
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import torch

from eagleray import errors
from eagleray.state import searches
from eagleray.storage import Storage, blobs
from ray_jobs import checkpoints, costs, strategies, training

log = logging.getLogger(__name__)

STATE_S = 1.0
"""Time from a trial's start to its first saved state, and minimum time between two."""
UPLOAD_RATIO = 10
"""Uploads of states, and of weights between rungs, take about one second in this many."""
TRIES = 2
"""A configuration that fails by itself this often is marked `failed`."""
FINAL_FAILURES = (errors.TrainingError, errors.SpecError, errors.StorageError)
"""Failures that are not tried again at once: they would repeat, or have been tried enough."""
ALIKE = (errors.TrainingError, errors.UserError)
"""Failures that all workers of a group have at once; any other one ends the group."""
OWN_FAILURES = (errors.TrainingError, errors.SpecError, torch.OutOfMemoryError, MemoryError)
"""Failures of one configuration, which another configuration may not have."""


@dataclass(frozen=True)
class Place:
    """Where the members of a trial are saved."""

    storage: Storage
    records: searches.Records
    uploads: futures.Executor
    files: frozenset[str]  # of the user's code
    cost: str | None = None  # what is measured of each model, see `costs`
    population: bool = False  # members go on from states of others, so states are kept


@dataclass
class Member:
    """One configuration of a trial; a pack has several."""

    number: int
    values: dict[str, Any]
    place: Place
    strategy: strategies.OneProcess = field(default_factory=strategies.OneProcess)
    ended: bool = False  # nothing is left to train or to report
    again: bool = False  # it failed, and is to start again
    _trainer: training.Trainer | None = None
    _costs: dict[str, float] = field(default_factory=dict)
    _failure: dict[str, Any] | None = None
    _failures: int = 0
    _reported: int = 0  # epochs
    _trained: int = 0  # epochs of its history whose seconds were reported, or another's
    _weights: blobs.Blob | None = None
    _weights_epoch: int = 0
    _weights_due: float = 0.0
    _state: searches.State | None = None
    _state_due: float = field(default_factory=lambda: time.monotonic() + STATE_S)
    _saving: futures.Future[searches.State] | None = None

    @property
    def active(self) -> bool:
        """Whether it is still in training."""
        failed = self.ended or self.again or self._failure is not None
        return not failed and self._trainer is not None and not self._trainer.finished

    @property
    def epoch(self) -> int:
        return self._trainer.progress.epoch if self._trainer else 0

    @property
    def trainer(self) -> training.Trainer:
        assert self._trainer is not None
        return self._trainer

    def start(self, build: Callable[[dict[str, Any]], training.Trainer]) -> None:
        """Start with a new trainer, from the last state if there is one; may be called again.

        In a population the state's values count: they may be later than those on record.
        """
        self.again, wanted = False, None if self.place.population else self.values
        self._state = self.strategy.agree(lambda: self.place.records.state(self.number, wanted))
        self._resume(build, self._state.values if self._state else self.values)

    def clone(
        self,
        build: Callable[[dict[str, Any]], training.Trainer],
        values: dict[str, Any],
        state: searches.State,
    ) -> None:
        """Go on from another member's state under other values; its blob is shared, not copied."""
        self._state = searches.State(values=values, epoch=state.epoch, blob=state.blob)
        self.place.records.save_state(self.number, self._state)
        self._resume(build, values)
        self._weights_epoch = 0  # the other's best epoch is its own now

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """End this member if the block fails; the others of its pack go on.

        A failure that the other workers of its group may not have is raised too.
        """
        try:
            yield
        except Exception as failure:
            self.fail(failure)
            alike = isinstance(failure, ALIKE) and not isinstance(failure, errors.CodeError)
            if self.strategy.size > 1 and not alike:
                raise

    def fail(self, failure: Exception) -> None:
        """Start again from the last state at the next step; the second failure counts."""
        log.error("trial %s fails", self.number, exc_info=failure)
        self._failures += 1
        final = self.strategy.size > 1 or isinstance(failure, FINAL_FAILURES)
        self.again = self._failures < TRIES and not final
        if self.again:
            return
        known = isinstance(failure, errors.EagleRayError)
        self._failure = {
            "failure": str(failure) if known else repr(failure),
            "status": "lost" if isinstance(failure, errors.StorageError) else "failed",
            "cause": self._cause(failure),
        }

    def save(self, *, compared: bool) -> None:
        """Upload the best epoch's weights, always when trials are compared.

        Other uploads take about a tenth of the time; they are for a search that runs out of time.
        """
        best, now = self.trainer.progress.best_epoch, time.monotonic()
        if not self.strategy.leads:
            return
        if best != self._weights_epoch and (compared or now >= self._weights_due):
            self._weights = blobs.put(self.place.storage, checkpoints.weights(self.trainer))
            self._weights_epoch = best
            self._weights_due = now + UPLOAD_RATIO * (time.monotonic() - now)

    def save_state(self, *, wait: bool = False) -> None:
        """Upload the state in the background, in about a tenth of the time; or now, and wait."""
        now = time.monotonic()
        if self._saving is not None and (wait or self._saving.done()):
            self._state, self._saving = self._saving.result(), None
        if wait and self._state is not None and self._state.epoch == self.epoch:
            return
        due = self._saving is None and (wait or now >= self._state_due)
        if self.strategy.agree(lambda: due and not self.trainer.finished):
            data = checkpoints.dump(self.trainer)
            if self.strategy.leads:
                self._saving = self.place.uploads.submit(self._put_state, self.epoch, data, now)
            if wait:
                self.save_state(wait=True)

    def report(self, metric: str) -> dict[str, Any] | None:
        """Fields of a record, and its `history` since the last report; None without news."""
        if self.ended or self.again:
            return None
        self.ended = not self.active
        if self._failure is not None:
            return {"number": self.number, "epoch": self.epoch, "done": True, **self._failure}
        progress = self.trainer.progress
        fresh, own = progress.history[self._reported :], progress.history[self._trained :]
        self._reported = self._trained = len(progress.history)
        report = {
            "number": self.number,
            "values": self.values,
            "score": progress.best.get(metric),
            "epoch": progress.epoch,
            "best_epoch": progress.best_epoch,
            "best": progress.best,
            "history": fresh,
            "seconds": sum(epoch["seconds"] for epoch in own),
            "costs": self._costs,
            "weights": self._weights,
            "state": self._state,
            "done": self.ended,
        }
        return report if fresh else None

    def _resume(
        self, build: Callable[[dict[str, Any]], training.Trainer], values: dict[str, Any]
    ) -> None:
        self.values, trainer = values, build(values)
        if self._state is not None:
            checkpoints.restore(trainer, blobs.get(self.place.storage, self._state.blob))
        self._trainer, self._trained = trainer, len(trainer.progress.history)
        self._reported = 0
        if self.place.cost is not None and not self._costs:
            self._costs[self.place.cost] = costs.REGISTRY[self.place.cost](trainer)

    def _put_state(self, epoch: int, data: bytes, began: float) -> searches.State:
        """Save a state, then delete the one before: one always exists."""
        blob = blobs.put(self.place.storage, data)
        state = searches.State(values=self.values, epoch=epoch, blob=blob)
        self.place.records.save_state(self.number, state)
        if self._state and self._state.blob != state.blob and not self.place.population:
            self.place.storage.delete(blobs.key(self._state.blob))
        ended = time.monotonic()
        self._state_due = ended + max(STATE_S, UPLOAD_RATIO * (ended - began))
        return state

    def _cause(self, failure: Exception) -> str | None:
        """Type and place of a failure, in the user's code if possible; None if it may not recur."""
        if isinstance(failure, (*OWN_FAILURES, errors.StorageError)):
            return None
        origin: BaseException = failure
        if isinstance(failure, errors.CodeError) and failure.__cause__ is not None:
            origin = failure.__cause__
        frames = traceback.extract_tb(origin.__traceback__ or failure.__traceback__)
        users = [frame for frame in frames if frame.filename in self.place.files]
        place = (users or frames)[-1]
        return f"{type(origin).__name__} at {place.filename}:{place.lineno}"
