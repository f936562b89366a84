"""The training loop of torch: a learner, see `learner.Learner`.

An epoch's randomness (row order, dropout) comes from the seed and the epoch's number alone, and
within the epoch from the generators' state, so a training that is interrupted between any two
batches and resumed equals one that was not, to the bit.

Legend: B batch, C outputs.
"""

import contextlib
import functools
import hashlib
import math
import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from eagleray import code, engines, errors, spec
from eagleray.learn import arrays, features, losses, models, optimizers, tasks
from eagleray.learn.columns import NUMERIC
from eagleray.learn.models import layers
from eagleray.state.watches import Row
from eagleray.storage import streams
from ray_jobs import averages, learner, schedules, snapshots, strategies, tensors, watches
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
    peak: float | None  # largest mean loss of a batch
    broken: int | None  # first batch, from 1, whose loss is not finite
    layers: list[Row]  # what was watched of them


class Trainer(learner.Learner):
    """One configuration in training.

    `metric` selects the best epoch; it is a name of `eagleray.learn.metrics`. `strategy` says where
    and in how many workers. `custom` has the user's code by its name in the file.

    Raises:
        UserError: the model or the loss does not fit the data.
    """

    grows = False
    batched = True
    packs = True  # whether several can be trained in one pass

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
        self._custom_optimizer = custom.get(configuration.train.optimizer)
        self.options, self.data, self.metric = configuration.train, data, metric
        self.strategy = strategy or strategies.OneProcess()
        self.device = self.strategy.device
        self.progress, self.partial = learner.Progress(), learner.Partial()
        self._task = tasks.of(data.target)
        self._scale = self._task.scale(data.train.targets)
        torch.manual_seed(self.options.seed)
        model, shape = configuration.model, data.transforms.shape
        built = _build(model, shape, self._task, self._custom_model)
        self.model, targets = built.to(self.device), data.train.targets
        place = {"rank": self.strategy.rank, "size": self.strategy.size}
        self._train = data.train.reader(self._load, **place, chance_B=self._chances(targets))
        self._augmentation = Augmentation.of(configuration, data.transforms.images)
        self._fit()
        self._spread = self.strategy.spread(self.model)
        self.loss = losses.build(self.options, data.target, targets, custom=self._custom_loss)
        self._weight_C = self._class_weights(targets)
        self._validation = self._load(data.validation.inputs, data.validation.targets)
        self.parameters = list(self.model.parameters())
        self.optimizer = optimizers.build(
            self.options, self.parameters, custom=self._custom_optimizer
        )
        whole, rest = divmod(len(self._train), self.options.batch_size)
        steps = max(1, whole + (rest > 1))  # of an epoch, as `batches` has them
        self.schedule = schedules.Schedule(self.options, self.optimizer, steps)
        self._steps = steps
        scaled = self.strategy.precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        # a loss that is not finite ends a training at once, where nobody waits to be told
        self._strict = self.strategy.size == 1 and self.device.type == "cpu" and not scaled
        ema = self.options.ema
        self.averages = averages.Averages(ema, self._held()) if ema else None
        self.watch = watches.Layers(self.model, self.strategy.total_of_parts)
        self.watched_batch = max(0, whole - 1)  # the last whole one
        self._done = self.partial  # what was seen of the epoch that is evaluated
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
        output_BC, loss, dead = self._evaluate()
        seconds, done = time.perf_counter() - began, self._done
        rows = watches.filled(done.layers, self.progress.epoch + 1, dead)
        return self.record(
            Pass(train_loss, output_BC, loss, seconds, done.peaks[0], done.broken[0], rows)
        )

    def train(self, stop: Callable[[], bool] = lambda: False) -> float | None:
        """Train on the batches that are left; return the mean loss of the rows, None if stopped."""
        self.model.train()
        before, rows = self.partial, self.partial.layers
        batches, count = before.batches, before.rows
        total = torch.tensor(before.loss if self.strategy.leads else 0.0, device=self.device)
        seen = watches.Losses(self.strategy.total, batches, before.peaks, before.broken)
        stopped, watched = False, self.watched_batch if self.is_watched else -1
        for batch in self.batches(self.progress.epoch + 1):
            if batches > before.batches and (stopped := self.strategy.stopped(stop)):
                break
            loss, found = self._step(batch, total, watch=batches == watched)
            rows = found or rows
            seen.add(loss, batch.rows)
            count += batch.rows
            batches += 1
        summed = float(self.strategy.total(total))
        partial = learner.Partial(batches, summed, count, 0.0, *seen.found(), rows)
        if stopped:
            self.partial = partial
            return None
        self.partial, self._done = learner.Partial(), partial
        return summed / count

    @property
    def is_watched(self) -> bool:
        """Whether layers are measured in the next epoch."""
        return watches.is_due(self.progress.epoch + 1, self.options.epochs, self._steps)

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
            place = f", from batch {done.broken} on" if done.broken else ""
            law = f"loss must be finite, but is {done.train_loss} in epoch {number}{place}"
            raise errors.TrainingError(law)
        truth, raw_BC = self.data.validation.targets, done.output_BC.double().cpu().numpy()
        target, scale = self.data.target, self._scale
        found = learner.evaluate(target, scale, truth, raw_BC, epoch=number)
        found |= {"loss": done.loss} if math.isfinite(done.loss) else {}
        found |= {} if done.peak is None else {"peak_loss": done.peak}
        found |= {"train_loss": done.train_loss, "seconds": done.seconds}
        found = self.strategy.agree(lambda: found)  # of which the end of a training follows
        if self.progress.add(found, self.metric, self.options):
            self.best_weights = self._weights()
        self.progress.layers += done.layers
        self.schedule.end_epoch(self.progress)
        return found

    def probe(self) -> None:
        """Run training on a batch, evaluation and serving; updates no weight."""
        self.model.train()
        batch = next(self.batches(1))
        self._backward(self._loss(self.model(batch.inputs), batch.target_B))
        if self._custom_optimizer is not None:
            optimizers.check(self._custom_optimizer, self.options, self.parameters)
        self.optimizer.zero_grad(set_to_none=True)
        self.model.eval()
        with torch.inference_mode():
            self.loss(self.model(batch.inputs), batch.target_B)
            self.model(batch.select(slice(1)).inputs)

    def outputs(self) -> np.ndarray:
        self.model.load_state_dict(self.best_weights)
        if self.averages is not None:  # else those of the last epoch would take their places
            self.averages = averages.Averages(self.options.ema, self._held(), self.averages.steps)
        raw_BC = self._evaluate()[0].double().cpu().numpy()
        return self._task.rescaled(raw_BC, self._scale, self._task.unit)

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
        task: tasks.Task,
        weights: tensors.Reader,
        *,
        custom: code.Code | None = None,
    ) -> engines.Engine:
        from eagleray.engines.torch import Torch

        model = _build(options, transforms.shape, task, custom)
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
        self._place = place
        seed = _hash(self.options.seed, *place, self.strategy.rank)
        torch.default_generator.manual_seed(seed)  # takes 32 bits; much faster than all devices
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _step(self, batch: Batch, total: Tensor, *, watch: bool) -> tuple[Tensor, list[Row]]:
        """Update the weights with one batch; add the loss of this worker's rows to `total`.

        Returns:
            This loss, and what was measured of the layers if they are to be watched.
        """
        self.optimizer.zero_grad(set_to_none=True)
        pieces = self.strategy.pieces(batch.rows, batch.shares)
        first, *others = [self._piece(piece, batch, total) for piece in pieces]
        begun = self._begin_watch() if watch else None
        if self.options.clip_norm is not None:
            if begun is None:
                self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.options.clip_norm)
        before = self.scaler.get_scale()
        with code.guard("must step", self._custom_optimizer):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= before:  # a smaller scale: a gradient was infinite, no step
            self.schedule.step()
            if self.averages is not None:
                self.averages.update(self._held())
        rows = self.watch.end(begun, self._one()) if begun else [[]]
        return sum(others, first), rows[0]

    def _piece(self, piece: strategies.Piece, batch: Batch, total: Tensor) -> Tensor:
        """Add the gradients of a piece of a batch, and return its part of the batch's loss."""
        whole = piece.rows == slice(0, batch.rows)
        own = batch if whole else batch.select(piece.rows)
        parts: list[Tensor] = []
        done: list[Tensor] = []  # parts of the batch's loss
        with self.strategy.syncing(piece):
            with self.strategy.casting():
                output_BC = self._spread(own.inputs)
                for (own_B, part), (all_B, _) in zip(own.truths, batch.truths, strict=True):
                    loss = self._loss(output_BC, own_B)
                    if self._strict and not math.isfinite(float(loss.detach())):
                        raise errors.TrainingError(self._blame(own.inputs, float(loss.detach())))
                    share = self._share(own_B, all_B, batch) * part / piece.copies
                    done.append(loss.detach() * (share * batch.rows))
                    # a group takes the mean of its workers' gradients, but here they add up
                    factor = share * self.strategy.size
                    parts.append(loss if factor == 1 else loss * factor)
            self._backward(self.scaler.scale(functools.reduce(operator.add, parts)))
        found: Tensor = functools.reduce(operator.add, done)
        total.add_(found)
        return found

    def _begin_watch(self) -> watches.Begun:
        self.scaler.unscale_(self.optimizer)
        local = self.strategy.to_local
        gradients = [None if one.grad is None else local(one.grad)[None] for one in self.parameters]
        return self.watch.begin(gradients, self._one())

    def _one(self) -> list[Tensor]:
        """What this worker holds of the weights, as those of one model of several."""
        return [one[None] for one in self._held()]

    def _held(self) -> list[Tensor]:
        return [self.strategy.to_local(one.detach()) for one in self.parameters]

    def _blame(self, inputs: dict[str, Tensor], loss: float) -> str:
        epoch, place = self._place
        cause = watches.blame(self.model, inputs)
        law = f"loss must be finite, but is {loss} in epoch {epoch}, batch {place + 1}"
        return f"{law}: {cause}"

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

    def _evaluate(self) -> tuple[Tensor, float, dict[str, float]]:
        """Outputs (B, C) of the validation part, their mean loss, and dead units by layer."""
        self.model.eval()
        chunks, total, firing = [], 0.0, watches.Firing(self.model)
        with self._averaged(), torch.inference_mode(), contextlib.ExitStack() as first:
            if self.is_watched:
                first.enter_context(firing)
            for batch in self.validation_batches():
                count = len(batch.target_B)
                own = self._spread(batch.select(self.strategy.share(count)).inputs)
                first.close()
                chunks.append(self.strategy.joined(own, count))
                total += float(self.loss(chunks[-1], batch.target_B)) * count
            dead = watches.dead(firing.take(), self.strategy.total)
        return torch.cat(chunks), total / len(self._validation.target_B), dead

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Have the averages as weights in the block, if there are some."""
        if self.averages is None:
            yield
            return
        with self.averages.swapped(self._held()):
            self.strategy.replaced()
            yield
        self.strategy.replaced()

    def _weights(self) -> dict[str, Tensor]:
        """A copy of what this worker holds of the weights or their averages.

        None if another one saves them.
        """
        held = self.model.state_dict(keep_vars=True) if self.strategy.saves else {}
        means = self.averages.values if self.averages else []
        known = {id(one): mean for one, mean in zip(self.parameters, means, strict=bool(means))}
        return tensors.on_host(
            (name, known.get(id(one), self.strategy.to_local(one))) for name, one in held.items()
        )

    def _class_weights(self, targets: np.ndarray) -> Tensor | None:
        weight_C = losses.class_weights(self.options, targets, self._task)
        return None if weight_C is None else torch.from_numpy(weight_C).to(self.device)

    def _chances(self, targets: np.ndarray) -> np.ndarray | None:
        """How likely each row is drawn (B); None where each is trained on once an epoch."""
        if self.options.sampling == "none":
            return None
        chance_B: np.ndarray = 1 / np.bincount(targets)[targets]
        return chance_B

    def _load(self, inputs: features.Inputs, targets: np.ndarray) -> Batch:
        scaled = arrays.tensor(self._task.scaled(targets, self._scale))
        tensors = {name: arrays.tensor(value).to(self.device) for name, value in inputs.items()}
        return Batch(tensors, scaled.to(self.device))


def _hash(*parts: object) -> int:
    """32 bits."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest())


def _build(
    options: models.Options, shape: features.Shape, task: tasks.Task, custom: code.Code | None
) -> nn.Module:
    has_values = task.kind is NUMERIC
    return models.build(options, shape, task.width, values=has_values, custom=custom)
