"""The loop of torch for recommenders, whose batches have their targets among the inputs.

What a user has chosen in the training part is left out of the lists that are evaluated.

Legend: B batch, C outputs, N drawn items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from eagleray import spec
from eagleray.engines.recommender import Recommender
from eagleray.learn import arrays, features, models, tasks
from eagleray.learn.models.recommender import Recommender as Module
from ray_jobs import training
from ray_jobs.data import encoded
from ray_jobs.data.reading import Batch

if TYPE_CHECKING:
    from eagleray import code, engines
    from ray_jobs import tensors


class Recommending(training.Trainer):
    """One configuration in training; see `learner.build`."""

    packs = False
    model: Module

    def __init__(
        self, configuration: spec.Configuration, data: encoded.Encoded, **place: Any
    ) -> None:
        self._options = configuration.model
        super().__init__(configuration, data, **place)

    def one_row(self) -> Callable[[], object]:
        lists, inputs = self._lists, self.data.validation.inputs
        first = {name: value[:1] for name, value in inputs.items()}
        return lambda: lists.run(first)

    @staticmethod
    def engine(
        options: models.Options,
        transforms: features.Transforms,
        task: tasks.Task,
        weights: tensors.Reader,
        *,
        custom: code.Code | None = None,
    ) -> engines.Engine:
        model = models.build(options, transforms.shape, task.width)
        model.load_state_dict({name: weights.read(name) for name in weights.names()})
        assert isinstance(model, Module)
        return Recommender(options, model)

    def _fit(self) -> None:
        """Tell the model what describes items, and what users have chosen in the training part."""
        super()._fit()
        if items := self.data.transforms.items:
            self.model.describe({name: arrays.tensor(one) for name, one in items.inputs.items()})
        train = self.data.train
        assert isinstance(train, encoded.Part)  # laws of the file
        self._lists = Recommender(self._options, self.model, trains=True)
        self._lists.remember(train.inputs, train.targets)

    def _evaluate(self) -> tuple[Tensor, float, dict[str, float]]:
        """Lists (B, C) for the rows of the validation part, their mean loss, and no dead units."""
        self.model.eval()
        total = 0.0
        with self._averaged(), torch.inference_mode():
            for batch in self.validation_batches():
                loss = self.loss(self.model(batch.inputs), batch.target_B)
                total += float(loss) * len(batch.target_B)
            raw_BC = torch.from_numpy(self._lists.run(self.data.validation.inputs))
        return raw_BC, total / len(self._validation.target_B), {}

    def _load(self, inputs: features.Inputs, targets: np.ndarray) -> Batch:
        batch = super()._load(inputs, targets)
        return Batch({**batch.inputs, "target": batch.target_B}, batch.target_B)
