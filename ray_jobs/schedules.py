"""The learning rate: by step, and lower after epochs without a better metric."""

from typing import Any

import torch
from torch.optim import lr_scheduler

from eagleray import spec
from eagleray.learn import optimizers
from ray_jobs import learner

PLAIN_TYPES = (int, float, str, list)
"""Types that are saved of torch's schedules; the configuration gives their functions."""


class Schedule:
    """The learning rates of an optimizer's groups, all proportional to `base_lrs`.

    `steps` are those of an epoch. In the first `train.warmup` epochs rates rise linearly, and the
    schedule follows over the other steps; of `one_cycle`, which rises by itself, that is the length
    of its first phase.

    Attributes:
        scale: the part of the rates that plateaus have left.
    """

    def __init__(self, train: spec.Train, optimizer: torch.optim.Optimizer, steps: int) -> None:
        total = steps * train.epochs
        warm = min(round(train.warmup * steps), total - 1)
        self._train, self._optimizer = train, optimizer
        self._rise = 0 if train.schedule == "one_cycle" else warm  # steps of the warm-up
        self._after = _after(train, optimizer, total - self._rise, warm)
        self._warmed = 0  # steps of the warm-up that are done
        self._cut = 0  # epoch from which a plateau is counted
        self.scale = 1.0
        if self._rise:
            self._ramp()

    @property
    def base_lrs(self) -> list[Any]:
        return self._after.base_lrs

    @base_lrs.setter
    def base_lrs(self, rates: list[Any]) -> None:
        self._after.base_lrs = rates

    @property
    def begun(self) -> bool:
        """Whether torch's schedule has made a step; it warns if no optimizer did before it."""
        return self._after.last_epoch > 0

    def step(self) -> None:
        """Called after each step of the optimizer."""
        if self._warmed < self._rise:
            self._warmed += 1
            self._ramp()
        else:
            self._after.step()

    def end_epoch(self, progress: learner.Progress) -> None:
        """Called after each epoch: under `plateau`, lower the rates if the metric stays."""
        if self._train.schedule != "plateau":
            return
        if self._warmed < self._rise:
            self._cut = progress.epoch
        elif (
            progress.epoch - max(progress.improved_epoch, self._cut) >= self._train.plateau.patience
        ):
            self._cut = progress.epoch
            self.scale *= self._train.plateau.factor
            for group in self._optimizer.param_groups:
                group["lr"] *= self._train.plateau.factor

    def state_dict(self) -> dict[str, Any]:
        """The state as values for JSON."""
        state = self._after.state_dict().items()
        own = {"warmed": self._warmed, "cut": self._cut, "scale": self.scale}
        return {name: one for name, one in state if isinstance(one, PLAIN_TYPES)} | {"own": own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        own = state.get("own", {})  # none in states of earlier releases
        rest = {name: value for name, value in state.items() if name != "own"}
        self._after.load_state_dict(self._after.state_dict() | rest)
        self._warmed, self._cut = own.get("warmed", 0), own.get("cut", 0)
        self.scale = own.get("scale", 1.0)

    def _ramp(self) -> None:
        share = (self._warmed + 1) / (self._rise + 1)
        for group, base in zip(self._optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * share


def _after(
    train: spec.Train, optimizer: torch.optim.Optimizer, steps: int, warm: int
) -> lr_scheduler.LRScheduler:
    """Torch's schedule of so many steps; `one_cycle` is Smith's, in torch's two-phase form."""
    if train.schedule == "one_cycle":
        known = optimizers.REGISTRY
        return lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=steps + 1,
            pct_start=(warm + 1) / (steps + 1) if train.warmup else 0.3,
            cycle_momentum=train.optimizer in known and known[train.optimizer].cycled,
        )
    if train.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    if train.schedule == "linear":
        return lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    return lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=1)
