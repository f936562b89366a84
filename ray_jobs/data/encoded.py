"""A data set as models see it: transforms fitted on the training part, applied to every part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eagleray import spec
from eagleray.learn import features, schema

if TYPE_CHECKING:
    from ray_jobs.data import prepare


@dataclass(frozen=True)
class Part:
    """Encoded rows and their targets: class indices (int64), or values (float32)."""

    inputs: features.Inputs
    targets: np.ndarray


@dataclass(frozen=True)
class Encoded:
    """What one setting of `features` makes of the data; arrays only, so that trials share it."""

    transforms: features.Transforms
    target: schema.Target
    train: Part
    validation: Part


def encode(dataset: prepare.Dataset, options: Mapping[str, spec.FeatureOptions]) -> Encoded:
    """Fit the transforms on the training rows and apply them to training and validation rows."""
    training = take(dataset, dataset.split.train)
    transforms = features.Transforms.fit(dataset.schema, options, training)
    return Encoded(
        transforms,
        dataset.schema.target,
        Part(transforms.apply(training), dataset.targets[dataset.split.train]),
        part(dataset, transforms, dataset.split.validation),
    )


def key(options: Mapping[str, spec.FeatureOptions]) -> str:
    """One string for one setting of the `features` section."""
    parts = {name: chosen.model_dump_json() for name, chosen in options.items()}
    return repr(sorted(parts.items()))


def part(dataset: prepare.Dataset, transforms: features.Transforms, rows: np.ndarray) -> Part:
    """These rows, encoded by transforms that are already fitted."""
    return Part(transforms.apply(take(dataset, rows)), dataset.targets[rows])


def take(dataset: prepare.Dataset, rows: np.ndarray) -> schema.Columns:
    """The canonical columns of these rows."""
    return {name: column[rows] for name, column in dataset.columns.items()}
