"""A configuration in training: its trainer, and what is saved of it.

The worker itself saves a member's checkpoints in storage. If the worker is lost, the next one
resumes from the newest, even if the driver has received no report of it.
"""

import contextlib
import logging
import socket
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from eagleray import errors, ray_compat
from eagleray.state import searches
from eagleray.storage import blobs, files
from ray_jobs import checkpoints, costs, learner, strategies

log = logging.getLogger(__name__)

TRIES = 2
"""A configuration that fails by itself this often is marked `failed`."""
FINAL_FAILURES = (
    errors.TrainingError,
    errors.SpecError,
    errors.StorageError,
    errors.MissingModuleError,
)
"""Failures that are not tried again at once: they would repeat, or have been tried enough."""
ALIKE = (errors.TrainingError, errors.UserError)
"""Failures that all workers of a group have at once; any other one ends the group."""
OWN_FAILURES = (errors.TrainingError, errors.SpecError, torch.OutOfMemoryError, MemoryError)
"""Failures of one configuration, which another configuration may not have."""


@dataclass
class Member:
    """One configuration of a trial; a pack has several."""

    number: int
    values: dict[str, Any]
    place: checkpoints.Place
    strategy: strategies.OneProcess = field(default_factory=strategies.OneProcess)
    ended: bool = False  # nothing is left to train or to report
    again: bool = False  # it failed, and is to start again
    _trainer: learner.Learner | None = None
    _costs: dict[str, float] = field(default_factory=dict)
    _cost_epoch: int = 0
    _failure: dict[str, Any] | None = None
    _failures: int = 0
    _reported: int = 0  # epochs
    _trained: int = 0  # epochs of its history whose seconds were reported, or another's
    _weights: tuple[blobs.Blob, ...] = ()
    _weights_epoch: int = 0
    _saved: checkpoints.Checkpoints | None = None
    _news: tuple[object, ...] = ()

    @property
    def active(self) -> bool:
        """Whether it is still in training."""
        failed = self.ended or self.again or self._failure is not None
        return not failed and self._trainer is not None and not self._trainer.finished

    @property
    def epoch(self) -> int:
        return self._trainer.progress.epoch if self._trainer else 0

    @property
    def trainer(self) -> learner.Learner:
        assert self._trainer is not None
        return self._trainer

    @property
    def saved(self) -> checkpoints.Checkpoints:
        assert self._saved is not None
        return self._saved

    def start(self, build: Callable[[dict[str, Any]], learner.Learner]) -> None:
        """Start, from the last checkpoint if there is one; may be called again."""
        self.again, place = False, self.place
        if self._saved is None:
            self._saved = checkpoints.Checkpoints(place, self.number, self.values, self.strategy)
        self._resume(build)

    def clone(
        self,
        build: Callable[[dict[str, Any]], learner.Learner],
        values: dict[str, Any],
        checkpoint: searches.Checkpoint,
    ) -> None:
        """Go on from another member's checkpoint under other values; its files are shared."""
        self.saved.adopt(values, checkpoint)
        self._resume(build)
        self._weights_epoch = 0  # the other's best epoch is its own now

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """End this member if the block fails; the others of its pack go on.

        A failure that the other workers of its group may not have is raised too, and one of this
        machine, as ClusterError: the trial starts again on another one.
        """
        try:
            yield
        except Exception as failure:
            if _is_full(failure):
                law = f"{socket.gethostname()}: a disk must have room"
                raise errors.ClusterError(f"{law}, but {failure}") from failure
            self.fail(failure)
            alike = isinstance(failure, ALIKE) and not isinstance(failure, errors.CodeError)
            if self.strategy.size > 1 and not alike:
                raise

    def fail(self, failure: Exception) -> None:
        """Start again from the last checkpoint at the next step; the second failure counts."""
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

    def save(self, *, worth: bool = True) -> None:
        """Upload the best epoch's weights for a comparison, if worth it, and wait for it."""
        best = self.trainer.progress.best_epoch
        if self.strategy.saves and best != self._weights_epoch:
            self._weights = self.saved.upload_weights(self.trainer) if worth else ()
            self._weights_epoch = best

    def save_state(self) -> None:
        """Save a checkpoint in the background, if there is something to save."""
        if self.active and (self.epoch or self.trainer.partial.batches):
            self.saved.save(self.trainer)

    def close(self) -> None:
        """End it, and give up what is not uploaded yet."""
        self.ended = True
        if self._saved is not None:
            self._saved.close()

    def report(self, metric: str) -> dict[str, Any] | None:
        """Fields of a record, `history` and `layers` since the last report; None without news."""
        if self.ended or self.again:
            return None
        self.ended = not self.active
        if self._failure is not None:
            return {"number": self.number, "epoch": self.epoch, "done": True, **self._failure}
        progress, last = self.trainer.progress, self.saved.saved
        fresh, own = progress.history[self._reported :], progress.history[self._trained :]
        before, self._news = self._news, (len(progress.history), last)
        if before == self._news and not self.ended:
            return None
        layers = [row for row in progress.layers if row.epoch > self._reported]
        self._reported = self._trained = len(progress.history)
        evidence, self.saved.evidence = self.saved.evidence, []
        self._measure()
        return {
            "number": self.number,
            "values": self.values,
            "score": progress.best.get(metric),
            "epoch": progress.epoch,
            "best_epoch": progress.best_epoch,
            "best": progress.best,
            "standard_error": progress.standard_error,
            "history": fresh,
            "layers": layers,
            "seconds": sum(epoch["seconds"] for epoch in own),
            "costs": self._costs,
            "weights": self._weights,
            "weights_epoch": self._weights_epoch,
            "state": last,
            "evidence": evidence,
            "done": self.ended,
        }

    def _resume(self, build: Callable[[dict[str, Any]], learner.Learner]) -> None:
        self.values = self.saved.values
        trainer = build(self.values)
        self.saved.restore(trainer)
        self._trainer, self._trained = trainer, len(trainer.progress.history)
        self._reported = 0
        self._measure()

    def _measure(self) -> None:
        """Measure what the model costs, once, or of one that grows at each best epoch."""
        name, best = self.place.cost, self.trainer.progress.best_epoch
        due = best != self._cost_epoch if self.trainer.grows else not self._costs
        if name is not None and due:
            self._costs, self._cost_epoch = {name: costs.REGISTRY[name](self.trainer)}, best

    def _cause(self, failure: Exception) -> str | None:
        """Type and place of a failure, in the user's code if possible; None if it may not recur."""
        if isinstance(failure, (*OWN_FAILURES, errors.StorageError)):
            return None
        if isinstance(failure, errors.MissingModuleError):
            return f"{searches.MISSING} {failure.module}"
        origin: BaseException = failure
        if isinstance(failure, errors.CodeError) and failure.__cause__ is not None:
            origin = failure.__cause__
        frames = traceback.extract_tb(origin.__traceback__ or failure.__traceback__)
        users = [frame for frame in frames if frame.filename in self.place.files]
        place = (users or frames)[-1]
        return f"{type(origin).__name__} at {place.filename}:{place.lineno}"


def _is_full(failure: BaseException | None) -> bool:
    """Whether a disk of this machine is full; a storage that is says so by itself."""
    if failure is None or isinstance(failure, errors.StorageError):
        return False
    full = isinstance(failure, OSError) and failure.errno in files.FULL
    return full or ray_compat.is_out_of_disk(failure) or _is_full(failure.__cause__)
