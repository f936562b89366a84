"""Engines: what runs the tensors of a bundle. One file each; no other module depends on which.

An engine is added as a file here and a line in `REGISTRY`; by an installed package
(`eagleray.plugins`) with `REGISTRY.register`. Its library is imported when it is first used.
"""

import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np

from eagleray import errors, plugins
from eagleray.engines.engine import Engine as Engine
from eagleray.engines.engine import Imported as Imported
from eagleray.engines.engine import Input as Input
from eagleray.engines.engine import Output as Output
from eagleray.engines.engine import Remembering as Remembering
from eagleray.learn import features

TORCH = "torch"  # of bundles that do not name their engine
ENSEMBLE = "ensemble"

REGISTRY: plugins.Registry[str] = plugins.Registry(
    "engine",
    {
        TORCH: "eagleray.engines.torch:Torch",
        "onnx": "eagleray.engines.onnx:Onnx",
        "lightgbm": "eagleray.engines.lightgbm:LightGbm",
        "recommender": "eagleray.engines.recommender:Recommender",
        "export": "eagleray.engines.export:Export",
        ENSEMBLE: "eagleray.engines.ensemble:Ensemble",
    },
)
"""`package.module:class` of each engine by name."""


def member(name: str) -> type[Engine]:
    """The class of an engine; NotFoundError if there is none, ServingError if it lacks a library.

    The caller's message names the bundle.
    """
    try:
        return cast("type[Engine]", pkgutil.resolve_name(REGISTRY[name]))
    except ImportError as cause:
        raise errors.ServingError(
            f"engine {name}: its library must be installed, but {cause}"
        ) from cause


def load(
    described: Mapping[str, Any], files: Mapping[str, bytes], shape: features.Shape, outputs: int
) -> Engine:
    """The engine of a bundle, from its `bundle.json` and its files."""
    return member(described.get("engine", TORCH)).load(described, files, shape, outputs)


def parts(engine: Engine, inputs: features.Inputs) -> Iterator[tuple[Engine, features.Inputs]]:
    """The engines that run the models, with their inputs: an ensemble's members, else the one."""
    from eagleray.engines.ensemble import Ensemble

    if not isinstance(engine, Ensemble):
        yield engine, inputs
        return
    for one, own in engine.parts(inputs):
        yield one.engine, own


def run(engine: Engine, inputs: features.Inputs) -> np.ndarray:
    """Raw outputs (B, C) of B rows, at most `engine.chunk` of them at a time."""
    rows, chunk = len(next(iter(inputs.values()))), engine.chunk
    if rows <= chunk:
        return engine.run(inputs)
    parts = ({k: v[at : at + chunk] for k, v in inputs.items()} for at in range(0, rows, chunk))
    return np.concatenate([engine.run(part) for part in parts])
