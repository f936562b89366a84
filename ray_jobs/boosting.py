"""A learner of trees, by LightGBM.

An epoch grows `model.rounds` trees of each class on the outputs of those before. Each epoch is a
booster of its own, seeded by its number, whose trees are added to the text of the model: a training
that is interrupted and resumed equals one that was not, to the bit. What an interruption leaves of
an epoch is grown again. Of quantiles each level has a booster of its own, grown in turn.

Legend: B rows, D columns, C outputs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import torch

from eagleray import code, engines, errors, spec
from eagleray.engines import trees
from eagleray.engines.lightgbm import LightGbm, raw_outputs
from eagleray.learn import features, losses, models, tasks
from eagleray.storage import streams
from ray_jobs import learner, snapshots, strategies, tensors
from ray_jobs.data import encoded

TEXT = "text"
"""The tensor of a file of a snapshot: the bytes of LightGBM's text; none before the first epoch."""


class Booster(learner.Learner):
    """One configuration in training; see `learner.build`. `text` is that of all its trees."""

    grows = True
    batched = False

    def __init__(
        self,
        configuration: spec.Configuration,
        data: encoded.Encoded,
        *,
        metric: str,
        strategy: strategies.OneProcess | None = None,
        custom: Mapping[str, code.Code] | None = None,
    ) -> None:
        model = configuration.model
        assert isinstance(model, models.Boosting)
        assert isinstance(data.train, encoded.Part)  # laws of the file
        self.options, self.data, self.metric = configuration.train, data, metric
        self.strategy = strategy or strategies.OneProcess()
        self.progress, self.partial = learner.Progress(), learner.Partial()
        self._task, self._rounds = tasks.of(data.target), model.rounds
        self._scale = self._task.scale(data.train.targets)
        self._loss = losses.build(self.options, data.target, data.train.targets)
        rows = len(data.train.targets)
        self._parameters = _parameters(model, self.options, self._task, rows)
        self._matrix = features.Matrix.of(data.transforms)
        self._train, self._validation = self._rows(data.train), self._rows(data.validation)
        weight_C = losses.class_weights(self.options, data.train.targets, self._task)
        self._set = lightgbm.Dataset(
            self._train.matrix_BD,
            label=self._train.target_B,
            weight=None if weight_C is None else weight_C[data.train.targets],
            categorical_feature=self._matrix.categories,
            params=self._parameters[0],
            free_raw_data=False,
        )
        self._growing: list[lightgbm.Booster] = []  # one for each of `_parameters`
        self.text = self._best = b""
        self._rounds_of: list[int] = []  # of each epoch: fewer where no tree gains any more

    @property
    def size(self) -> int:
        return len(self._best)

    def epoch(self, stop: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        began = time.perf_counter() - self.partial.seconds
        grown = self._grow(stop)
        if grown is None:
            self.partial.seconds = time.perf_counter() - began
            return None
        self._add(grown)
        number, truth = self.progress.epoch + 1, self.data.validation.targets
        train_loss = self._train.loss(self._loss)
        if not math.isfinite(train_loss):
            law = f"loss must be finite, but is {train_loss} in epoch {number}"
            raise errors.TrainingError(law)
        found = learner.evaluate(
            self.data.target, self._scale, truth, self._validation.raw_BC, epoch=number
        )
        loss = self._validation.loss(self._loss)
        found |= {"loss": loss} if math.isfinite(loss) else {}
        found |= {"train_loss": train_loss, "seconds": time.perf_counter() - began}
        if self.progress.add(found, self.metric, self.options):
            self._best = self.text
        return found

    def probe(self) -> None:
        grown = self._begun(0)
        for booster in grown:
            booster.update()
        raw_outputs(_parsed(_whole(grown)), self._validation.matrix_BD, self._task.width)

    def outputs(self) -> np.ndarray:
        matrix_BD, threads = self._validation.matrix_BD, torch.get_num_threads()
        best = _parsed(self._best)
        raw_BC = raw_outputs(best, matrix_BD, self._task.width, num_threads=threads)
        return self._task.rescaled(raw_BC, self._scale, self._task.unit)

    def one_row(self) -> Callable[[], object]:
        engine = LightGbm(self._best, self._matrix, self._task.width)
        inputs = {name: value[:1] for name, value in self.data.validation.inputs.items()}
        return lambda: engine.run(inputs)

    def snapshot(
        self, owner: str, spare: snapshots.Spare | None = None
    ) -> snapshots.Snapshot | None:
        progress = self.progress
        best, at_best = _tensors(self._best), progress.epoch == progress.best_epoch
        return snapshots.Snapshot(
            epoch=progress.epoch,
            batch=0,
            best_epoch=progress.best_epoch,
            owner=owner,
            files={
                snapshots.MODEL: best if at_best else _tensors(self.text),
                snapshots.BEST: best,
                snapshots.OPTIMIZER: {},
            },
            rows={name: {} for name in snapshots.FILES},
            state=json.dumps({"progress": dataclasses.asdict(progress), "rounds": self._rounds_of}),
        )

    def best(self, owner: str) -> streams.Buffers:
        return tensors.stream(_tensors(self._best), {"owner": owner})

    def needed_parts(self, count: int) -> list[int]:
        return list(range(count))

    def restore(self, parts: Sequence[Mapping[str, Path]]) -> None:
        model, best, rest = (snapshots.opened(parts, name) for name in snapshots.FILES)
        self.text, self._best = _text(model), _text(best)
        state = json.loads(rest.metadata["state"])
        self.progress = learner.Progress(**state["progress"])
        self._growing, self.partial = [], learner.Partial()
        self._rounds_of = state["rounds"]
        if not self.text:
            return
        grown, ends = _parsed(self.text), [0, *itertools.accumulate(self._rounds_of)]
        for start, end in itertools.pairwise(ends):  # as `_add` adds them, to the bit
            self._predict(grown, start_iteration=start, num_iteration=end - start)

    @staticmethod
    def engine(
        options: models.Options,
        transforms: features.Transforms,
        task: tasks.Task,
        weights: tensors.Reader,
        *,
        custom: code.Code | None = None,
    ) -> engines.Engine:
        return LightGbm(_text(weights), features.Matrix.of(transforms), task.width)

    def _grow(self, stop: Callable[[], bool]) -> bytes | None:
        """Grow the trees of an epoch, and return their text; None if stopped."""
        if not self._growing:
            self._growing = self._begun(len(self._rounds_of) + 1)
        while self.partial.batches < self._rounds:
            if self.partial.batches and self.strategy.stopped(stop):
                return None
            ended = [booster.update() for booster in self._growing]
            self.partial.batches += 1
            if all(ended):  # no split gains any more
                break
        grown, self._growing, self.partial = self._growing, [], learner.Partial()
        return _whole(grown)

    def _begun(self, number: int) -> list[lightgbm.Booster]:
        """The boosters of an epoch, each on its outputs so far."""
        seeds, made = dict.fromkeys(_SEEDS, _seed(self.options.seed, number)), []
        for place, parameters in enumerate(self._parameters):
            alone = place if len(self._parameters) > 1 else None
            self._set.set_init_score(self._train.init_score(alone))
            made.append(lightgbm.Booster(parameters | seeds, self._set))
        return made

    def _add(self, grown: bytes) -> None:
        """Add the trees of an epoch."""
        self.text = trees.joined([self.text, grown]) if self.text else grown
        booster = _parsed(grown)
        self._predict(booster)
        self._rounds_of.append(int(booster.current_iteration()))

    def _predict(self, booster: lightgbm.Booster, **rounds: int) -> None:
        """Add what trees give to the outputs of all rows."""
        threads = torch.get_num_threads()
        for rows in (self._train, self._validation):
            rows.raw_BC += raw_outputs(
                booster, rows.matrix_BD, self._task.width, num_threads=threads, **rounds
            )

    def _rows(self, part: encoded.Part) -> _Rows:
        width = self._task.width
        return _Rows(
            self._matrix.apply(part.inputs),
            self._task.scaled(part.targets, self._scale),
            np.zeros((len(part), width)),
        )


@dataclasses.dataclass
class _Rows:
    """Rows as LightGBM takes them, and what all trees so far give for them."""

    matrix_BD: np.ndarray
    target_B: np.ndarray
    raw_BC: np.ndarray

    def init_score(self, output: int | None = None) -> np.ndarray | None:
        """What trees of all outputs, or of one, are grown on; None before the first ones.

        Those begin with the mean, or with what else is best without a tree.
        """
        if not self.raw_BC.any():
            return None
        if output is None and self.raw_BC.shape[1] > 2:
            return self.raw_BC
        return self.raw_BC[:, -1 if output is None else output].copy()  # of two classes the second

    def loss(self, function: losses.Function) -> float:
        """The mean loss."""
        return float(
            function(torch.from_numpy(self.raw_BC).float(), torch.from_numpy(self.target_B))
        )


def _parameters(
    model: models.Boosting, train: spec.Train, task: tasks.Task, rows: int
) -> list[dict[str, Any]]:
    """LightGBM's for so many training rows, of each booster.

    https://lightgbm.readthedocs.io/en/stable/Parameters.html
    """
    loss = losses.named(train, task)
    objectives = losses.REGISTRY[loss].objectives
    if objectives is None:
        raise errors.UserError(f"train.loss: boosting cannot be trained with {loss}")
    shared = {
        "learning_rate": train.lr,
        "num_leaves": model.leaves,
        "max_depth": model.depth or -1,
        "min_data_in_leaf": model.min_rows,
        "bagging_fraction": max(model.row_share, min(1.0, 1.5 / rows)),  # a row at least
        "bagging_freq": 1 if model.row_share < 1 else 0,
        "feature_fraction": model.column_share,
        "lambda_l1": model.l1,
        "lambda_l2": model.l2,
        "max_bin": model.bins,
        "feature_pre_filter": False,
        "data_random_seed": _seed(train.seed, 0),
        "num_threads": torch.get_num_threads(),
        "deterministic": True,
        "force_row_wise": True,  # else it measures what is faster, and so is not deterministic
        "verbosity": -1,
    }
    return [one | shared for one in objectives(task)]


_SEEDS = ("bagging_seed", "feature_fraction_seed", "extra_seed", "objective_seed")


def _seed(*place: int) -> int:
    digest = hashlib.blake2b(repr(place).encode(), digest_size=4).digest()
    return int.from_bytes(digest) & 0x7FFFFFFF  # LightGBM takes 31 bits


def _whole(grown: Sequence[lightgbm.Booster]) -> bytes:
    """The text of all outputs."""
    texts = [one.model_to_string().encode() for one in grown]
    return trees.side_by_side(texts) if len(texts) > 1 else texts[0]


def _parsed(text: bytes) -> lightgbm.Booster:
    return lightgbm.Booster(model_str=text.decode())


def _tensors(text: bytes) -> dict[str, torch.Tensor]:
    return {TEXT: torch.frombuffer(bytearray(text), dtype=torch.uint8)} if text else {}


def _text(read: tensors.Reader) -> bytes:
    return read.read(TEXT).numpy().tobytes() if TEXT in read.names() else b""
