"""The protocol of a learner: one configuration in training, whatever its kind of model.

`training.Trainer` is the loop of torch, `recommending.Recommending` the same for recommenders,
`boosting.Booster` grows trees, `folded.Folded` has a learner for each fold. What trains and saves
them (`session`, `member`, `checkpoints`) depends on none of them.

Legend: B rows, C outputs.
"""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from eagleray import errors, spec
from eagleray.learn import metrics, models, schema, tasks
from eagleray.state import watches

if TYPE_CHECKING:
    from pathlib import Path

    from eagleray import code, engines
    from eagleray.learn import features
    from eagleray.storage import streams
    from ray_jobs import snapshots, strategies, tensors
    from ray_jobs.data import encoded

_MEMBERS = {
    "torch": "ray_jobs.training:Trainer",
    "lightgbm": "ray_jobs.boosting:Booster",
    "recommender": "ray_jobs.recommending:Recommending",
}
"""`package.module:class` of each learner by the engine that runs its models."""


@dataclass
class Progress:
    """The state of a training beside its weights; every field is valid JSON."""

    epoch: int = 0  # epochs done
    best_epoch: int = 0
    improved_epoch: int = 0  # last one with a better metric; ties may make a later one the best
    best: dict[str, float] = field(default_factory=dict)  # metrics of the best epoch
    stale: int = 0  # epochs without a gain, for early stopping
    history: list[dict[str, float]] = field(default_factory=list)  # metrics of every epoch
    layers: list[watches.Row] = field(default_factory=list)  # of the epochs that are watched
    standard_error: float | None = None  # of the metric, over folds
    until: int | None = None  # epochs of a refit, whose last one counts: no rows are left to choose

    def __post_init__(self) -> None:
        self.layers = [watches.Row(*one) for one in self.layers]  # lists, if they were JSON
        self.improved_epoch = self.improved_epoch or self.best_epoch  # of an earlier release

    def finished(self, train: spec.Train) -> bool:
        if self.until is not None:
            return self.epoch >= self.until
        stopping = train.early_stopping
        impatient = stopping is not None and self.stale >= stopping.patience
        return impatient or self.epoch >= train.epochs

    def score(self, metric: str) -> float:
        """The metric of the best epoch, the higher the better; -inf before the first."""
        return _sign(metric) * self.best[metric] if self.best else -math.inf

    def add(self, found: dict[str, float], metric: str, train: spec.Train) -> bool:
        """Count an epoch; return whether it is the best. TrainingError without the metric.

        Of equal ones the lower loss is better; it is no gain for early stopping.
        """
        if metric not in found:
            raise errors.TrainingError(f"{metric} must be defined on the validation part")
        stopping = train.early_stopping
        self.epoch += 1
        self.history.append(found)
        if self.until is not None:
            self.best_epoch, self.best = self.epoch, found
            return True
        gain = _sign(metric) * (found[metric] - self.best.get(metric, 0.0))
        lower = metrics.tie_breaker(found) < metrics.tie_breaker(self.best)
        if self.best and (gain < 0 or (gain == 0 and not lower)):
            self.stale += 1
            return False
        self.improved_epoch = self.improved_epoch if self.best and gain == 0 else self.epoch
        patient = stopping is None or not self.best or gain > stopping.min_delta
        self.stale = 0 if patient else self.stale + 1
        self.best_epoch, self.best = self.epoch, found
        return True


@dataclass
class Partial:
    """The epoch that was begun and is not done."""

    batches: int = 0  # done; of trees, rounds
    loss: float = 0.0  # sum over the rows of these batches, float32
    rows: int = 0
    seconds: float = 0.0
    peaks: list[float | None] = field(default_factory=list)  # largest mean loss of a batch
    broken: list[int | None] = field(default_factory=list)  # first batch whose loss is not finite
    layers: list[watches.Row] = field(default_factory=list)  # of the batch that is watched

    def __post_init__(self) -> None:
        self.layers = [watches.Row(*one) for one in self.layers]


class Learner(Protocol):
    """One configuration in training; at rest it is between two batches.

    Its snapshots have the files of `snapshots.FILES`.
    """

    options: spec.Train
    metric: str
    progress: Progress
    partial: Partial
    strategy: strategies.OneProcess
    grows: bool
    """Whether what a model costs follows from its epochs, and is known after the first alone."""
    batched: bool
    """Whether an epoch has a step for each batch of rows: with fewer rows it has fewer steps."""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.progress.finished(self.options)

    @property
    def score(self) -> float:
        """See `Progress.score`."""
        return self.progress.score(self.metric)

    @property
    def size(self) -> int:
        """Bytes of the model."""

    def epoch(self, stop: Callable[[], bool] = ...) -> dict[str, float] | None:
        """Train to the end of the epoch and evaluate it; `stop` is called after each batch.

        Returns:
            Metrics of the validation part by name, its `loss` if finite, `train_loss` (mean of the
            training rows), `seconds`, and of networks `peak_loss` (largest mean of a batch). None
            if `stop` returned true: the next call goes on.

        Raises:
            TrainingError: the training loss or an output is not finite; the metric is undefined.
            CodeError: the user's model or loss fails.
        """

    def probe(self) -> None:
        """Train and evaluate on a batch, as a check of the configuration.

        Raises:
            CodeError: the user's model or loss fails.
        """

    def outputs(self) -> np.ndarray:
        """Raw outputs (B, C) of the best epoch's model for the validation part, after the end.

        They are on the scale `Task.unit`, so that those of several trainings are alike.
        """

    def one_row(self) -> Callable[[], object]:
        """What predicts one row, for measuring."""

    def snapshot(
        self, owner: str, spare: snapshots.Spare | None = None
    ) -> snapshots.Snapshot | None:
        """See `snapshots.take`."""

    def best(self, owner: str) -> streams.Buffers:
        """The file `best`: the same bytes as in any snapshot with this best epoch."""

    def needed_parts(self, count: int) -> list[int]:
        """Which of `count` saved parts this worker needs."""

    def restore(self, parts: Sequence[Mapping[str, Path]]) -> None:
        """Load the files of a snapshot, of `needed_parts`. CorruptObjectError if some lack."""

    @staticmethod
    def engine(
        options: models.Options,
        transforms: features.Transforms,
        task: tasks.Task,
        weights: tensors.Reader,
        *,
        custom: code.Code | None = None,
    ) -> engines.Engine:
        """What runs a model, from its file `best`."""


def member(options: models.Options) -> type[Learner]:
    """The learner of a model."""
    found: type[Learner] = pkgutil.resolve_name(_MEMBERS[models.engine(options)])
    return found


def build(
    configuration: spec.Configuration,
    data: encoded.Encoded,
    *,
    metric: str,
    strategy: strategies.OneProcess | None = None,
    custom: Mapping[str, code.Code] | None = None,
) -> Learner:
    """The learner of a configuration; `metric` selects its best epoch.

    `strategy` says where and in how many workers; `custom` has the user's code by its name.

    Raises:
        UserError: the model or the loss does not fit the data.
    """
    made: Callable[..., Learner] = member(configuration.model)
    return made(configuration, data, metric=metric, strategy=strategy, custom=custom)


def evaluate(
    target: schema.Target,
    scale: tasks.Scale,
    truth_B: np.ndarray,
    raw_BC: np.ndarray,
    *,
    epoch: int,
) -> dict[str, float]:
    """Metrics of raw outputs (float64); TrainingError where one is not finite."""
    if not np.isfinite(raw_BC).all():
        raise errors.TrainingError(f"outputs must be finite, but are not in epoch {epoch}")
    outputs = tasks.of(target).activate(raw_BC, scale)
    return metrics.score(target, truth_B, outputs)


def _sign(metric: str) -> int:
    return 1 if metrics.REGISTRY[metric].mode == "max" else -1
