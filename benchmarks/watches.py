"""What it costs to watch a training: epochs with and without, in turns, by one thread.

Without: no layer is measured, no dead unit counted, no loss of a batch looked at. An epoch that is
watched is the dearest kind: of a trial of many epochs at most 32 are.

Run: python -m benchmarks.watches [--rounds 150]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from eagleray import spec
from ray_jobs import pack, training, watches
from ray_jobs.data import prepare

FILE = """
name: bench-watches
data: {{source: "dataset:{source}", target: target}}
model: {model}
train: {{lr: {{loguniform: [1.0e-3, 1.0e-2]}}, epochs: 32, batch_size: 32}}
tune: {{search: random}}
storage: file:///tmp/unused
"""
CASES = {
    "mlp": ("digits", "{type: mlp, hidden: [128, 64]}"),
    "small mlp": ("wine", "{type: mlp, hidden: [16]}"),
    "tabm": ("breast_cancer", "{type: tabm, members: 8, width: 64}"),
}
PACKED = 16


class Unwatched(training.Trainer):
    """Trains without a look."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._strict = False

    @property
    def is_watched(self) -> bool:
        return False


class NoLosses(watches.Losses):
    """Keeps no loss."""

    def add(self, *_: object) -> None: ...

    def found(self) -> tuple[list[float | None], list[int | None]]:
        return [None] * PACKED, [None] * PACKED


def seconds(trainers: Sequence[training.Trainer]) -> float:
    """CPU time of an epoch of all of them, which is steadier than time on a busy machine."""
    began = time.process_time()
    if len(trainers) == 1:
        trainers[0].epoch()
    else:
        pack.epoch(trainers)
    return time.process_time() - began


def cost(folder: Path, name: str, count: int, rounds: int) -> float:
    """How much longer an epoch is that is watched, as a part of one that is not."""
    source, model = CASES[name]
    file = folder / "bench.yaml"
    file.write_text(FILE.format(source=source, model=model))
    chosen = spec.load(file)
    dataset = prepare.dataset(chosen)
    data = dataset.encode(dataset.fit(chosen.default().features))
    made = {
        kind: [kind(chosen.default(), data, metric="accuracy") for _ in range(count)]
        for kind in (training.Trainer, Unwatched)
    }
    real, taken = watches.Losses, dict[Any, list[float]]()
    for _ in range(rounds):
        for kind, trainers in made.items():
            watches.Losses = real if kind is training.Trainer else NoLosses  # type: ignore[misc]
            taken.setdefault(kind, []).append(seconds(trainers))
    watches.Losses = real  # type: ignore[misc]
    watched, bare = (statistics.median(one[5:]) for one in taken.values())
    return watched / bare - 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=150)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name in CASES:
            for count in (1, PACKED) if name != "tabm" else (1,):
                share = cost(Path(folder), name, count, options.rounds)
                claim = f"part of an epoch that watching adds: {name}, {count} in one pass"
                found = {"claim": claim, "ours": round(share, 4), "target": 0.03}
                print(json.dumps(found | {"holds": share <= found["target"]}), flush=True)  # type: ignore[operator]


if __name__ == "__main__":
    main()
