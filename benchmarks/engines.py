"""What runs a model fastest: CPU time of a batch in torch, ONNX Runtime and torch.compile, in turn.

`python benchmarks/engines.py [--compile]`; one thread, the models of EagleRay's examples. The last
line is JSON: the claim, and ratios of torch's time to that of ONNX Runtime.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch

from eagleray.engines import exported
from eagleray.engines.torch import Torch
from eagleray.learn import arrays, features, models

ROUNDS, TARGET = 7, 1.25
DIGITS = features.Shape(numeric=64, categories=0, table=0, tokens=0, image=None)
ADULT = features.Shape(numeric=6, categories=8, table=118, tokens=0, image=None)
PICTURES = features.Shape(numeric=0, categories=0, table=0, tokens=0, image=(1, 8, 8))


class Model(NamedTuple):
    """A model's section of the experiment file, its inputs and its outputs."""

    options: Mapping[str, str]
    shape: features.Shape
    outputs: int


MODELS = {
    "digits mlp": Model({"type": "mlp"}, DIGITS, 10),
    "adult mlp": Model({"type": "mlp"}, ADULT, 2),
    "digits image": Model({"type": "image"}, PICTURES, 10),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compile", action="store_true", help="also torch.compile: minutes")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    ratios = {}
    for name, model in MODELS.items():
        runs = _runs(model, compiled=asked.compile)
        for rows in (1, 32, 256):
            spent = _spent(runs, _batch(model.shape, rows))
            ratios[f"{name}, {rows}"] = round(spent["torch"] / spent["onnx"], 2)
            print(name, rows, {one: f"{1e6 * value:.0f} µs" for one, value in spent.items()})
    claim = "torch's CPU time of a batch is at least so many times that of ONNX Runtime"
    least = min(ratios.values())
    print(json.dumps({"claim": claim, "ratios": ratios, "ratio": least, "target": TARGET,
                      "holds": least >= TARGET}))  # fmt: skip


def _runs(model: Model, *, compiled: bool) -> dict[str, Callable[[features.Inputs], object]]:
    options = models.parse(model.options)
    engine = Torch(options, models.build(options, model.shape, model.outputs))
    runs: dict[str, Callable[[features.Inputs], object]] = {
        "torch": engine.run,
        "onnx": exported.Graph(engine.module, _batch(model.shape, 4)).run,
    }
    if compiled:
        module = torch.compile(engine.module, dynamic=True)

        def run(inputs: features.Inputs) -> np.ndarray:
            with torch.inference_mode(), warnings.catch_warnings():
                tensors = {name: arrays.tensor(value) for name, value in inputs.items()}
                raw: np.ndarray = module(tensors).double().numpy()
            return raw

        runs["compile"] = run
    return runs


def _spent(
    runs: dict[str, Callable[[features.Inputs], object]], batch: features.Inputs
) -> dict[str, float]:
    """Seconds of CPU time of one call, the least of several rounds."""
    rows, best = len(next(iter(batch.values()))), dict.fromkeys(runs, float("inf"))
    count = max(5, 500 // rows)
    for run in runs.values():
        run(batch)
    for _ in range(ROUNDS):
        for name, run in runs.items():
            started = time.thread_time()
            for _ in range(count):
                run(batch)
            best[name] = min(best[name], (time.thread_time() - started) / count)
    return best


def _batch(shape: features.Shape, rows: int) -> features.Inputs:
    random, inputs = np.random.default_rng(0), {}
    if shape.numeric:
        inputs["numeric"] = random.normal(size=(rows, shape.numeric)).astype(np.float32)
    if shape.categories:
        drawn = random.integers(0, shape.table, (rows, shape.categories))
        inputs["categories"] = drawn.astype(np.int32)
    if shape.image:
        inputs["image"] = random.normal(size=(rows, *shape.image)).astype(np.float32)
    return inputs


if __name__ == "__main__":
    main()
