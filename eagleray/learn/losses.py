"""Losses by name.

Legend: B batch, C classes. A loss takes outputs (B, C) and targets (B,) and gives a scalar.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from eagleray import code, errors, spec, terms

Loss = Callable[[Tensor, Tensor], Tensor]

FOCUS = 2.0
"""Gamma of the focal loss, the value its authors recommend (Lin et al. 2017, arXiv:1708.02002)."""


def build(
    train: spec.Train, targets: np.ndarray, outputs: int, *, custom: code.Code | None = None
) -> Loss:
    """The loss that `train` names; `auto` is cross-entropy, or mean squared error for regression.

    Args:
        train: the `train` section of one configuration.
        targets: targets of the training part, for class weights.
        outputs: C, or 1 for regression.
        custom: the user's code, where `train.loss` is `module:function`.

    Raises:
        UserError: a loss that does not fit the task.
        CodeError: the user's module fails to import; when called, the user's loss fails.
    """
    if custom is not None:
        return _own(custom)
    regression = outputs == 1
    name = train.loss
    if name == "auto":
        name = "mse" if regression else "cross_entropy"
    task: spec.Task = "regression" if regression else "multiclass"
    if task not in terms.LOSSES[name]:
        raise errors.UserError(f"train.loss must fit the task, but got {name}")
    if regression:
        point = functional.mse_loss if name == "mse" else functional.huber_loss
        return lambda output_B1, target_B: point(output_B1[:, 0], target_B)
    if name == "focal":
        return _focal
    weight = _class_weights(targets, outputs) if name == "weighted_cross_entropy" else None
    return _CrossEntropy(weight, train.label_smoothing)


def _own(custom: code.Code) -> Loss:
    """The user's loss, held to its contract."""
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


class _CrossEntropy:
    """Cross-entropy; the class weights follow the outputs to their device."""

    def __init__(self, weight_C: Tensor | None, smoothing: float) -> None:
        self._weight_C, self._smoothing = weight_C, smoothing

    def __call__(self, logits_BC: Tensor, target_B: Tensor) -> Tensor:
        if self._weight_C is not None:
            self._weight_C = self._weight_C.to(logits_BC.device)
        return functional.cross_entropy(
            logits_BC, target_B, weight=self._weight_C, label_smoothing=self._smoothing
        )


def _focal(logits_BC: Tensor, target_B: Tensor) -> Tensor:
    log_p_B = logits_BC.log_softmax(1).gather(1, target_B[:, None])[:, 0]
    return -((1 - log_p_B.exp()) ** FOCUS * log_p_B).mean()


def _class_weights(targets: np.ndarray, outputs: int) -> Tensor:
    """Inverse frequencies; the mean weight of a row is 1, as with scikit-learn's `balanced`."""
    counts_C = np.bincount(targets, minlength=outputs).clip(min=1)
    return torch.from_numpy((len(targets) / (outputs * counts_C)).astype(np.float32))
