"""Exponential moving averages of weights, which are evaluated and saved in place of them.

Source: Polyak and Juditsky 1992, https://doi.org/10.1137/0330046; the decay grows with the steps as
in TensorFlow's `ExponentialMovingAverage`, so that short trainings forget their first weights.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.optim import swa_utils


class Averages:
    """The averages of these weights, which start as they are.

    After n steps the decay is (1 + n) / (10 + n), if that is below `decay`.

    Attributes:
        steps: how many steps are in them.
    """

    def __init__(self, decay: float, weights: Sequence[Tensor], steps: int = 0) -> None:
        self._decay, self.steps = decay, steps
        self.values = [one.detach().clone() for one in weights]

    def update(self, weights: Sequence[Tensor]) -> None:
        """Called with the weights after each step."""
        self.steps += 1
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        swa_utils.get_ema_multi_avg_fn(decay)(self.values, weights, self.steps)

    @contextlib.contextmanager
    def swapped(self, weights: Sequence[Tensor]) -> Iterator[None]:
        """Put the averages in the weights' places in the block, and the weights back after it."""
        own = [one.clone() for one in weights]
        _copy(weights, self.values)
        try:
            yield
        finally:
            _copy(weights, own)


@torch.no_grad()
def _copy(to: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for one, value in zip(to, values, strict=True):
        one.copy_(value)
