"""`module:function`: the user's own architecture, see docs/code.md. Legend: B batch, C outputs."""

import functools
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import parameter

from eagleray import code, errors
from eagleray.learn import features
from eagleray.learn.models.options import Options


def build(own: code.Code, options: Options, shape: features.Shape, outputs: int) -> nn.Module:
    """Call the user's function with `shape`, `outputs` and the further keys of `model`.

    Raises:
        CodeError: the function raises, or gives no `torch.nn.Module` that can be trained.
    """
    arguments = {key: value for key, value in options.model_dump().items() if key != "type"}
    with code.guard("must build a model", own):
        model = own.load()(shape=shape, outputs=outputs, **arguments)
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        raise errors.CodeError(f"{own.name}: must give a torch.nn.Module, but gave {kind}")
    weights = list(model.parameters())
    if any(parameter.is_lazy(weight) for weight in weights):
        raise errors.CodeError(f"{own.name}: every layer must know its sizes, but one is lazy")
    if not any(weight.requires_grad for weight in weights):
        raise errors.CodeError(f"{own.name}: must give a model with weights to train, but has none")
    # Replace the method, not the module: the weights keep the user's names.
    model.forward = functools.partial(_forward, own, model.forward, outputs)
    return model


def _forward(
    own: code.Code, forward: Callable[..., object], outputs: int, inputs: dict[str, Tensor]
) -> Tensor:
    with code.guard("forward must answer", own):
        output = forward(inputs)
    expected = (len(next(iter(inputs.values()))), outputs)
    got = type(output).__name__
    if isinstance(output, Tensor):
        if output.shape == expected and output.is_floating_point():
            return output
        got = f"{tuple(output.shape)} of {output.dtype}"
    raise errors.CodeError(
        f"{own.name}: forward must give floating-point numbers of shape (B, C), here {expected},"
        f" but gave {got}"
    )
