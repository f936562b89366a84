"""Architectures: what turns a batch of encoded inputs into outputs.

Every model is a `torch.nn.Module` whose `forward` takes `Inputs` as tensors and gives `(B, C)`.

Legend: B batch, F numeric features, K categorical columns, T tokens, E embedding, C outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eagleray import errors, spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from eagleray import code, features


def build(
    options: spec.ModelOptions,
    shape: features.Shape,
    outputs: int,
    *,
    custom: code.Code | None = None,
) -> nn.Module:
    """The model that `options` describe, freshly initialised from torch's current seed.

    Args:
        options: the `model` section of one configuration.
        shape: widths of the encoded inputs.
        outputs: C, the number of classes, or 1 for regression.
        custom: the user's code, where `options.type` is `module:function`.

    Raises:
        UserError: the model needs inputs that the data does not have.
        CodeError: the user's function fails, or gives no module.
    """
    from eagleray.learn.models import custom as user
    from eagleray.learn.models import image, mlp, text

    if isinstance(options, spec.Custom):
        assert custom is not None
        return user.build(custom, options, shape, outputs)
    if isinstance(options, spec.Image):
        if shape.image is None:
            raise errors.UserError("model.type: image needs an image column, but the data has none")
        return image.ImageNet(options, shape, outputs)
    if isinstance(options, spec.Text):
        if not shape.tokens:
            raise errors.UserError("model.type: text needs a text column, but the data has none")
        return text.TextNet(options, shape, outputs)
    return mlp.Mlp(options, shape, outputs)


def forward(
    model: nn.Module, inputs: dict[str, Tensor], outputs: int, *, custom: code.Code | None = None
) -> Tensor:
    """The outputs (B, C) of a model that `build` gave.

    Raises:
        CodeError: the user's model raises, or gives something else.
    """
    if custom is None:
        logits_BC: Tensor = model(inputs)
        return logits_BC
    from eagleray.learn.models import custom as user

    return user.forward(custom, model, inputs, outputs)
