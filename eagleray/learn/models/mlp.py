"""`mlp`: every column as one vector, then dense layers."""

import math

import torch
from torch import Tensor, nn

from eagleray.learn import features
from eagleray.learn.models import layers, numbers, options


class Mlp(nn.Module):
    """Numeric, categorical, text (bag of tokens) and image (flattened) columns, concatenated."""

    def __init__(self, options: options.Mlp, shape: features.Shape, outputs: int) -> None:
        super().__init__()
        embeds = options.numbers != "none" and shape.numeric > 0
        size = options.number_embedding if embeds else 1
        embedded = numbers.build(options, shape.numeric, size) if embeds else None
        self.tabular = layers.Tabular(shape, options.embedding, embedded, size)
        width = self.tabular.width + math.prod(shape.image or (0,))
        bag_width = options.hidden[0] if options.hidden else 64
        self.bag = layers.TokenBag(shape, bag_width) if shape.tokens else None
        self.head = layers.head(
            width + (bag_width if shape.tokens else 0),
            options.hidden,
            outputs,
            dropout=options.dropout,
            activation=options.activation,
            batch_norm=options.batch_norm,
        )

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        parts = self.tabular(inputs)
        if self.bag is not None:
            parts.append(self.bag(inputs))
        if "image" in inputs:
            parts.append(inputs["image"].flatten(1))
        logits_BC: Tensor = self.head(torch.cat(parts, 1))
        return logits_BC
