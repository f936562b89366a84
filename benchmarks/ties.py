"""Test accuracy if the lower loss breaks ties of validation scores, or the first one wins.

On few rows many epochs of a trial, and many trials, reach the same accuracy. Over several splits,
trials with drawn rates are trained once, and both rules choose among the same epochs.

Run: python -m benchmarks.ties [--splits 30] [--trials 16]
"""

import argparse
import itertools
import json
import random
import statistics
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

from eagleray import spec
from eagleray.learn import metrics
from ray_jobs import training
from ray_jobs.data import prepare

TABLES = ("wine", "breast_cancer", "digits")
LEAST = 1.0  # of the accuracy of those that came first
FILE = """
name: ties
data: {{source: 'dataset:{name}', target: target, seed: {seed}}}
model: {{type: mlp}}
train: {{epochs: 30, early_stopping: {{patience: 4}}}}
tune: {{metric: accuracy}}
storage: file://{folder}
"""


class Epoch(NamedTuple):
    """What an epoch reached on the validation part and on the test part."""

    score: float
    loss: float
    test: float


def epochs(chosen: spec.Experiment, dataset: prepare.Dataset) -> list[Epoch]:
    """Train a trial; return all of its epochs."""
    configuration, found = chosen.default(), list[Epoch]()
    data = dataset.encode(dataset.fit(configuration.features))
    running = training.Trainer(configuration, data, metric="accuracy")
    test = dataset.part(data.transforms, dataset.split.test)
    inputs = {name: torch.from_numpy(array) for name, array in test.inputs.items()}
    while not running.finished:
        running.epoch()
        running.model.eval()
        with torch.no_grad():
            label_B = running.model(inputs).argmax(1).numpy()
        done = running.progress.history[-1]
        right = float((label_B == test.targets).mean())
        found.append(Epoch(done["accuracy"], metrics.tie_breaker(done), right))
    return found


def first(found: list[Epoch]) -> Epoch:
    """The first epoch with the best score."""
    return max(found, key=lambda one: one.score)


def lowest_loss(found: list[Epoch]) -> Epoch:
    """The epoch with the lowest loss among those with the best score."""
    return max(found, key=lambda one: (one.score, -one.loss))


def split(name: str, seed: int, trials: int, folder: Path) -> list[list[Epoch]]:
    """Train trials on one split; return the epochs of each."""
    file = folder / f"{name}_{seed}.yaml"
    file.write_text(FILE.format(name=name, seed=seed, folder=folder))
    dataset, drawn = prepare.dataset(spec.load(file)), random.Random(seed)
    found = []
    for number in range(trials):
        rates = {
            "train.lr": str(10 ** drawn.uniform(-3.3, -2.0)),
            "model.dropout": str(drawn.uniform(0.0, 0.4)),
            "train.seed": str(number),
        }
        found.append(epochs(spec.load(file, rates), dataset))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--splits", type=int, default=30)
    parser.add_argument("--trials", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    winners: dict[str, list[float]] = {"first": [], "lowest_loss": []}
    with tempfile.TemporaryDirectory() as folder:
        for name in TABLES:
            splits = [
                split(name, seed, options.trials, Path(folder))
                for seed in range(1, options.splits + 1)
            ]
            for rule in (first, lowest_loss):
                alone = [rule(trial).test for trial in itertools.chain(*splits)]
                chosen = [rule([rule(trial) for trial in trials]).test for trials in splits]
                winners[rule.__name__] += chosen
                means = {"trials": statistics.mean(alone), "winners": statistics.mean(chosen)}
                print(name, rule.__name__, {key: round(one, 4) for key, one in means.items()})
    ours, peer = (statistics.mean(winners[rule]) for rule in ("lowest_loss", "first"))
    claim = (
        f"test accuracy of winners on {options.splits} splits of {len(TABLES)} sets, where the"
        " lower loss decides between equal scores; the peer takes the first"
    )
    figures = {"ours": round(ours, 4), "peer": round(peer, 4), "ratio": round(ours / peer, 4)}
    print(json.dumps({"claim": claim, **figures, "target": LEAST, "holds": ours / peer >= LEAST}))


if __name__ == "__main__":
    main()
