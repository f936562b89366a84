"""The module of `wide`."""

import torch
from torch import Tensor, nn

from eagleray.learn import features
from tests.plugin.wide import Wide


class Linear(nn.Module):
    """A linear function of the numeric inputs, at first 0."""

    def __init__(self, options: Wide, shape: features.Shape, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(shape.numeric, outputs, bias=options.bias)
        with torch.no_grad():
            self.linear.weight.zero_()

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        out_BC: Tensor = self.linear(inputs["numeric"])
        return out_BC
