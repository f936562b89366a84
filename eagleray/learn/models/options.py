"""The `model` section of the experiment file by the model's type; no torch here.

`Section` is here because installed packages subclass `Options`, and cannot import `eagleray.spec`.
"""

from typing import Annotated, ClassVar, Literal, TypeVar

import pydantic
from pydantic import Field

from eagleray import code

Item = TypeVar("Item")
Many = Annotated[tuple[Item, ...], pydantic.Strict(False)]  # a YAML list, frozen
Size = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class Section(pydantic.BaseModel):
    """A mapping with known keys; `tag` tells apart the sections that share a place."""

    model_config = pydantic.ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=()
    )
    tag: ClassVar[str | None] = None


class Options(Section):
    """The section of a model; `tag` is its type.

    Attributes:
        rates: options that are rates of `nn.Dropout` and nothing else; trials that differ in them
            can be trained in one pass.
    """

    rates: ClassVar[frozenset[str]] = frozenset()
    type: str


class Mlp(Options):
    """Fully connected layers over all features."""

    tag: ClassVar[str | None] = "mlp"
    rates: ClassVar[frozenset[str]] = frozenset({"dropout"})
    type: Literal["mlp"] = Field("mlp", description="For tables; takes every kind of column.")
    hidden: Many[Size] = Field((128, 64), description="Width of each hidden layer.")
    dropout: Rate = Field(0.1, description="Part of the activations dropped in training.")
    activation: Literal["relu", "gelu", "silu"] = Field("relu", description="Between layers.")
    batch_norm: bool = Field(False, description="Normalise each hidden layer over the batch.")
    embedding: Size = Field(8, description="Size of a category's embedding.")


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
