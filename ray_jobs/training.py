"""The training loop: one for short trials, long ones, and later several workers.

An epoch's randomness (row order, dropout) comes from the seed and the epoch's number alone, so a
training that is interrupted and resumed equals one that was not, to the bit.

Legend: B batch, C outputs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eagleray import bundle, code, errors, spec
from eagleray.learn import losses, metrics, models, tasks
from ray_jobs.data import encoded

EVALUATION_ROWS = 4096


@dataclass
class Progress:
    """What a training knows of itself beside its tensors; JSON by its fields.

    Attributes:
        epoch: epochs done.
        best_epoch: the epoch whose validation metric is the best; 0 before the first.
        best: all metrics of that epoch.
        stale: epochs since the best one, for early stopping.
        history: metrics of every epoch.
    """

    epoch: int = 0
    best_epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)
    stale: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """One configuration in training.

    Args:
        configuration: the concrete values of this trial.
        data: the encoded training and validation parts.
        metric: what selects the best epoch, a name of `eagleray.learn.metrics`.
        device: where to train.
        own: the user's code by its name, where the configuration names any.

    Raises:
        UserError: a model or a loss that does not fit the data.
    """

    def __init__(
        self,
        configuration: spec.Configuration,
        data: encoded.Encoded,
        *,
        metric: str,
        device: str = "cpu",
        own: dict[str, code.Code] | None = None,
    ) -> None:
        own = own or {}
        self._own_model = own.get(configuration.model.type)
        self._own_loss = own.get(configuration.train.loss)
        self.options, self.data, self.metric = configuration.train, data, metric
        self.device = torch.device(device)
        self.progress = Progress()
        self._sign = 1 if metrics.REGISTRY[metric].mode == "max" else -1
        self._task = tasks.of(data.target)
        self.scale = self._task.scale(data.train.targets)
        torch.manual_seed(self.options.seed)
        self.model = models.build(
            configuration.model,
            data.transforms.shape,
            self._task.width,
            custom=self._own_model,
        ).to(self.device)
        self._loss = losses.build(
            self.options, data.target, data.train.targets, custom=self._own_loss
        )
        self._train, self._validation = self._tensors(data.train), self._tensors(data.validation)
        self._rows = len(data.train.targets)
        self._steps = _batches(self._rows, self.options.batch_size)
        self.optimizer = _optimizer(self.options, self.model)
        self.schedule = _schedule(self.options, self.optimizer, self._steps * self.options.epochs)
        self.best_weights = self._weights()

    @property
    def finished(self) -> bool:
        """Whether no epoch is left, or early stopping has lost its patience."""
        stopping = self.options.early_stopping
        impatient = stopping is not None and self.progress.stale >= stopping.patience
        return impatient or self.progress.epoch >= self.options.epochs

    def epoch(self) -> dict[str, float]:
        """Train one epoch and evaluate it.

        Returns:
            Metrics of the validation part by name, its `loss` among them (left out where it is not
            finite), with `train_loss` (mean of the training batches) and `seconds`.

        Raises:
            TrainingError: the training loss or the outputs are no longer finite; names the epoch.
            CodeError: the user's model or loss fails.
        """
        began = time.perf_counter()
        number = self.progress.epoch + 1
        train_loss = self._train_epoch(number)
        found = self._evaluate(number)
        found |= {"train_loss": train_loss, "seconds": time.perf_counter() - began}
        self._record(number, found)
        return found

    def probe(self) -> None:
        """Try what training, evaluation and serving do, on one batch and on one row.

        No weight changes.

        Raises:
            CodeError: the user's model or loss fails.
        """
        self.model.train()
        inputs, target_B = next(self._batches())
        self._backward(self._loss(self.model(inputs), target_B))
        self.optimizer.zero_grad(set_to_none=True)
        self.model.eval()
        with torch.inference_mode():
            self._loss(self.model(inputs), target_B)
            self.model({name: value[:1] for name, value in inputs.items()})

    def _train_epoch(self, number: int) -> float:
        self.model.train()
        total = torch.zeros((), device=self.device)
        count = 0
        torch.manual_seed(self.options.seed * 1_000_003 + number)
        for inputs, target_B in self._batches():
            loss = self._step(inputs, target_B)
            total += loss.detach() * len(target_B)
            count += len(target_B)
        mean = float(total) / count
        if not math.isfinite(mean):
            raise errors.TrainingError(f"loss must be finite, but is {mean} in epoch {number}")
        return mean

    def _batches(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Shuffled batches; a last batch of one row is left out: batch norm needs two."""
        inputs, targets = self._train
        order = torch.randperm(self._rows).to(self.device)
        for rows in order.split(self.options.batch_size):
            if len(rows) > 1 or self._rows == 1:
                yield {name: value[rows] for name, value in inputs.items()}, targets[rows]

    def _step(self, inputs: dict[str, Tensor], target_B: Tensor) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(self.model(inputs), target_B)
        self._backward(loss)
        if self.options.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        return loss

    def _backward(self, loss: Tensor) -> None:
        with code.guard("must give gradients", self._own_loss, self._own_model):
            loss.backward()

    def _evaluate(self, number: int) -> dict[str, float]:
        self.model.eval()
        chunks, total = [], 0.0
        with torch.inference_mode():
            for inputs, target_B in _chunks(*self._validation):
                chunks.append(self.model(inputs))
                total += float(self._loss(chunks[-1], target_B)) * len(target_B)
        logits_BC = torch.cat(chunks).double().cpu().numpy()
        if not np.isfinite(logits_BC).all():
            raise errors.TrainingError(f"outputs must be finite, but are not in epoch {number}")
        truth_B = self.data.validation.targets
        outputs = self._task.activate(logits_BC, self.scale)
        found = metrics.score(self.data.target, truth_B, outputs)
        loss = total / len(truth_B)
        return found | ({"loss": loss} if math.isfinite(loss) else {})

    def _record(self, number: int, found: dict[str, float]) -> None:
        if self.metric not in found:
            raise errors.TrainingError(f"{self.metric} must be defined on the validation part")
        progress, stopping = self.progress, self.options.early_stopping
        progress.epoch = number
        progress.history.append(found)
        gain = self._sign * (found[self.metric] - progress.best.get(self.metric, 0.0))
        if not progress.best or gain > 0:
            patient = stopping is None or not progress.best or gain > stopping.min_delta
            progress.stale = 0 if patient else progress.stale + 1
            progress.best_epoch, progress.best = number, found
            self.best_weights = self._weights()
        else:
            progress.stale += 1

    def _weights(self) -> dict[str, Tensor]:
        return {
            name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()
        }

    def _tensors(self, part: encoded.Part) -> tuple[dict[str, Tensor], Tensor]:
        inputs = {name: bundle.tensor(value).to(self.device) for name, value in part.inputs.items()}
        targets = self._task.scaled(part.targets, self.scale)
        return inputs, bundle.tensor(targets).to(self.device)


def _batches(rows: int, size: int) -> int:
    whole, rest = divmod(rows, size)
    return max(1, whole + (rest > 1))


def _chunks(
    inputs: dict[str, Tensor], target_B: Tensor
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    for start in range(0, len(target_B), EVALUATION_ROWS):
        chunk = slice(start, start + EVALUATION_ROWS)
        yield {name: value[chunk] for name, value in inputs.items()}, target_B[chunk]


def _optimizer(train: spec.Train, model: nn.Module) -> torch.optim.Optimizer:
    shared: dict[str, Any] = {"lr": train.lr, "weight_decay": train.weight_decay}
    if train.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=train.momentum, **shared)
    made = torch.optim.AdamW if train.optimizer == "adamw" else torch.optim.Adam
    return made(model.parameters(), fused=True, **shared)


def _schedule(
    train: spec.Train, optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate by step; `one_cycle` is Smith's, in torch's two-phase form."""
    from torch.optim import lr_scheduler

    if train.schedule == "one_cycle":
        return lr_scheduler.OneCycleLR(optimizer, max_lr=train.lr, total_steps=steps + 1)
    if train.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    if train.schedule == "linear":
        return lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    return lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=1)
