"""The `model` section of the experiment file by the model's type; no torch here.

`Section` is here because installed packages subclass `Options`, and cannot import `eagleray.spec`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import pydantic
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from eagleray import code
from eagleray.learn.needs import Need

Item = TypeVar("Item")
Many = Annotated[tuple[Item, ...], pydantic.Strict(False)]  # a YAML list, frozen
Size = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
TreeShare = Annotated[float, Field(gt=0, le=1)]
Penalty = Annotated[float, Field(ge=0)]
Numbers = Literal["piecewise", "periodic", "none"]
Bins = Annotated[
    int, Field(ge=2, description="Most bins of a number, at quantiles of the training part.")
]
Waves = Annotated[int, Field(ge=1, description="Waves of a number.")]
WaveScale = Annotated[
    float,
    Field(gt=0, description="Deviation of the first frequencies; higher ones follow finer detail."),
]


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise PydanticCustomError("law", "must hold each name once", {"got": ", ".join(names)})
    return names


class Section(pydantic.BaseModel):
    """A mapping with known keys; `tag` tells apart the sections that share a place."""

    model_config = pydantic.ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=()
    )
    tag: ClassVar[str | None] = None


class Options(Section):
    """The section of a model; `tag` is its type.

    Attributes:
        dependent: options that would do nothing beside some values of another one.
        rates: options that are rates of `nn.Dropout` and nothing else; trials that differ in them
            can be trained in one pass.
        train: defaults of the section `train` that this model has in place of the usual ones.
        without: keys of `train` that would do nothing beside it.
        single: whether it is trained by one process, on CPUs, from rows in memory.
        refits: whether `tune.refit: auto` trains it anew where it wins (docs/adr/0049).
        rescales: whether the scale of numbers makes no difference to it.
    """

    dependent: ClassVar[Mapping[str, Need]] = {}
    rates: ClassVar[frozenset[str]] = frozenset()
    train: ClassVar[Mapping[str, Any]] = {}
    without: ClassVar[frozenset[str]] = frozenset()
    single: ClassVar[bool] = False
    refits: ClassVar[bool] = False
    type: str

    @property
    def rescales(self) -> bool:
        return getattr(self, "numbers", "none") == "piecewise"


def _embedded(*kinds: str) -> Need:
    law = f"needs numbers: {' or '.join(kinds)} beside it"
    return Need("numbers", law, lambda chosen: chosen in kinds)


_OF_NUMBERS = {
    "bins": _embedded("piecewise"),
    "frequencies": _embedded("periodic"),
    "frequency_scale": _embedded("periodic"),
}


class Mlp(Options):
    """Fully connected layers over all features."""

    tag: ClassVar[str | None] = "mlp"
    dependent: ClassVar[Mapping[str, Need]] = {
        "number_embedding": _embedded("piecewise", "periodic"),
        **_OF_NUMBERS,
    }
    rates: ClassVar[frozenset[str]] = frozenset({"dropout"})
    type: Literal["mlp"] = Field(
        "mlp",
        description="For tables; takes every kind of column. A section `model` that has other keys "
        "and no type is of this one.",
    )
    hidden: Many[Size] = Field((128, 64), description="Width of each hidden layer.")
    dropout: Rate = Field(0.1, description="Part of the activations dropped in training.")
    activation: Literal["relu", "gelu", "silu"] = Field("relu", description="Between layers.")
    batch_norm: bool = Field(False, description="Normalise each hidden layer over the batch.")
    embedding: Size = Field(8, description="Size of a category's embedding.")
    numbers: Numbers = Field(
        "none", description="How numbers are embedded: linear in bins, by waves, or not."
    )
    number_embedding: Size = Field(16, description="Size of a number's embedding.")
    bins: Bins = 48
    frequencies: Waves = 48
    frequency_scale: WaveScale = 0.01


class TabM(Options):
    """An ensemble of fully connected networks that share most of their weights."""

    tag: ClassVar[str | None] = "tabm"
    dependent: ClassVar[Mapping[str, Need]] = {
        "embedding": _embedded("piecewise", "periodic"),
        **_OF_NUMBERS,
    }
    rates: ClassVar[frozenset[str]] = frozenset({"dropout"})
    train: ClassVar[Mapping[str, Any]] = {
        "optimizer": "adamw",
        "lr": 2e-3,
        "weight_decay": 3e-4,
    }
    type: Literal["tabm"] = Field(
        description="For tables, of which a file without `model` gets it; takes every kind of "
        "column. Defaults of `train` beside it: `optimizer: adamw`, `lr: 0.002`, "
        "`weight_decay: 0.0003`."
    )
    members: Size = Field(32, description="Networks of the ensemble.")
    blocks: Size = Field(2, description="Hidden layers of each.")
    width: Size = Field(256, description="Width of each hidden layer.")
    dropout: Rate = Field(0.1, description="Part of the activations dropped in training.")
    numbers: Numbers = Field(
        "piecewise", description="How numbers are embedded: linear in bins, by waves, or not."
    )
    embedding: Size = Field(16, description="Size of a number's embedding.")
    bins: Bins = 48
    frequencies: Waves = 48
    frequency_scale: WaveScale = 0.01


class Boosting(Options):
    """Trees of LightGBM, each grown on the errors of those before."""

    tag: ClassVar[str | None] = "boosting"
    train: ClassVar[Mapping[str, Any]] = {"lr": 0.05}
    without: ClassVar[frozenset[str]] = frozenset(
        {"batch_size", "optimizer", "weight_decay", "momentum", "schedule", "clip_norm"}
        | {"label_smoothing", "focal_gamma", "sampling", "plateau", "warmup", "ema", "mixup"}
    )
    single: ClassVar[bool] = True
    refits: ClassVar[bool] = True
    type: Literal["boosting"] = Field(
        description="For tables; numbers and categories, with their gaps, and the most frequent "
        "words of texts. Of `train` it reads `lr` (0.05 by default), `epochs`, `loss`, "
        "`class_weights`, `early_stopping` and `seed`."
    )
    rounds: Size = Field(
        25,
        description="Trees that an epoch adds: `train.epochs` times as many in all, per class or "
        "quantile.",
    )
    leaves: Annotated[int, Field(ge=2, le=131_072)] = Field(
        31, description="Most leaves of a tree."
    )
    depth: Size | None = Field(None, description="Most splits from the root to a leaf.")
    min_rows: Annotated[int, Field(ge=1, lt=2**31)] = Field(
        20, description="Least training rows of a leaf."
    )
    row_share: TreeShare = Field(1.0, description="Part of the rows that each tree is grown on.")
    column_share: TreeShare = Field(1.0, description="Part of the columns that each tree sees.")
    l1: Penalty = Field(0.0, description="L1 penalty of the leaves.")
    l2: Penalty = Field(0.0, description="L2 penalty of the leaves.")
    bins: Annotated[int, Field(ge=2, le=65_535)] = Field(
        255, description="Most bins of a number's histogram."
    )


class Auto(Options):
    """Several models, searched under one budget; each has a space of its own."""

    tag: ClassVar[str | None] = "auto"
    train: ClassVar[Mapping[str, Any]] = {"epochs": 40}
    without: ClassVar[frozenset[str]] = Boosting.without | {"lr"}
    single: ClassVar[bool] = True
    type: Literal["auto"] = Field(
        description="Tries several models. Of `train` it reads `epochs` (40 by default), `loss`, "
        "`class_weights`, `early_stopping` (`patience: 4` unless the file sets it, `null` for "
        "none) and `seed`."
    )
    families: (
        Annotated[
            Many[Literal["boosting", "text", "image", "tabm", "mlp"]],
            Field(min_length=1),
            AfterValidator(_different),
        ]
        | None
    ) = Field(None, description="The models that are tried. Default: all that take the columns.")


class Recommender(Options):
    """Vectors of users and items, whose products, and popularity, are the scores of items."""

    tag: ClassVar[str | None] = "recommender"
    train: ClassVar[Mapping[str, Any]] = {
        "optimizer": "adamw",
        "lr": 5e-3,
        "weight_decay": 0.3,
        "batch_size": 1024,
    }
    without: ClassVar[frozenset[str]] = frozenset({"label_smoothing"})
    single: ClassVar[bool] = True
    type: Literal["recommender"] = Field(
        description="Recommends items to users, beside `data.recommend`; takes no text and no "
        "images. Defaults of `train` beside it: `optimizer: adamw`, `lr: 0.005`, "
        "`weight_decay: 0.3`, `batch_size: 1024`."
    )
    factors: Size = Field(32, description="Size of a user's and of an item's vector.")
    negatives: Size = Field(
        1024,
        description="Items that the rows of a batch are compared with, drawn evenly; all items if "
        "there are no more.",
    )
    dropout: Rate = Field(0.0, description="Part of the vectors' numbers dropped in training.")
    hidden: Many[Size] = Field(
        (64,), description="Width of each hidden layer over the other columns."
    )
    embedding: Size = Field(8, description="Size of a category's embedding in other columns.")
    unknown: Rate = Field(
        0.2,
        description="Part of the training rows whose user is hidden, where there are other "
        "columns, so that these speak for users who are new.",
    )


class Text(Options):
    """N-gram embeddings, then fully connected layers."""

    tag: ClassVar[str | None] = "text"
    rates: ClassVar[frozenset[str]] = frozenset({"dropout"})
    type: Literal["text"] = Field(description="For rows with text in a column.")
    embedding: Size = Field(64, description="Size of an n-gram's embedding.")
    hidden: Many[Size] = Field((64,), description="Width of each hidden layer.")
    dropout: Rate = Field(0.1, description="Part of the activations dropped in training.")


class Image(Options):
    """Convolutions, then fully connected layers."""

    tag: ClassVar[str | None] = "image"
    rates: ClassVar[frozenset[str]] = frozenset({"dropout"})
    type: Literal["image"] = Field(description="For rows with an image in a column.")
    channels: Annotated[Many[Size], Field(min_length=1)] = Field(
        (32, 64), description="Channels of each convolution."
    )
    hidden: Many[Size] = Field((128,), description="Width of each hidden layer.")
    dropout: Rate = Field(0.1, description="Part of the activations dropped in training.")


class Custom(Options):
    """The user's own `module:function`; further keys are its keyword arguments."""

    model_config = pydantic.ConfigDict(extra="allow")
    tag: ClassVar[str | None] = "module:function"
    type: Annotated[str, Field(pattern=code.PATTERN)] = Field(
        description="Your function that builds the model; all further keys are passed on to it."
    )
