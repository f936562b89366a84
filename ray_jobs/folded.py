"""A configuration trained by cross-validation: a learner each of whose epochs is a fold.

A fold is a training of its own, on its own rows and transforms, and its best epoch counts. Trials
are compared by the mean over the folds that are done. No fold's model is a winner (`refit` makes
one of all rows): in the place of weights, the file `best` has what the model of each fold gives for
the rows that it was not trained on.

Interrupted between any two batches and resumed it equals one that was not, as the learners of its
folds do. Of a fold after the first, what comes before its first whole epoch is trained again.

Legend: B rows, C outputs.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch

from ray_jobs import learner, snapshots, tensors

if TYPE_CHECKING:
    from eagleray.storage import streams
    from ray_jobs.data import prepare

BEST_EPOCH = "best_epoch"
"""The best epoch of a fold, beside its metrics."""


class Folded(learner.Learner):
    """A configuration in training, fold after fold; `build` gives the learner of a fold, from 0."""

    grows = True
    batched = True

    def __init__(self, build: Callable[[int], learner.Learner], count: int) -> None:
        self._build, self._count = build, count
        self._number, self._inner = 0, build(0)
        self.options, self.metric = self._inner.options, self._inner.metric
        self.strategy = self._inner.strategy
        self.progress, self.partial = learner.Progress(), learner.Partial()
        self._outputs: dict[str, torch.Tensor] = {}  # raw (B, C), by the number of the fold

    @property
    def finished(self) -> bool:
        return self.progress.epoch >= self._count

    @property
    def size(self) -> int:
        """Bytes of the newest fold's model."""
        return self._inner.size

    def epoch(self, stop: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """Train and evaluate a fold; see `Learner.epoch`."""
        if self._number < self.progress.epoch:
            self._number, self._inner = self.progress.epoch, self._build(self.progress.epoch)

        def counted() -> bool:
            self.partial.batches += 1  # so that a newer state is told from an older one
            return stop()

        while not self._inner.finished:
            done = self._inner.epoch(counted)
            if done is None or (not self._inner.finished and counted()):
                return None
        return self._add()

    def probe(self) -> None:
        self._inner.probe()

    def outputs(self) -> np.ndarray:
        """Those of all folds, one after the other."""
        return torch.cat([self._outputs[name] for name in _ordered(self._outputs)]).numpy()

    def one_row(self) -> Callable[[], object]:
        return self._inner.one_row()

    def snapshot(
        self, owner: str, spare: snapshots.Spare | None = None
    ) -> snapshots.Snapshot | None:
        """The fold's own snapshot is in one file; None where that has no model to measure yet."""
        progress, inner = self.progress, self._inner.progress
        if self._number and not inner.epoch:
            return None
        taken = self._inner.snapshot(owner)
        if taken is None:
            return None
        held = {
            f"{name}.{key}": one for name in taken.files for key, one in taken.files[name].items()
        }
        state = {"number": self._number, "progress": dataclasses.asdict(progress)}
        return snapshots.Snapshot(
            epoch=progress.epoch,
            batch=self.partial.batches,
            best_epoch=progress.best_epoch,
            owner=owner,
            files={
                snapshots.MODEL: self._outputs,
                snapshots.BEST: self._outputs,
                snapshots.OPTIMIZER: held,
            },
            rows={name: {} for name in snapshots.FILES},
            state=json.dumps(
                json.loads(taken.state) | {"folds": state | {"batches": self.partial.batches}}
            ),
        )

    def best(self, owner: str) -> streams.Buffers:
        return tensors.stream(self._outputs, {"owner": owner})

    def needed_parts(self, count: int) -> list[int]:
        return list(range(count))

    def restore(self, parts: Sequence[Mapping[str, Path]]) -> None:
        held, rest = (snapshots.opened(parts, one) for one in (snapshots.BEST, snapshots.OPTIMIZER))
        state = json.loads(rest.metadata["state"])["folds"]
        self._outputs = {name: held.read(name).clone() for name in held.names()}  # may be mapped
        self.progress = learner.Progress(**state["progress"])
        self.partial = learner.Partial(batches=state["batches"])
        self._number, self._inner = state["number"], self._build(state["number"])
        self._inner.restore([{snapshots.WHOLE: part[snapshots.OPTIMIZER]} for part in parts])

    @staticmethod
    def engine(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("no fold's model is served")

    def _add(self) -> dict[str, float]:
        """End a fold."""
        done, progress = self._inner.progress, self.progress
        seconds = sum(one["seconds"] for one in done.history)
        found = {**done.best, BEST_EPOCH: float(done.best_epoch), "seconds": seconds}
        raw_BC = np.ascontiguousarray(self._inner.outputs(), np.float64)
        self._outputs = {**self._outputs, str(self._number): torch.from_numpy(raw_BC)}
        self.partial = learner.Partial()
        progress.epoch += 1
        progress.best_epoch = progress.epoch
        progress.history.append(found)
        progress.best, progress.standard_error = summary(progress.history, self.metric)
        return found


def summary(
    history: Sequence[Mapping[str, float]], metric: str
) -> tuple[dict[str, float], float | None]:
    """The mean of each metric over folds, and the standard error of `metric`; None of one fold.

    Folds share rows, so the standard error is a little too small (Bengio and Grandvalet 2004).
    """
    names = [
        one for one in history[0] if one != BEST_EPOCH and all(one in fold for fold in history)
    ]
    means = {name: float(np.mean([fold[name] for fold in history])) for name in names}
    if len(history) < 2:
        return means, None
    deviation = np.std([fold[metric] for fold in history], ddof=1)
    return means, float(deviation / math.sqrt(len(history)))


def best_epoch(history: Sequence[Mapping[str, float]]) -> int:
    """The mean best epoch of folds, rounded."""
    return max(1, round(float(np.mean([fold[BEST_EPOCH] for fold in history]))))


def held_out(dataset: prepare.Dataset, best: tensors.Reader) -> tuple[np.ndarray, np.ndarray]:
    """Targets (B), and raw outputs (B, C) of models that were not trained on these rows.

    `best` is the file of that name.
    """
    names = _ordered(best.names())
    truth_B = np.concatenate([dataset.targets[dataset.folds[int(n)].validation] for n in names])
    return truth_B, torch.cat([best.read(name) for name in names]).numpy()


def _ordered(names: Iterable[str]) -> list[str]:
    return sorted(names, key=int)
