"""Data sets as models take them. Workers import this module, and none that reads tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from eagleray import spec
from eagleray.learn import columns, features, schema

if TYPE_CHECKING:
    from ray_jobs.data import reading


class Training(Protocol):
    """The training part: a `Part` in memory, or `blocks.Blocks` elsewhere."""

    @property
    def targets(self) -> np.ndarray:
        """Targets from which scale and weights follow, of all rows or of a sample."""

    def __len__(self) -> int:
        """The number of rows."""

    def reader(
        self,
        load: reading.Load,
        *,
        rank: int = 0,
        size: int = 1,
        chance_B: np.ndarray | None = None,
    ) -> reading.Reader:
        """How the worker `rank` of a group of `size` reads the rows.

        With `chance_B` an epoch has as many rows as there are, each drawn by these chances.
        """


@dataclass(frozen=True)
class Part:
    """Encoded rows and their targets: class indices (int64), or values (float32)."""

    inputs: features.Inputs
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def reader(
        self, load: reading.Load, *, chance_B: np.ndarray | None = None, **_: int
    ) -> reading.Reader:
        """Each worker of a group holds all rows."""
        from ray_jobs.data import reading

        return reading.Whole(load(self.inputs, self.targets), chance_B)


@dataclass(frozen=True)
class Encoded:
    """The data under one setting of `features`; arrays only, so that trials share it."""

    transforms: features.Transforms
    target: schema.Target
    train: Training
    validation: Part


def key(options: Mapping[str, spec.FeatureOptions], fold: int | None = None) -> str:
    """A string that is unique to a setting of the `features` section, and to a fold."""
    kinds = (columns.REGISTRY[name] for name in columns.REGISTRY)
    others = {option for kind in kinds for option in kind.in_training}
    parts = {name: chosen.model_dump_json(exclude=others) for name, chosen in options.items()}
    found = repr(sorted(parts.items()))
    return found if fold is None else f"fold {fold}: {found}"
