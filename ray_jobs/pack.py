"""Packs: several configurations of one shape, trained in one pass of one process.

Short trainings of small models are bound by the overhead of each operation. A pack stacks the
weights of its members, so that an operation serves them all (`torch.func`); learning rate, weight
decay, gradient clipping and dropout are each member's own. Members see the same batches, since the
order of rows follows from seed and epoch, and draw the same random numbers; each trains as it does
alone, but for dropout where members differ in its rate.

Legend: K members, B batch, C outputs.
"""

import contextlib
import copy
import functools
import operator
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from eagleray import errors, spec
from eagleray.learn import losses, optimizers
from eagleray.learn.models import layers
from eagleray.state.watches import Row
from ray_jobs import averages, training, watches
from ray_jobs.data.reading import Batch

Fired = dict[str, list[Tensor]]
"""By layer, see `watches.Firing`."""


def key(configuration: spec.Configuration) -> str:
    """A string that is equal for configurations that can be trained in one pass."""
    alike = configuration.model_dump(mode="json")
    for name in configuration.train.alike:
        alike["train"].pop(name)
    for name in configuration.model.rates:
        alike["model"].pop(name)
    clips = configuration.train.clip_norm is not None
    return repr((clips, alike))


def epoch(trainers: Sequence[training.Trainer]) -> list[training.Pass]:
    """Train one epoch of trainers that have one `key` and one epoch; record it with each.

    If it raises, no trainer has changed.

    Raises:
        UserError: the model must be trained alone.
    """
    if any(isinstance(layer, _BatchNorm) for layer in trainers[0].model.modules()):
        raise errors.UserError("batch norm turns rounding into other results")
    named = trainers[0].options.optimizer
    if named not in optimizers.REGISTRY or not optimizers.REGISTRY[named].proportional:
        raise errors.UserError(f"steps of {named} may not be proportional to the learning rate")
    began, pack = time.perf_counter(), _Pack(trainers)
    train_loss_K = pack.train()
    output_KBC, loss_K = pack.evaluate()
    pack.unstack()
    seconds = (time.perf_counter() - began) / len(trainers)
    times, seen = [seconds] * len(trainers), pack.seen.found()
    lists = (train_loss_K.tolist(), output_KBC, loss_K.tolist(), times, *seen, pack.rows)
    return [training.Pass(*row) for row in zip(*lists, strict=True)]


class Rate(nn.Module):
    """Dropout whose rate is a buffer, so that it can be stacked; members share random numbers."""

    rate: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.register_buffer("rate", torch.tensor(rate))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = torch.rand(x.shape, device=x.device) >= self.rate
        return x * kept / (1 - self.rate)


class _Pack:
    """The stacked weights of trainers, for one epoch."""

    def __init__(self, trainers: Sequence[training.Trainer]) -> None:
        self._trainers, self._first = trainers, trainers[0]
        models = [one.model for one in trainers]
        self._model, rates = _with_rates(models, self._first.device)
        self._columns = _linear_weights(models[0])
        self._parameters = _alike([dict(one.named_parameters()) for one in models])
        self._buffers = _alike([dict(one.named_buffers()) for one in models])
        stacked = {name: self._stack(name, same) for name, same in self._parameters.items()}
        leaves = {
            name: self._turned(name, one).requires_grad_(self._parameters[name][0].requires_grad)
            for name, one in stacked.items()
        }
        buffers = {name: torch.stack(same) for name, same in self._buffers.items()}
        self._stacked, self._leaves = list(stacked.values()), list(leaves.values())
        self._tensors = leaves | buffers | rates
        loss = losses.build_stacked(self._first.options, self._first.data.target)
        self._loss = loss or vmap(self._first.loss, in_dims=(0, None))
        self._optimizer = self._stacked_optimizer()
        self._averages = self._stacked_averages()
        self._watch, self.seen = self._first.watch, watches.Losses(lambda value: value)
        self.rows: list[list[Row]] = [[] for _ in trainers]  # what was watched of each member
        for one in trainers:
            one.optimizer.zero_grad(set_to_none=True)
            if not one.schedule.begun:
                one.optimizer.step()  # changes nothing, but its schedule waits for it
        self._lr = self._shaped([one.options.lr * one.schedule.scale for one in trainers])
        self._decay = self._own("weight_decay")
        self._decays = any(one.options.weight_decay for one in trainers)
        clips = self._first.options.clip_norm is not None
        self._clip_K = self._own("clip_norm")[0].flatten() if clips else None

    def train(self) -> Tensor:
        """Train on all batches; return the mean loss of each member's rows (K)."""
        self._model.train()
        total_K, count = torch.zeros(len(self._trainers), device=self._first.device), 0
        watched = self._first.watched_batch if self._first.is_watched else -1
        for place, batch in enumerate(self._first.batches(self._first.progress.epoch + 1)):
            loss_K = self._step(batch, watch=place == watched)
            loss_K *= len(batch.target_B)
            total_K += loss_K
            self.seen.add(loss_K, len(batch.target_B))
            count += len(batch.target_B)
        return total_K / count

    def evaluate(self) -> tuple[Tensor, Tensor]:
        """Outputs (K, B, C) of the validation part, and their mean losses (K)."""
        self._model.eval()
        outputs, total_K, count = [], torch.zeros_like(self._lr[0].flatten()), 0
        tensors, firing, noted = self._evaluated(), watches.Firing(self._model), Fired()
        with torch.no_grad(), contextlib.ExitStack() as first:
            if self._first.is_watched:
                first.enter_context(firing)
            for batch in self._first.validation_batches():
                output_KBC, loss_K, fired = self._forward(batch, tensors, firing)
                noted = noted or fired
                first.close()
                outputs.append(output_KBC)
                total_K += loss_K * len(batch.target_B)
                count += len(batch.target_B)
        self._note(noted)
        return torch.cat(outputs, 1), total_K / count

    @torch.no_grad()
    def unstack(self) -> None:
        """Write weights, buffers and the optimizer's state back into the trainers."""
        for name, same in (self._parameters | self._buffers).items():
            for value, row in zip(same, self._tensors[name].unbind(), strict=True):
                value.copy_(row)
        for stacked, (name, same) in zip(self._stacked, self._parameters.items(), strict=True):
            for field, value in self._optimizer.state[stacked].items():
                shared = _is_shared(value, stacked)
                rows = [value] * len(same) if shared else self._turned(name, value).unbind()
                for one, own, row in zip(self._trainers, same, rows, strict=True):
                    like = row if shared else own  # as its optimizer would have it in memory
                    one.optimizer.state[own][field] = torch.empty_like(like).copy_(row)
        if self._averages is not None:
            for place, (name, mean) in enumerate(
                zip(self._parameters, self._averages.values, strict=True)
            ):
                for one, row in zip(self._trainers, self._turned(name, mean).unbind(), strict=True):
                    assert one.averages is not None
                    one.averages.values[place].copy_(row)
                    one.averages.steps = self._averages.steps

    def _step(self, batch: Batch, *, watch: bool) -> Tensor:
        """Update the weights with one batch; return its losses (K)."""
        for leaf in self._leaves:
            leaf.grad = None
        _, loss_K, _ = self._forward(batch, self._tensors)
        loss_K.sum().backward()
        with torch.no_grad():
            for name, leaf, stacked in zip(
                self._parameters, self._leaves, self._stacked, strict=True
            ):
                stacked.grad = None if leaf.grad is None else self._turned(name, leaf.grad)
            begun = None
            if watch:
                grads = [one.grad for one in self._stacked]
                begun = self._watch.begin(grads, self._stacked)
            self._clip()
            self._update()
            if self._averages is not None:
                self._averages.update(self._stacked)
            if begun is not None:
                self.rows = self._watch.end(begun, self._stacked)
        for trainer in self._trainers:
            trainer.schedule.step()
        return loss_K.detach()

    def _forward(
        self,
        batch: Batch,
        tensors: dict[str, Tensor],
        firing: watches.Firing | None = None,
    ) -> tuple[Tensor, Tensor, Fired]:
        """Outputs (K, B, C), losses (K), and how often units fired (K, U)."""

        def one(tensors: dict[str, Tensor]) -> tuple[Tensor, Fired]:
            output_BC: Tensor = functional_call(self._model, tensors, (batch.inputs,))
            return output_BC, firing.take() if firing else {}

        output_KBC, fired = vmap(one, randomness="same")(tensors)
        parts = [
            self._loss(output_KBC, layers.spread(target_B, self._model)) * part
            for target_B, part in batch.truths
        ]
        return output_KBC, functools.reduce(operator.add, parts), fired

    def _note(self, fired: Fired) -> None:
        """Fill in which part of each member's units is dead."""
        epoch = self._first.progress.epoch + 1
        for k, rows in enumerate(self.rows):
            own = {layer: [one[k] for one in counts] for layer, counts in fired.items()}
            self.rows[k] = watches.filled(rows, epoch, watches.dead(own, lambda value: value))

    def _evaluated(self) -> dict[str, Tensor]:
        """The tensors of an evaluation: averages in place of weights, if there are some."""
        if self._averages is None:
            return self._tensors
        named = zip(self._parameters, self._averages.values, strict=True)
        return self._tensors | {name: self._turned(name, mean) for name, mean in named}

    def _clip(self) -> None:
        if self._clip_K is None:
            return
        grads = [one.grad for one in self._stacked if one.grad is not None]
        norm_K = torch.stack([grad.flatten(1).norm(dim=1) for grad in grads]).norm(dim=0)
        scale_K = (self._clip_K / (norm_K + 1e-6)).clamp(max=1.0)  # as torch's clip_grad_norm_
        for grad in grads:
            grad.mul_(_shaped(scale_K, grad))

    def _update(self) -> None:
        """A step of the optimizer with a rate of 1, then each member's own part of it.

        All steps of these optimizers are proportional to the learning rate, and so is decoupled
        weight decay; the other one is a part of the gradient.
        """
        group = self._first.optimizer.param_groups[0]
        whole = self._first.options.lr * self._first.schedule.scale
        factor = group["lr"] / whole  # of the schedule, which members share
        cycled: dict[str, Any] = {
            name: group[name] for name in ("betas", "momentum") if name in group
        }
        self._optimizer.param_groups[0].update(cycled)
        decoupled = optimizers.REGISTRY[self._first.options.optimizer].decoupled
        before = [one.clone() for one in self._stacked]
        if self._decays and not decoupled:
            for one, decay in zip(self._stacked, self._decay, strict=True):
                if one.grad is not None:
                    one.grad.addcmul_(one, decay)
        self._optimizer.step()
        for one, old, lr, decay in zip(self._stacked, before, self._lr, self._decay, strict=True):
            torch.lerp(old, one, lr * factor, out=one)
            if self._decays and decoupled:
                one.addcmul_(old, decay * lr, value=-factor)

    def _stacked_optimizer(self) -> torch.optim.Optimizer:
        options = self._first.options.model_copy(update={"lr": 1.0, "weight_decay": 0.0})
        optimizer = optimizers.build(options, self._stacked)
        for stacked, (name, same) in zip(self._stacked, self._parameters.items(), strict=True):
            pairs = zip(self._trainers, same, strict=True)
            states = [one.optimizer.state[own] for one, own in pairs]
            for field, value in states[0].items():
                shared = _is_shared(value, same[0])
                rows = [state[field] for state in states]
                optimizer.state[stacked][field] = (
                    value.clone() if shared else self._stack(name, rows)
                )
        return optimizer

    def _stacked_averages(self) -> averages.Averages | None:
        held = [one.averages for one in self._trainers if one.averages is not None]
        if not held:
            return None
        stacked = [
            self._stack(name, [one.values[place] for one in held])
            for place, name in enumerate(self._parameters)
        ]
        return averages.Averages(self._first.options.ema, stacked, held[0].steps)

    def _stack(self, name: str, same: Sequence[Tensor]) -> Tensor:
        """Stack a parameter, or a moment of the optimizer, of all members.

        Weights of linear layers are stacked transposed, as torch computes their gradients: in
        another order these would be copied in each step.
        """
        return torch.stack([self._turned(name, one.detach()) for one in same])

    def _turned(self, name: str, value: Tensor) -> Tensor:
        """A parameter as it is stacked, or a stacked one as its layer has it."""
        return value.mT if name in self._columns else value.view_as(value)

    def _own(self, name: str) -> list[Tensor]:
        """An option of each member, shaped to multiply what is stacked."""
        return self._shaped([getattr(one.options, name) for one in self._trainers])

    def _shaped(self, values: Sequence[float]) -> list[Tensor]:
        value_K = torch.tensor(values, device=self._first.device)
        return [_shaped(value_K, one) for one in self._stacked]


def _with_rates(
    models: Sequence[nn.Module], device: torch.device
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the model without weights, and the dropout rates (K) in which members differ."""
    model, rates = copy.deepcopy(models[0]).to("meta"), {}
    for name, layer in models[0].named_modules():
        if isinstance(layer, nn.Dropout):
            same = [one.get_submodule(name).p for one in models]
            if len(set(same)) > 1:
                model.set_submodule(name, Rate(layer.p))
                rates[f"{name}.rate"] = torch.tensor(same, device=device)
    return model, rates


def _linear_weights(model: nn.Module) -> set[str]:
    modules = model.named_modules()
    return {f"{name}.weight" for name, one in modules if isinstance(one, nn.Linear)}


def _alike(named: Sequence[dict[str, Tensor]]) -> dict[str, list[Tensor]]:
    """By name, the tensors of all members."""
    return {name: [one[name] for one in named] for name in named[0]}


def _is_shared(state: Tensor, parameter: Tensor) -> bool:
    """Whether a tensor of an optimizer's state is for a whole parameter, as the count of steps."""
    return state.dim() == 0 and parameter.dim() > 0


def _shaped(value_K: Tensor, stacked: Tensor) -> Tensor:
    return value_K.reshape(-1, *[1] * (stacked.dim() - 1))
