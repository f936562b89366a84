"""Pictures changed at random whenever they are trained on; other rows are never changed.

What is drawn for a batch follows from one number, so that a training that is interrupted and
resumed sees the same pictures, and so do all workers that hold the same rows.

Legend: B rows, C channels, H height, W width.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ray_jobs.data.reading import Batch, Mixed

if TYPE_CHECKING:
    from eagleray import spec
    from eagleray.learn.columns.image import Augment
    from eagleray.learn.features.images import Images

IMAGE = "image"


@dataclass(frozen=True)
class Augmentation:
    """The channels of each column whose pictures change, and how; and the strength of mixing."""

    changes: tuple[tuple[slice, Augment], ...]
    mixup: float

    @classmethod
    def of(cls, chosen: spec.Configuration, images: Images) -> Augmentation | None:
        """That of a configuration; None where it changes nothing."""
        ends = list(itertools.accumulate(images.channels, initial=0))
        changes = []
        for name, bounds in zip(images.names, itertools.pairwise(ends), strict=False):
            augment = getattr(chosen.features.get(name), "augment", None)
            if augment is not None:
                changes.append((slice(*bounds), augment))
        found = cls(tuple(changes), chosen.train.mixup if images.names else 0.0)
        return found if changes or found.mixup else None

    def apply(self, batch: Batch, seed: int) -> Batch:
        """The batch with other pictures, and mixed with itself."""
        image_BCHW = batch.inputs[IMAGE]
        generator = torch.Generator(image_BCHW.device).manual_seed(seed)
        if self.changes:
            image_BCHW = image_BCHW.clone()
        for channels, augment in self.changes:
            image_BCHW[:, channels] = changed(image_BCHW[:, channels], augment, generator)
        batch = batch._replace(inputs=batch.inputs | {IMAGE: image_BCHW})
        return _mixed(batch, self.mixup, seed) if self.mixup else batch


def changed(image_BCHW: Tensor, augment: Augment, generator: torch.Generator) -> Tensor:
    """Each picture mirrored, turned, cut and with noise, as `augment` says."""

    def drawn() -> Tensor:
        device = image_BCHW.device
        return torch.rand(len(image_BCHW), generator=generator, device=device)

    if augment.flip:
        mirrored_B = drawn() < 0.5
        image_BCHW = torch.where(mirrored_B[:, None, None, None], image_BCHW.flip(3), image_BCHW)
    if augment.rotate or augment.crop:
        image_BCHW = _warped(image_BCHW, augment, *(drawn() for _ in range(4)))
    if augment.noise:
        shape, device = image_BCHW.shape, image_BCHW.device
        noise_BCHW = torch.randn(shape, generator=generator, device=device)
        image_BCHW = image_BCHW + augment.noise * noise_BCHW
    return image_BCHW


def _warped(
    image_BCHW: Tensor, augment: Augment, turn_B: Tensor, cut_B: Tensor, x_B: Tensor, y_B: Tensor
) -> Tensor:
    """Turned about the middle of a window somewhere in the picture, which is enlarged to it.

    The four numbers of a row are from 0 to 1. What lies outside is as the nearest edge.
    """
    height, width = image_BCHW.shape[2:]
    angle_B = (2 * turn_B - 1) * math.radians(augment.rotate)
    side_B = 1 - augment.crop * cut_B
    sine_B, cosine_B = side_B * angle_B.sin(), side_B * angle_B.cos()
    left_B, top_B = ((2 * one_B - 1) * (1 - side_B) for one_B in (x_B, y_B))
    rows = [
        torch.stack([cosine_B, -sine_B * (height / width), left_B], 1),
        torch.stack([sine_B * (width / height), cosine_B, top_B], 1),
    ]
    grid_BHW2 = functional.affine_grid(
        torch.stack(rows, 1), list(image_BCHW.shape), align_corners=False
    )
    return functional.grid_sample(image_BCHW, grid_BHW2, padding_mode="border", align_corners=False)


def _mixed(batch: Batch, strength: float, seed: int) -> Batch:
    """Pictures and numbers as weighted means of two rows (Zhang et al. 2018, arXiv:1710.09412)."""
    random = np.random.default_rng(seed)
    share = float(random.beta(strength, strength))
    other_B = torch.from_numpy(random.permutation(len(batch.target_B)))
    other_B = other_B.to(batch.target_B.device)
    inputs = {
        name: share * value + (1 - share) * value[other_B] for name, value in batch.inputs.items()
    }
    mixed = Mixed(batch.target_B[other_B], share)
    return batch._replace(inputs=inputs, mixed=mixed)
