"""Models: modules that take encoded inputs by name, give (B, C); and trees of LightGBM.

A model is added as an options section, a file with its module, and a line in `REGISTRY`; by an
installed package (`eagleray.plugins`) with `REGISTRY.register`. Legend: B batch, C outputs.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eagleray import code, plugins
from eagleray.learn import tasks
from eagleray.learn.columns.image import IMAGE
from eagleray.learn.columns.text import TEXT
from eagleray.learn.models.options import (
    Auto,
    Boosting,
    Custom,
    Image,
    Mlp,
    Options,
    Recommender,
    TabM,
    Text,
)

if TYPE_CHECKING:
    from torch import nn

    from eagleray.learn import features

__all__ = [
    "REGISTRY", "Auto", "Boosting", "Custom", "Image", "Mlp", "Model", "Options", "Recommender",
    "TabM", "Text", "build", "default_type", "engine", "parse",
]  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A registered model; its torch code is imported when it is first built.

    Attributes:
        options: its section of the experiment file.
        module: `package.module:name` of its `torch.nn.Module`, built from options, shape and C;
            empty for a model that is none.
        needs: the column type that it requires.
        refuses: column types that it cannot take.
        beside: column types that it takes beside others; `auto` does not try it on these alone.
        engine: the name of the engine that runs it (`eagleray.engines`); empty for `auto`, of
            which a trial takes another model.
        objectives: whether it is trained by the `objectives` of a loss alone.
        tasks: the tasks that it is for, of which no other model is; empty for all others.
    """

    options: type[Options]
    module: str = ""
    needs: str | None = None
    refuses: frozenset[str] = frozenset()
    beside: frozenset[str] = frozenset()
    engine: str = "torch"
    objectives: bool = False
    tasks: frozenset[str] = frozenset()

    def takes(self, types: Set[str]) -> bool:
        """Whether `auto` tries it on columns of all these types."""
        able = not self.refuses & types and (self.needs is None or self.needs in types)
        return able and not types <= self.beside


REGISTRY = plugins.Registry(
    "model.type",
    {
        "mlp": Model(Mlp, "eagleray.learn.models.mlp:Mlp"),
        "tabm": Model(TabM, "eagleray.learn.models.tabm:TabM"),
        "boosting": Model(
            Boosting,
            refuses=frozenset({IMAGE.name}),
            beside=frozenset({TEXT.name}),
            engine="lightgbm",
            objectives=True,
        ),
        "auto": Model(Auto, engine=""),
        "text": Model(Text, "eagleray.learn.models.text:TextNet", needs=TEXT.name),
        "image": Model(Image, "eagleray.learn.models.image:ImageNet", needs=IMAGE.name),
        "recommender": Model(
            Recommender,
            "eagleray.learn.models.recommender:Recommender",
            refuses=frozenset({TEXT.name, IMAGE.name}),
            engine="recommender",
            tasks=tasks.RANKING,
        ),
    },
)


def default_type(types: Set[str] = frozenset(), *, recommends: bool = False) -> str:
    """The default model for columns of these types."""
    if recommends:
        return "recommender"
    if IMAGE.name in types and TEXT.name not in types:  # which `image` does not read
        return "image"
    return "text" if types == {TEXT.name} else "tabm"


def sections() -> list[type[Options]]:
    """Options of all models; `Custom`, for the user's own, is last."""
    return [*(REGISTRY[name].options for name in REGISTRY), Custom]


def parse(value: Mapping[str, Any]) -> Options:
    """Options from their `model_dump(mode="json")`; NotFoundError for an unknown model."""
    kind = value["type"]
    section = Custom if code.is_name(kind) else REGISTRY[kind].options
    return section.model_validate(value)


def fitting(kind: str) -> frozenset[str]:
    """The tasks that a model, or the user's own, can be of."""
    if kind in REGISTRY and REGISTRY[kind].tasks:
        return REGISTRY[kind].tasks
    taken = (REGISTRY[name].tasks for name in REGISTRY)
    return frozenset(tasks.REGISTRY).difference(*taken)


def engine(options: Options) -> str:
    """The name of the engine that runs a model."""
    kind = options.type
    return "torch" if code.is_name(kind) else REGISTRY[kind].engine


def build(
    options: Options,
    shape: features.Shape,
    outputs: int,
    *,
    values: bool = False,
    custom: code.Code | None = None,
) -> nn.Module:
    """Build a model with C `outputs`, or the user's (`custom`), from torch's current seed.

    `values` says that outputs are in the target's unit, else they are logits.

    Raises:
        NotFoundError: no installed package has the model.
        CodeError: the user's function fails, or gives no module; when called, the module fails.
    """
    if custom is not None:
        from eagleray.learn.models.custom import build as build_custom

        return build_custom(custom, options, shape, outputs)
    from eagleray.learn.models import layers

    module: type[nn.Module] = pkgutil.resolve_name(REGISTRY[options.type].module)
    made = module(options, shape, outputs)
    if isinstance(made, layers.Ensemble):
        made.values = values
    return made
