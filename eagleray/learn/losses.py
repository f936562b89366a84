"""Losses by name. Torch is imported only to build one. Legend: B batch, C outputs of the model.

A loss is added as a function that builds it and a line in `REGISTRY`; by an installed package
(`eagleray.plugins`) with `REGISTRY.register`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eagleray import errors, names, plugins
from eagleray.learn import tasks
from eagleray.learn.columns import values
from eagleray.learn.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor

    from eagleray import code, spec
    from eagleray.learn import schema

    Function = Callable[[Tensor, Tensor], Tensor]
    """Takes outputs (B, C) and targets (B,) and gives a scalar."""


@dataclass(frozen=True)
class Loss:
    """A loss by name.

    Attributes:
        tasks: names of the tasks that it fits.
        build: builds it from the `train` section, the targets of the training part, and the task.
        options: keys of `train` that this loss reads and some others do not.
        weighted: whether classes count the same in all where `train.class_weights` is not set.
        proper: whether it is a proper scoring rule, lowest at the true probabilities.
        objectives: gives LightGBM's parameters that make this its loss: one booster for all
            outputs, or one for each. None if it has none.
    """

    tasks: frozenset[str]
    build: Callable[[spec.Train, np.ndarray, Task], Function]
    options: frozenset[str] = frozenset()
    weighted: bool = False
    proper: bool = False
    objectives: Callable[[Task], Sequence[dict[str, Any]]] | None = None


def build(
    train: spec.Train,
    target: schema.Target,
    targets: np.ndarray,
    *,
    custom: code.Code | None = None,
) -> Function:
    """The loss that `train` names, or the user's (`custom`); class weights come from `targets`.

    Raises:
        UserError: a loss that does not fit the task.
        CodeError: the user's module fails to import; when called, the user's loss fails.
    """
    if custom is not None:
        return _own(custom)
    task = tasks.of(target)
    name = named(train, task)
    if name not in fitting(type(task)):
        raise errors.UserError(f"train.loss must fit the task, but got {name}")
    return REGISTRY[name].build(train, targets, task)


def named(train: spec.Train, task: tasks.Task) -> str:
    """The name of the loss, that of the task for `auto`."""
    return task.loss if train.loss == "auto" else train.loss


def build_stacked(train: spec.Train, target: schema.Target) -> Function | None:
    """Build the loss of K models at once, from outputs (K, B, C) to (K); None: vmap does as well.

    torch.func decomposes torch's cross entropy into operations that Python calls one by one.
    """
    task = tasks.of(target)
    plain = train.class_weights == "none" and not train.label_smoothing
    return _stacked_cross_entropy if plain and named(train, task) == "cross_entropy" else None


def class_weights(train: spec.Train, targets: np.ndarray, task: tasks.Task) -> np.ndarray | None:
    """How much a row of each class counts (C); None for a loss whose rows count the same.

    Balanced weights are by inverse frequency in `targets`; a row's mean is 1, as in scikit-learn.
    A class that the file gives no weight counts 1.
    """
    name, chosen = named(train, task), train.class_weights
    if name not in REGISTRY or WEIGHTS not in REGISTRY[name].options:
        return None
    if isinstance(chosen, Mapping):
        given = {values.category(label): weight for label, weight in chosen.items()}
        return np.array([given.get(one, 1.0) for one in task.target.classes], np.float32)
    if chosen == "none" and not REGISTRY[name].weighted:
        return None
    counts_C = np.bincount(targets, minlength=task.width).clip(min=1)
    return (len(targets) / (task.width * counts_C)).astype(np.float32)


def distorts(train: spec.Train, task: tasks.Task) -> bool:
    """Whether class weights, sampling or the loss shift probabilities from those in the data."""
    name = named(train, task)
    weighted = train.class_weights != "none" or train.sampling != "none"
    return weighted or name not in REGISTRY or not REGISTRY[name].proper


def misfits(chosen: Sequence[object], target: schema.Target) -> Iterator[str]:
    """Yield a message for each value of `train.class_weights` that does not fit the target."""
    for one in chosen:
        if one != "none" and not target.classes:
            law = "must be left out unless the target has classes"
            yield f"train.{WEIGHTS}: {law}, but the task is {target.task}"
        for label in one if isinstance(one, Mapping) and target.classes else ():
            if values.category(label) not in target.classes:
                near = names.near(label, target.classes)
                yield f"train.{WEIGHTS}: must be of classes, but got {label!r}{near}"


def fitting(task: type[tasks.Task]) -> list[str]:
    """Names of the losses that fit a task."""
    own = [name for name in REGISTRY if task.name in REGISTRY[name].tasks]
    return [*own, *sorted(task.losses)]


def _own(custom: code.Code) -> Function:
    """Check the contract of the user's loss at each call."""
    from torch import Tensor

    from eagleray import code

    function = custom.load()

    def loss(output_BC: Tensor, target_B: Tensor) -> Tensor:
        with code.guard("must give a loss", custom):
            value = function(output_BC, target_B)
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise errors.CodeError(
                f"{custom.name}: must give one number as a tensor, but gave {got}"
            )
        if output_BC.requires_grad and not value.requires_grad:
            raise errors.CodeError(
                f"{custom.name}: must give a loss that follows from the outputs by torch's"
                " functions, but gave one without gradients"
            )
        return value.reshape(())

    return loss


def _cross_entropy(train: spec.Train, targets: np.ndarray, task: tasks.Task) -> Function:
    from torch.nn import functional

    weights = _Constant(class_weights(train, targets, task))
    smoothing = train.label_smoothing

    def loss(logits_BC: Tensor, target_B: Tensor) -> Tensor:
        weight_C = weights.beside(logits_BC)
        return functional.cross_entropy(
            logits_BC, target_B, weight=weight_C, label_smoothing=smoothing
        )

    return loss


class _Constant:
    """An array, or none, as a tensor on the device of another one."""

    def __init__(self, array: np.ndarray | None) -> None:
        self._array, self._by_device = array, dict[Any, "Tensor"]()

    def beside(self, other: Tensor) -> Tensor | None:
        import torch

        device = other.device
        if self._array is not None and device not in self._by_device:
            self._by_device[device] = torch.from_numpy(self._array).to(device)
        return self._by_device.get(device)


def _stacked_cross_entropy(logits_KBC: Tensor, target_B: Tensor) -> Tensor:
    target_KB1 = target_B.expand(len(logits_KBC), -1)[:, :, None]
    return -logits_KBC.log_softmax(2).gather(2, target_KB1)[:, :, 0].mean(1)


def _focal(train: spec.Train, targets: np.ndarray, task: tasks.Task) -> Function:
    """Lin et al. 2017, arXiv:1708.02002; with class weights their equation 5, as a mean."""
    weights, gamma = _Constant(class_weights(train, targets, task)), train.focal_gamma

    def loss(logits_BC: Tensor, target_B: Tensor) -> Tensor:
        log_p_B = logits_BC.log_softmax(1).gather(1, target_B[:, None])[:, 0]
        loss_B, weight_C = -((1 - log_p_B.exp()) ** gamma) * log_p_B, weights.beside(logits_BC)
        if weight_C is None:
            return loss_B.mean()
        weight_B = weight_C[target_B]
        return (weight_B * loss_B).sum() / weight_B.sum()

    return loss


def _quantile(_: spec.Train, __: np.ndarray, task: tasks.Task) -> Function:
    """The mean pinball loss of all quantiles (Koenker and Bassett 1978)."""
    levels = _Constant(np.array(task.target.quantiles, np.float32))

    def loss(output_BC: Tensor, target_B: Tensor) -> Tensor:
        import torch

        level_C, off_BC = levels.beside(output_BC), target_B[:, None] - output_BC
        assert level_C is not None
        return torch.maximum(level_C * off_BC, (level_C - 1) * off_BC).mean()

    return loss


def _sampled_softmax(_: spec.Train, __: np.ndarray, task: tasks.Task) -> Function:
    """Cross-entropy of an item among others that were drawn evenly, see `layers.Sampled`.

    A drawn item stands for several of I items: its score is corrected by the logarithm of their
    number (Bengio and Senécal 2003; Jean et al. 2015, arXiv:1412.2007).
    """
    import torch

    def loss(score_BN: Tensor, _: Tensor) -> Tensor:
        correction = math.log(max(1.0, (task.width - 1) / (score_BN.shape[1] - 1)))
        corrected_BN = torch.cat([score_BN[:, :1], score_BN[:, 1:] + correction], 1)
        return (corrected_BN.logsumexp(1) - score_BN[:, 0]).mean()

    return loss


def _bpr(score_BN: Tensor, _: Tensor) -> Tensor:
    """Bayesian personalised ranking: an item before each other (Rendle et al. 2009)."""
    from torch.nn import functional

    return -functional.logsigmoid(score_BN[:, :1] - score_BN[:, 1:]).mean()


def _of_values(name: str) -> Callable[..., Function]:
    def build(*_: object) -> Function:
        from torch.nn import functional

        loss = getattr(functional, name)
        return lambda output_B1, target_B: loss(output_B1[:, 0], target_B)

    return build


def _entropy(task: tasks.Task) -> list[dict[str, Any]]:
    """LightGBM's softmax; of two classes the logistic loss of the second."""
    if task.width > 2:
        return [{"objective": "softmax", "num_class": task.width}]
    return [{"objective": "xentropy"}]


def _one(objective: str, **options: float) -> Callable[..., list[dict[str, Any]]]:
    return lambda _: [{"objective": objective, **options}]


def _each_quantile(task: tasks.Task) -> list[dict[str, Any]]:
    return [{"objective": "quantile", "alpha": level} for level in task.target.quantiles]


WEIGHTS = "class_weights"
_SMOOTHED = frozenset({"label_smoothing", WEIGHTS})
REGISTRY = plugins.Registry(
    "loss",
    {
        "cross_entropy": Loss(
            tasks.CLASSES,
            _cross_entropy,
            _SMOOTHED,
            proper=True,
            objectives=_entropy,
        ),
        "weighted_cross_entropy": Loss(
            tasks.CLASSES, _cross_entropy, _SMOOTHED, weighted=True, objectives=_entropy
        ),
        "focal": Loss(tasks.CLASSES, _focal, frozenset({"focal_gamma", WEIGHTS})),
        "mae": Loss(tasks.VALUES, _of_values("l1_loss"), objectives=_one("l1")),
        "mse": Loss(tasks.VALUES, _of_values("mse_loss"), objectives=_one("l2")),
        "huber": Loss(
            tasks.VALUES,
            _of_values("huber_loss"),
            objectives=_one("huber", alpha=1.0),  # torch's delta
        ),
        "quantile": Loss(tasks.QUANTILES, _quantile, objectives=_each_quantile),
        "softmax": Loss(tasks.RANKING, _sampled_softmax),
        "bpr": Loss(tasks.RANKING, lambda *_: _bpr),
    },
)
