"""Models: what turns a batch of encoded inputs into outputs.

Every model is a `torch.nn.Module` whose `forward` takes `Inputs` as tensors and gives `(B, C)`.

A model is added as an options section, a file with its module, and a line in `_BUILT_IN`, or by an
installed package (`eagleray.plugins`) that calls `REGISTRY.register`.

Legend: B batch, F numeric features, K categorical columns, T tokens, E embedding, C outputs.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eagleray import code, plugins
from eagleray.learn.columns.image import IMAGE
from eagleray.learn.columns.text import TEXT
from eagleray.learn.models.options import Custom, Image, Mlp, Options, Text

if TYPE_CHECKING:
    from torch import Tensor, nn

    from eagleray.learn import features

__all__ = [
    "REGISTRY",
    "Custom",
    "Image",
    "Mlp",
    "Model",
    "Options",
    "Text",
    "build",
    "forward",
    "parse",
]


@dataclass(frozen=True)
class Model:
    """A registered model; its torch code is imported when it is first built.

    Attributes:
        options: its section of the experiment file.
        module: `package.module:name` of what gives its `torch.nn.Module` of options, shape and C.
        needs: the type of column that it cannot do without.
    """

    options: type[Options]
    module: str
    needs: str | None = None


REGISTRY: plugins.Registry[Model] = plugins.Registry("model.type")
_BUILT_IN = (
    Model(Mlp, "eagleray.learn.models.mlp:Mlp"),
    Model(Text, "eagleray.learn.models.text:TextNet", needs=TEXT.name),
    Model(Image, "eagleray.learn.models.image:ImageNet", needs=IMAGE.name),
)
for _model in _BUILT_IN:
    REGISTRY.register(str(_model.options.tag), _model)


def sections() -> list[type[Options]]:
    """The sections of all models, that of the user's own last."""
    return [*(REGISTRY[name].options for name in REGISTRY), Custom]


def parse(value: Mapping[str, Any]) -> Options:
    """The options that `model_dump(mode="json")` gave this value for.

    Raises:
        NotFoundError: no package that is installed here has the model.
    """
    kind = value["type"]
    section = Custom if code.is_name(kind) else REGISTRY[kind].options
    return section.model_validate(value)


def build(
    options: Options,
    shape: features.Shape,
    outputs: int,
    *,
    custom: code.Code | None = None,
) -> nn.Module:
    """The model that `options` describe, freshly initialised from torch's current seed.

    Args:
        options: the `model` section of one configuration.
        shape: widths of the encoded inputs.
        outputs: C.
        custom: the user's code, where `options.type` is `module:function`.

    Raises:
        NotFoundError: no package that is installed here has the model.
        CodeError: the user's function fails, or gives no module.
    """
    if custom is not None:
        from eagleray.learn.models import custom as user

        return user.build(custom, options, shape, outputs)
    made: nn.Module = pkgutil.resolve_name(REGISTRY[options.type].module)(options, shape, outputs)
    return made


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
