"""The training loop of torch: a learner, see `learner.Learner`.

An epoch's randomness (row order, dropout) comes from the seed and the epoch's number alone, and
within the epoch from the generators' state, so a training that is interrupted between any two
batches and resumed equals one that was not, to the bit.

Legend: B batch, C outputs.
"""

import functools
import hashlib
import math
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from eagleray import code, engines, errors, spec
from eagleray.learn import arrays, features, losses, models, tasks
from eagleray.learn.models import layers
from eagleray.storage import streams
from ray_jobs import learner, snapshots, strategies, tensors
from ray_jobs.data import encoded
from ray_jobs.data.augmentation import Augmentation
from ray_jobs.data.reading import Batch

EVALUATION_ROWS = 4096
"""Validation rows in a batch."""
FITTED_ROWS = 50_000
"""Most training rows that a model takes statistics of."""


class Pass(NamedTuple):
    """One pass over the data: an epoch of training, then the outputs of the validation part."""

    train_loss: float  # mean of the training rows
    output_BC: Tensor
    loss: float  # mean of the validation rows
    seconds: float


class Trainer(learner.Learner):
    """One configuration in training.

    `metric` selects the best epoch; it is a name of `eagleray.learn.metrics`. `strategy` says where
    and in how many workers. `custom` has the user's code by its name in the file.

    Raises:
        UserError: the model or the loss does not fit the data.
    """

    grows = False

    def __init__(
        self,
        configuration: spec.Configuration,
        data: encoded.Encoded,
        *,
        metric: str,
        strategy: strategies.OneProcess | None = None,
        custom: Mapping[str, code.Code] | None = None,
    ) -> None:
        custom = custom or {}
        self._custom_model = custom.get(configuration.model.type)
        self._custom_loss = custom.get(configuration.train.loss)
        self.options, self.data, self.metric = configuration.train, data, metric
        self.strategy = strategy or strategies.OneProcess()
        self.device = self.strategy.device
        self.progress, self.partial = learner.Progress(), learner.Partial()
        self._task = tasks.of(data.target)
        self._scale = self._task.scale(data.train.targets)
        torch.manual_seed(self.options.seed)
        model, shape = configuration.model, data.transforms.shape
        built = models.build(model, shape, self._task.width, custom=self._custom_model)
        self.model, targets = built.to(self.device), data.train.targets
        place = {"rank": self.strategy.rank, "size": self.strategy.size}
        self._train = data.train.reader(self._load, **place)
        self._augmentation = Augmentation.of(configuration, data.transforms.images)
        self._fit()
        self._spread = self.strategy.spread(self.model)
        self.loss = losses.build(self.options, data.target, targets, custom=self._custom_loss)
        self._weight_C = self._class_weights(targets)
        self._validation = self._load(data.validation.inputs, data.validation.targets)
        whole, rest = divmod(len(self._train), self.options.batch_size)
        steps = max(1, whole + (rest > 1)) * self.options.epochs  # as `batches` has them
        self.optimizer = build_optimizer(self.options, self.model.parameters())
        self.schedule = _schedule(self.options, self.optimizer, steps)
        scaled = self.strategy.precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.best_weights = self._weights()

    @property
    def size(self) -> int:
        return sum(value.nbytes for value in self.model.state_dict().values())

    def epoch(self, stop: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        began = time.perf_counter() - self.partial.seconds
        train_loss = self.train(stop)
        if train_loss is None:
            self.partial.seconds = time.perf_counter() - began
            return None
        output_BC, loss = self._evaluate()
        return self.record(Pass(train_loss, output_BC, loss, time.perf_counter() - began))

    def train(self, stop: Callable[[], bool] = lambda: False) -> float | None:
        """Train on the batches that are left; return the mean loss of the rows, None if stopped."""
        self.model.train()
        before = self.partial
        batches, count = before.batches, before.rows
        total = torch.tensor(before.loss if self.strategy.leads else 0.0, device=self.device)
        for batch in self.batches(self.progress.epoch + 1):
            if batches > before.batches and self.strategy.stopped(stop):
                self.partial = learner.Partial(batches, float(self.strategy.total(total)), count)
                return None
            self._step(batch, total)
            count += batch.rows
            batches += 1
        self.partial = learner.Partial()
        return float(self.strategy.total(total)) / count

    def batches(self, number: int) -> Iterator[Batch]:
        """Yield an epoch's shuffled batches that are not done, and seed what is random in them.

        Pictures in them are changed at random, if the file says so.
        """
        generator = torch.Generator().manual_seed(self.options.seed * 1_000_003 + number)
        start = self.partial.batches
        batches = self._train.shuffled(self.options.batch_size, generator, start)
        for place, batch in enumerate(batches, start):
            whole = self.strategy.shareable(batch)
            self._seed(number, place)
            yield self._augmented(whole, number, place)

    def validation_batches(self) -> Iterator[Batch]:
        for start in range(0, len(self._validation.target_B), EVALUATION_ROWS):
            yield self._validation.select(slice(start, start + EVALUATION_ROWS))

    def record(self, done: Pass) -> dict[str, float]:
        """Evaluate what a pass gave, and end its epoch; see `epoch`."""
        number = self.progress.epoch + 1
        if not math.isfinite(done.train_loss):
            law = f"loss must be finite, but is {done.train_loss} in epoch {number}"
            raise errors.TrainingError(law)
        truth, raw_BC = self.data.validation.targets, done.output_BC.double().cpu().numpy()
        target, scale = self.data.target, self._scale
        found = learner.evaluate(target, scale, truth, raw_BC, epoch=number)
        found |= {"loss": done.loss} if math.isfinite(done.loss) else {}
        found |= {"train_loss": done.train_loss, "seconds": done.seconds}
        found = self.strategy.agree(lambda: found)  # of which the end of a training follows
        if self.progress.add(found, self.metric, self.options):
            self.best_weights = self._weights()
        return found

    def probe(self) -> None:
        """Run training on a batch, evaluation and serving; updates no weight."""
        self.model.train()
        batch = next(self.batches(1))
        self._backward(self._loss(self.model(batch.inputs), batch.target_B))
        self.optimizer.zero_grad(set_to_none=True)
        self.model.eval()
        with torch.inference_mode():
            self.loss(self.model(batch.inputs), batch.target_B)
            self.model(batch.select(slice(1)).inputs)

    def one_row(self) -> Callable[[], object]:
        inputs = next(self.validation_batches()).select(slice(1)).inputs
        self.model.eval()

        def run() -> None:
            with torch.inference_mode():
                self.model(inputs)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

        return run

    def snapshot(
        self, owner: str, spare: snapshots.Spare | None = None
    ) -> snapshots.Snapshot | None:
        return snapshots.take(self, owner, spare)

    def best(self, owner: str) -> streams.Buffers:
        return snapshots.best_weights(self, owner)

    def needed_parts(self, count: int) -> list[int]:
        return snapshots.needed_parts(self, count)

    def restore(self, parts: Sequence[Mapping[str, Path]]) -> None:
        snapshots.restore(self, parts)

    @staticmethod
    def engine(
        options: models.Options,
        transforms: features.Transforms,
        outputs: int,
        weights: tensors.Reader,
        *,
        custom: code.Code | None = None,
    ) -> engines.Engine:
        from eagleray.engines.torch import Torch

        model = models.build(options, transforms.shape, outputs, custom=custom)
        model.load_state_dict({name: weights.read(name) for name in weights.names()})
        return Torch(options, model, custom)

    def _fit(self) -> None:
        """Give layers that keep statistics those of training rows; the same in all workers."""
        fitted = [one for one in self.model.modules() if isinstance(one, layers.Fitted)]
        if not fitted:
            return
        generator = torch.Generator().manual_seed(self.options.seed)
        inputs = next(self._train.shuffled(FITTED_ROWS, generator)).inputs
        for one in fitted:
            one.fit(inputs)
        held = dict(self.model.named_buffers())
        chosen = self.strategy.agree(lambda: {name: value.cpu() for name, value in held.items()})
        for name, value in held.items():
            value.copy_(chosen[name])

    def _augmented(self, batch: Batch, *place: int) -> Batch:
        """The batch with changed pictures: the same ones in workers that hold the same rows."""
        if self._augmentation is None:
            return batch
        rank = self.strategy.rank if batch.shares else 0
        return self._augmentation.apply(batch, _hash(self.options.seed, *place, rank, "augment"))

    def _seed(self, *place: int) -> None:
        """Seed what a batch draws at random, in each worker something else."""
        seed = _hash(self.options.seed, *place, self.strategy.rank)
        torch.default_generator.manual_seed(seed)  # takes 32 bits; much faster than all devices
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _step(self, batch: Batch, total: Tensor) -> None:
        """Update the weights with one batch; add the loss of this worker's rows to `total`."""
        self.optimizer.zero_grad(set_to_none=True)
        for piece in self.strategy.pieces(batch.rows, batch.shares):
            self._piece(piece, batch, total)
        if self.options.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm)
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= before:  # a smaller scale: a gradient was infinite, no step
            self.schedule.step()

    def _piece(self, piece: strategies.Piece, batch: Batch, total: Tensor) -> None:
        """Add the gradients of a piece of a batch."""
        whole = piece.rows == slice(0, batch.rows)
        own = batch if whole else batch.select(piece.rows)
        parts: list[Tensor] = []
        with self.strategy.syncing(piece):
            with self.strategy.casting():
                output_BC = self._spread(own.inputs)
                for (own_B, part), (all_B, _) in zip(own.truths, batch.truths, strict=True):
                    loss = self._loss(output_BC, own_B)
                    share = self._share(own_B, all_B, batch) * part / piece.copies
                    total.add_(loss.detach() * (share * batch.rows))
                    # a group takes the mean of its workers' gradients, but here they add up
                    factor = share * self.strategy.size
                    parts.append(loss if factor == 1 else loss * factor)
            self._backward(self.scaler.scale(functools.reduce(operator.add, parts)))

    def _loss(self, output_BC: Tensor, target_B: Tensor) -> Tensor:
        """The loss in training, where an ensemble gives the outputs of each member."""
        return self.loss(output_BC, layers.spread(target_B, self.model))

    def _share(self, own_B: Tensor, all_B: Tensor, batch: Batch) -> Tensor | float:
        """How much some rows count in the mean loss of their batch, by the targets of both."""
        if self._weight_C is None or len(own_B) == batch.rows:
            return len(own_B) / batch.rows
        weight = self._weight_C[all_B].sum()
        return self._weight_C[own_B].sum() / (
            self.strategy.total(weight) if batch.shares else weight
        )

    def _backward(self, loss: Tensor) -> None:
        with code.guard("must give gradients", self._custom_loss, self._custom_model):
            loss.backward()

    def _evaluate(self) -> tuple[Tensor, float]:
        """Outputs (B, C) of the validation part, and their mean loss."""
        self.model.eval()
        chunks, total = [], 0.0
        with torch.inference_mode():
            for batch in self.validation_batches():
                count = len(batch.target_B)
                own = self._spread(batch.select(self.strategy.share(count)).inputs)
                chunks.append(self.strategy.joined(own, count))
                total += float(self.loss(chunks[-1], batch.target_B)) * count
        return torch.cat(chunks), total / len(self._validation.target_B)

    def _weights(self) -> dict[str, Tensor]:
        """A copy of what this worker holds of the weights; none if another one saves them."""
        held = self.model.state_dict() if self.strategy.saves else {}
        return tensors.on_host((name, self.strategy.to_local(one)) for name, one in held.items())

    def _class_weights(self, targets: np.ndarray) -> Tensor | None:
        weight_C = losses.class_weights(self.options, targets, self._task.width)
        return None if weight_C is None else torch.from_numpy(weight_C).to(self.device)

    def _load(self, inputs: features.Inputs, targets: np.ndarray) -> Batch:
        scaled = arrays.tensor(self._task.scaled(targets, self._scale))
        tensors = {name: arrays.tensor(value).to(self.device) for name, value in inputs.items()}
        return Batch(tensors, scaled.to(self.device))


def _hash(*parts: object) -> int:
    """32 bits."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest())


def build_optimizer(train: spec.Train, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """The optimizer that `train` names."""
    shared: dict[str, Any] = {"lr": train.lr, "weight_decay": train.weight_decay}
    if train.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=train.momentum, **shared)
    adam = torch.optim.AdamW if train.optimizer == "adamw" else torch.optim.Adam
    return adam(parameters, fused=True, **shared)


def _schedule(
    train: spec.Train, optimizer: torch.optim.Optimizer, steps: int
) -> lr_scheduler.LRScheduler:
    """The learning rate by step; `one_cycle` is Smith's, in torch's two-phase form."""
    if train.schedule == "one_cycle":
        return lr_scheduler.OneCycleLR(optimizer, max_lr=train.lr, total_steps=steps + 1)
    if train.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    if train.schedule == "linear":
        return lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    return lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=1)
