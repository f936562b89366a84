"""Layers that the architectures share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eagleray.learn import features

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class Fitted(nn.Module):
    """A module that keeps statistics of the training rows, as buffers."""

    def fit(self, inputs: dict[str, Tensor]) -> None:
        """Take them from training rows, before the first step; a trainer calls it once.

        `inputs` are those of the model.
        """
        raise NotImplementedError


class Ensemble(nn.Module):
    """A module that in training gives for each row the outputs of K members in turn, (B K, C).

    Its prediction is the mean of the members' values, or of their probabilities.
    """

    members: int
    values: bool = False  # whether outputs are values, else logits


class Sampled(nn.Module):
    """A module that takes the targets among its inputs, as `target` (B), to be trained.

    It gives scores (B, 1 + N) of the target first, then of N drawn classes.
    """


def spread(target_B: Tensor, model: nn.Module) -> Tensor:
    """The targets of a model's outputs: those of an ensemble in training, once for each member."""
    if not model.training or not isinstance(model, Ensemble):
        return target_B
    return target_B.repeat_interleave(model.members)


class Tabular(nn.Module):
    """Numeric columns as they are, each categorical column as a row of one embedding table.

    `numbers` embeds each of the numeric ones as `size` numbers instead.
    """

    def __init__(
        self,
        shape: features.Shape,
        embedding: int,
        numbers: nn.Module | None = None,
        size: int = 1,
    ) -> None:
        super().__init__()
        self.width = shape.numeric * size + shape.categories * embedding
        self.numbers = numbers
        self.table = nn.Embedding(shape.table, embedding) if shape.categories else None
        if self.table is not None:
            nn.init.normal_(self.table.weight, std=embedding**-0.5)

    def forward(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        parts = [inputs["numeric"]] if "numeric" in inputs else []
        if self.numbers is not None:
            parts = [self.numbers(one).flatten(1) for one in parts]
        if self.table is not None:
            parts.append(self.table(inputs["categories"]).flatten(1))
        return parts


class TokenBag(nn.Module):
    """The weighted sum of the tokens' embeddings: (B, T) ids and weights to (B, E)."""

    def __init__(self, shape: features.Shape, embedding: int) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(shape.tokens, embedding, mode="sum", padding_idx=0)
        # Small, so that a token seen once or twice does not outweigh what is learned.
        nn.init.normal_(self.bag.weight, std=embedding**-0.5)
        with torch.no_grad():
            self.bag.weight[0].zero_()

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        bag: Tensor = self.bag(inputs["tokens"], per_sample_weights=inputs["weights"])
        return bag


def head(
    width: int,
    hidden: Sequence[int],
    outputs: int,
    *,
    dropout: float,
    activation: str = "relu",
    batch_norm: bool = False,
) -> nn.Sequential:
    """Dense layers from `width` through `hidden` to `outputs`, dropout after each activation."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers.append(nn.Linear(width, size))
        if batch_norm:
            layers.append(nn.BatchNorm1d(size))
        layers += [ACTIVATIONS[activation](), nn.Dropout(dropout)]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, outputs))
