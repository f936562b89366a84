"""Optimizers by name. Torch is imported only to build one.

An optimizer is added as a function that builds it and a line in `REGISTRY`; by an installed package
(`eagleray.plugins`) with `REGISTRY.register`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eagleray import errors, plugins

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from eagleray import code, spec


@dataclass(frozen=True)
class Optimizer:
    """An optimizer by name.

    Attributes:
        build: builds it from the section `train` and the parameters.
        options: keys of `train` that it reads and some others do not.
        decoupled: whether weight decay is no part of the gradient.
        cycled: whether `schedule: one_cycle` moves its momentum too.
        proportional: whether its steps are proportional to the learning rate, beside decoupled
            weight decay: packs need it.
    """

    build: Callable[[spec.Train, Iterable[Tensor]], torch.optim.Optimizer]
    options: frozenset[str] = frozenset()
    decoupled: bool = False
    cycled: bool = False
    proportional: bool = False


def build(
    train: spec.Train, parameters: Iterable[Tensor], *, custom: code.Code | None = None
) -> torch.optim.Optimizer:
    """The optimizer that `train` names, or the user's (`custom`).

    Raises:
        CodeError: the user's function fails, or gives no optimizer of all the parameters.
    """
    if custom is not None:
        return _own(custom, train, list(parameters))
    return REGISTRY[train.optimizer].build(train, parameters)


def check(custom: code.Code, train: spec.Train, parameters: Sequence[Tensor]) -> None:
    """Step once with copies of parameters that have gradients; CodeError if that fails.

    It fails too where the state that the optimizer then has cannot be saved.
    """
    import torch

    from eagleray import code

    copies = [torch.nn.Parameter(one.detach().clone()) for one in parameters]
    for own, like in zip(copies, parameters, strict=True):
        own.grad = None if like.grad is None else like.grad.detach().clone()
    made = _own(custom, train, copies)
    with code.guard("must step", custom):
        made.step()
        saved = made.state_dict()
    for parameter, fields in saved["state"].items():
        whole = isinstance(parameter, int) and isinstance(fields, dict)
        for name, value in fields.items() if whole else [(parameter, fields)]:
            if not whole or not (isinstance(value, torch.Tensor) or _is_plain(value)):
                raise _unsaved(custom, f"{name!r} of {type(value).__name__}")
    for group in saved["param_groups"]:
        for name, value in group.items():
            if not _is_plain(list(value) if isinstance(value, tuple) else value):
                raise _unsaved(custom, f"{name!r} of {type(value).__name__}")


def _own(
    custom: code.Code, train: spec.Train, parameters: Sequence[Tensor]
) -> torch.optim.Optimizer:
    import torch

    from eagleray import code

    with code.guard("must build an optimizer", custom):
        made = custom.load()(list(parameters), lr=train.lr, weight_decay=train.weight_decay)
    if not isinstance(made, torch.optim.Optimizer):
        kind = type(made).__name__
        raise errors.CodeError(f"{custom.name}: must give a torch.optim.Optimizer, but gave {kind}")
    held = {id(one) for group in made.param_groups for one in group["params"]}
    if held != {id(one) for one in parameters}:
        known = sum(id(one) in held for one in parameters)
        law = f"{custom.name}: must step all parameters that it is given and no others"
        raise errors.CodeError(f"{law}, but has {known} of {len(parameters)}, {len(held)} in all")
    return made


def _is_plain(value: object) -> bool:
    """Whether JSON gives it back as it is."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False


def _unsaved(custom: code.Code, what: str) -> errors.CodeError:
    law = "its state must be tensors, numbers, texts and lists, by parameter, which can be saved"
    return errors.CodeError(f"{custom.name}: {law}, but it has {what}")


def _shared(train: spec.Train) -> dict[str, Any]:
    return {"lr": train.lr, "weight_decay": train.weight_decay}


def _adam(train: spec.Train, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    import torch

    return torch.optim.Adam(parameters, fused=True, **_shared(train))


def _adamw(train: spec.Train, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    import torch

    return torch.optim.AdamW(parameters, fused=True, **_shared(train))


def _rmsprop(train: spec.Train, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    import torch

    return torch.optim.RMSprop(parameters, **_shared(train))


def _sgd(train: spec.Train, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    import torch

    return torch.optim.SGD(parameters, momentum=train.momentum, **_shared(train))


REGISTRY = plugins.Registry(
    "train.optimizer",
    {
        "adam": Optimizer(_adam, cycled=True, proportional=True),
        "adamw": Optimizer(_adamw, decoupled=True, cycled=True, proportional=True),
        "rmsprop": Optimizer(_rmsprop, proportional=True),
        "sgd": Optimizer(_sgd, frozenset({"momentum"}), cycled=True, proportional=True),
    },
)
