"""Data sets as models take them. Workers import this module, and none that reads tables."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eagleray import spec
from eagleray.learn import features, schema


@dataclass(frozen=True)
class Part:
    """Encoded rows and their targets: class indices (int64), or values (float32)."""

    inputs: features.Inputs
    targets: np.ndarray


@dataclass(frozen=True)
class Encoded:
    """The data under one setting of `features`; arrays only, so that trials share it."""

    transforms: features.Transforms
    target: schema.Target
    train: Part
    validation: Part


def key(options: Mapping[str, spec.FeatureOptions]) -> str:
    """A string that is unique to a setting of the `features` section."""
    parts = {name: chosen.model_dump_json() for name, chosen in options.items()}
    return repr(sorted(parts.items()))
