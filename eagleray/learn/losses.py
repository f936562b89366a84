"""Losses by name. Torch is imported only to build one. Legend: B batch, C outputs of the model.

A loss is added as a function that builds it and a line in `REGISTRY`; by an installed package
(`eagleray.plugins`) with `REGISTRY.register`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eagleray import errors, plugins
from eagleray.learn import tasks

if TYPE_CHECKING:
    from torch import Tensor

    from eagleray import code, spec
    from eagleray.learn import schema

    Function = Callable[[Tensor, Tensor], Tensor]
    """Takes outputs (B, C) and targets (B,) and gives a scalar."""

FOCUS = 2.0
"""Gamma of the focal loss, the value its authors recommend (Lin et al. 2017, arXiv:1708.02002)."""


@dataclass(frozen=True)
class Loss:
    """A loss by name.

    Attributes:
        tasks: names of the tasks that it fits.
        build: builds it from the `train` section, the targets of the training part, and C.
        options: keys of `train` that this loss reads and some others do not.
        weighted: whether a row counts by its class (`class_weights`) in the mean of a batch.
        objective: gives LightGBM's parameters that make this its loss, from C; None if it has none.
    """

    tasks: frozenset[str]
    build: Callable[[spec.Train, np.ndarray, int], Function]
    options: frozenset[str] = frozenset()
    weighted: bool = False
    objective: Callable[[int], dict[str, Any]] | None = None


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
    name = task.loss if train.loss == "auto" else train.loss
    if name not in fitting(type(task)):
        raise errors.UserError(f"train.loss must fit the task, but got {name}")
    return REGISTRY[name].build(train, targets, task.width)


def build_stacked(train: spec.Train, target: schema.Target) -> Function | None:
    """Build the loss of K models at once, from outputs (K, B, C) to (K); None: vmap does as well.

    torch.func decomposes torch's cross entropy into operations that Python calls one by one.
    """
    named = train.loss in ("auto", "cross_entropy") and tasks.of(target).loss == "cross_entropy"
    return _stacked_cross_entropy if named and not train.label_smoothing else None


def class_weights(train: spec.Train, targets: np.ndarray, outputs: int) -> np.ndarray | None:
    """How much a row of each class counts (C); None for a loss whose rows count the same.

    Weights are by inverse frequency in `targets`; a row's mean is 1, as in scikit-learn.
    """
    if train.loss not in REGISTRY or not REGISTRY[train.loss].weighted:
        return None
    counts_C = np.bincount(targets, minlength=outputs).clip(min=1)
    return (len(targets) / (outputs * counts_C)).astype(np.float32)


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


def _weighted_cross_entropy(train: spec.Train, targets: np.ndarray, outputs: int) -> Function:
    return _smoothed(train.label_smoothing, class_weights(train, targets, outputs))


def _smoothed(smoothing: float, weight_C: np.ndarray | None = None) -> Function:
    import torch
    from torch.nn import functional

    weights: dict[torch.device, Tensor] = {}  # by device

    def loss(logits_BC: Tensor, target_B: Tensor) -> Tensor:
        device = logits_BC.device
        if weight_C is not None and device not in weights:
            weights[device] = torch.from_numpy(weight_C).to(device)
        return functional.cross_entropy(
            logits_BC, target_B, weight=weights.get(device), label_smoothing=smoothing
        )

    return loss


def _stacked_cross_entropy(logits_KBC: Tensor, target_B: Tensor) -> Tensor:
    target_KB1 = target_B.expand(len(logits_KBC), -1)[:, :, None]
    return -logits_KBC.log_softmax(2).gather(2, target_KB1)[:, :, 0].mean(1)


def _focal(logits_BC: Tensor, target_B: Tensor) -> Tensor:
    log_p_B = logits_BC.log_softmax(1).gather(1, target_B[:, None])[:, 0]
    return -((1 - log_p_B.exp()) ** FOCUS * log_p_B).mean()


def _sampled_softmax(_: spec.Train, __: np.ndarray, outputs: int) -> Function:
    """Cross-entropy of an item among others that were drawn evenly, see `layers.Sampled`.

    A drawn item stands for several of I items: its score is corrected by the logarithm of their
    number (Bengio and Senécal 2003; Jean et al. 2015, arXiv:1412.2007).
    """
    import torch

    def loss(score_BN: Tensor, _: Tensor) -> Tensor:
        correction = math.log(max(1.0, (outputs - 1) / (score_BN.shape[1] - 1)))
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


def _entropy(outputs: int) -> dict[str, Any]:
    """LightGBM's softmax; of two classes the logistic loss of the second."""
    if outputs > 2:
        return {"objective": "softmax", "num_class": outputs}
    return {"objective": "xentropy"}


_SMOOTHED = frozenset({"label_smoothing"})
REGISTRY = plugins.Registry(
    "loss",
    {
        "cross_entropy": Loss(
            tasks.CLASSES,
            lambda train, *_: _smoothed(train.label_smoothing),
            _SMOOTHED,
            objective=_entropy,
        ),
        "weighted_cross_entropy": Loss(
            tasks.CLASSES, _weighted_cross_entropy, _SMOOTHED, weighted=True, objective=_entropy
        ),
        "focal": Loss(tasks.CLASSES, lambda *_: _focal),
        "mae": Loss(tasks.VALUES, _of_values("l1_loss"), objective=lambda _: {"objective": "l1"}),
        "mse": Loss(tasks.VALUES, _of_values("mse_loss"), objective=lambda _: {"objective": "l2"}),
        "huber": Loss(
            tasks.VALUES,
            _of_values("huber_loss"),
            objective=lambda _: {"objective": "huber", "alpha": 1.0},  # torch's delta
        ),
        "softmax": Loss(tasks.RANKING, _sampled_softmax),
        "bpr": Loss(tasks.RANKING, lambda *_: _bpr),
    },
)
