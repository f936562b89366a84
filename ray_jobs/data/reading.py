"""How a training reads the rows of a part, in shuffled batches. Legend: B batch."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ray_jobs.data import encoded


class Batch(NamedTuple):
    """Inputs by name, and targets (B)."""

    inputs: dict[str, Tensor]
    target_B: Tensor

    def select(self, rows: Tensor | slice) -> "Batch":
        return Batch(
            {name: value[rows] for name, value in self.inputs.items()}, self.target_B[rows]
        )


Load = Callable[[encoded.Part], Batch]
"""Puts rows on the device of a training, targets as its loss takes them."""


class Reader(Protocol):
    """Gives the rows of the training part to one training."""

    def __len__(self) -> int:
        """The number of rows."""

    def shuffled(self, size: int, generator: torch.Generator, start: int = 0) -> Iterator[Batch]:
        """An epoch's batches of `size` rows, without those before the batch `start`.

        The call draws the order of rows from `generator`, and is alone in drawing from it. A last
        batch of one row is left out: batch norm needs two.
        """


class Whole:
    """Rows that are in memory."""

    def __init__(self, rows: Batch) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows.target_B)

    def shuffled(self, size: int, generator: torch.Generator, start: int = 0) -> Iterator[Batch]:
        order = torch.randperm(len(self), generator=generator).to(self.rows.target_B.device)
        chosen = order.split(size)[start:]
        return (self.rows.select(rows) for rows in chosen if len(rows) > 1 or len(order) == 1)
