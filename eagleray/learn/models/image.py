"""`image`: convolutions over the image, other columns joined before the dense layers."""

import torch
from torch import Tensor, nn

from eagleray.learn import features
from eagleray.learn.models import layers, options


class ImageNet(nn.Module):
    """Blocks of two 3x3 convolutions; each but the first halves the sides, if both exceed 3 px."""

    def __init__(self, options: options.Image, shape: features.Shape, outputs: int) -> None:
        super().__init__()
        assert shape.image is not None
        depth, height, width = shape.image
        blocks: list[nn.Module] = []
        for index, channels in enumerate(options.channels):
            halve = index > 0 and min(height, width) >= 4
            blocks += [
                *_convolve(depth, channels, 2 if halve else 1),
                *_convolve(channels, channels),
            ]
            height, width = ((height + 1) // 2, (width + 1) // 2) if halve else (height, width)
            depth = channels
        sides = min(height, 4), min(width, 4)
        if sides != (height, width):
            blocks.append(nn.AdaptiveAvgPool2d(sides))
        self.blocks = nn.Sequential(*blocks)
        self.tabular = layers.Tabular(shape, 8)
        flat = depth * sides[0] * sides[1]
        self.drop = nn.Dropout(options.dropout)
        self.head = layers.head(
            flat + self.tabular.width, options.hidden, outputs, dropout=options.dropout
        )

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        flat = self.drop(self.blocks(inputs["image"]).flatten(1))
        logits_BC: Tensor = self.head(torch.cat([flat, *self.tabular(inputs)], 1))
        return logits_BC


def _convolve(depth: int, channels: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(depth, channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    ]
