"""What a GPU brings: epochs and packs of trials, and tables answered, beside its machine's CPU.

Each part is run on both; a figure is the least of several rounds.

Run: python -m benchmarks.gpu [--parts epochs packs rows]
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks import engines as served
from eagleray import spec
from eagleray.engines import placement
from eagleray.engines.torch import CHUNKS, Torch
from eagleray.learn import models
from ray_jobs import pack, pack_size, strategies, training
from ray_jobs.data import encoded, prepare

ROUNDS, ROWS, COLUMNS = 4, 200_000, 20
FILE = """
name: bench-gpu
data: {{source: '{source}', target: target}}
model: {model}
train: {{lr: {{loguniform: [1.0e-3, 1.0e-1]}}, epochs: 99, batch_size: {batch}}}
tune: {{search: random}}
storage: file:///tmp/unused
"""
EPOCHS = {
    "tabm, 200,000 x 20": ("big.parquet", "{type: tabm}", 1024),
    "mlp of two layers of 1,024, 200,000 x 20": (
        "big.parquet",
        "{type: mlp, hidden: [1024, 1024]}",
        1024,
    ),
    "digits as pictures": ("dataset:digits", "{type: image}", 256),
    "digits as columns, mlp": ("dataset:digits", "{type: mlp, hidden: [16]}", 32),
}
PACKS = {
    "digits, batches of 32": ("dataset:digits", 32),
    "digits, batches of 256": ("dataset:digits", 256),
    "breast cancer, batches of 32": ("dataset:breast_cancer", 32),
}
SIZES = (8, 32)
CLAIMS = {
    "epochs": ("seconds on the CPU over those on the GPU, fp32", 1),
    "packs": ("a pack's gain on the GPU over the least for which packs are chosen", 1),
    "rows": ("seconds of a table in the best parts over those in the parts replicas take", 0.9),
}
"""By part: what its ratios are of, and their target."""
PLACES = (("cuda", "fp32"), ("cuda", "bf16"), ("cuda", "fp16"), ("cpu", "fp32"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", default=["epochs", "packs", "rows"])
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        print(f"skipped: torch {torch.__version__} sees no GPU on this machine")
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "rows": rows, "packs": packs, "epochs": epochs,
    }  # fmt: skip
    for part in asked.parts:
        ratios, (claim, target) = parts[part](), CLAIMS[part]
        least = min(ratios.values())
        print(json.dumps({"claim": claim, "ratios": ratios, "ratio": least, "target": target,
                          "holds": least >= target}))  # fmt: skip


def epochs() -> dict[str, float]:
    ratios = {}
    for name, (source, model, batch) in EPOCHS.items():
        chosen, data = _encoded(source, model, batch)
        found = {}
        for device, precision in PLACES:
            one = _trainer(chosen.default(), data, device, precision)
            found[f"{device} {precision}"] = _least(one.epoch, 1 if device == "cpu" else ROUNDS)
        print(f"epoch of {name}:", {key: f"{1e3 * value:.0f} ms" for key, value in found.items()})
        ratios[name] = round(found["cpu fp32"] / found["cuda fp32"], 2)
    return ratios


def packs() -> dict[str, float]:
    ratios = {}
    for name, (source, batch) in PACKS.items():
        chosen, data = _encoded(source, "{type: mlp, hidden: [16], dropout: 0.0}", batch)
        gains = {device: _gains(chosen, data, device) for device in ("cuda", "cpu")}
        for size in SIZES:
            print(f"pack of {size}, {name}:", {k: f"{one[size]:.1f}" for k, one in gains.items()})
            ratios[f"{name}, {size}"] = round(gains["cuda"][size] / pack_size.MIN_GAIN, 2)
    return ratios


def rows() -> dict[str, float]:
    ratios = {}
    for name, model in served.MODELS.items():
        batch = served._batch(model.shape, 65_536 if model.shape.image else 262_144)
        for precision in placement.TOLERANCES:
            placement.use(placement.Placement(1, "cuda", precision))
            options = models.parse(model.options)
            engine = Torch(options, models.build(options, model.shape, model.outputs))
            found = {
                size: _per_row(engine, batch, size) for size in (1024, 16_384, 65_536, 262_144)
            }
            print(f"{name}, {precision}, µs a row by rows of a part:",
                  {size: f"{1e6 * value:.3f}" for size, value in found.items()})  # fmt: skip
            ratios[f"{name}, {precision}"] = round(min(found.values()) / found[CHUNKS["cuda"]], 2)
            of_one = {key: value[:1] for key, value in batch.items()}
            print(
                f"{name}, {precision}, a batch of one row: {1e6 * _median(engine, of_one):.0f} µs"
            )
    return ratios


def _encoded(source: str, model: str, batch: int) -> tuple[spec.Experiment, encoded.Encoded]:
    with tempfile.TemporaryDirectory() as held:
        if source.endswith(".parquet"):
            source = str(Path(held) / source)
            _table().to_parquet(source)
        file = Path(held) / "x.yaml"
        file.write_text(FILE.format(source=source, model=model, batch=batch))
        chosen = spec.load(file)
        dataset = prepare.dataset(chosen)
        return chosen, dataset.encode(dataset.fit(chosen.default().features))


def _table() -> pd.DataFrame:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({f"x{place}": random.normal(size=ROWS) for place in range(COLUMNS)})
    score = frame["x0"] * frame["x1"] + frame["x2"]
    return frame.assign(target=np.where(score > random.normal(size=ROWS), "a", "b"))


def _trainer(
    configuration: spec.Configuration, data: encoded.Encoded, device: str, precision: str = "fp32"
) -> training.Trainer:
    strategy = strategies.OneProcess(device, precision)
    return training.Trainer(configuration, data, metric="log_loss", strategy=strategy)


def _gains(chosen: spec.Experiment, data: encoded.Encoded, device: str) -> dict[int, float]:
    """By size, how many times as fast a member of a pack is as a trial alone."""
    alone = _least(_trainer(chosen.default(), data, device).epoch, ROUNDS)
    gains = {}
    for size in SIZES:
        trainers = [_trainer(chosen.default(), data, device) for _ in range(size)]
        gains[size] = alone * size / _least(lambda of=trainers: pack.epoch(of), ROUNDS)  # type: ignore[misc]
    return gains


def _least(run: Callable[[], object], rounds: int) -> float:
    best = math.inf
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - began)
    return best


def _per_row(engine: Torch, batch: dict[str, np.ndarray], size: int) -> float:
    count = len(next(iter(batch.values())))
    pieces = [
        {key: value[start : start + size] for key, value in batch.items()}
        for start in range(0, count, size)
    ]
    return _least(lambda: [engine.run(piece) for piece in pieces], ROUNDS) / count


def _median(engine: Torch, batch: dict[str, np.ndarray]) -> float:
    return float(np.median([_least(lambda: engine.run(batch), 1) for _ in range(100)]))


if __name__ == "__main__":
    main()
