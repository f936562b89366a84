"""What folds and a refit gain on small tables, beside one validation part.

The same random configurations are compared on one validation part, and by five folds; the winner of
each is judged on the same test part as it was trained, and trained anew. Each table is split anew
by each seed. Run: python benchmarks/folds.py
"""

import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna

from eagleray import spec
from eagleray.learn import metrics
from ray_jobs import folded, learner, search
from ray_jobs.data import prepare, split

SEEDS, CONFIGURATIONS, FOLDS = 10, 12, 5
TABLES = {"diabetes": "r2", "breast_cancer": "log_loss"}
FILE = """
name: folds
data: {{source: 'dataset:{table}', target: target}}
model: {{hidden: {{choice: [[16], [64], [64, 64]]}}, dropout: {{uniform: [0.0, 0.6]}}}}
train:
  lr: {{loguniform: [3e-3, 1e-1]}}
  weight_decay: {{loguniform: [1e-3, 1.0]}}
  optimizer: adamw
  batch_size: 32
  epochs: 15
tune: {{metric: {metric}, folds: {folds}}}
storage: file:///unused
"""


class Chosen(NamedTuple):
    """The winner's metric on the test part: as it was trained, and trained anew."""

    plain: float
    anew: float


def drawn(searched: search.Search, seed: int) -> list[spec.Configuration]:
    sampler = optuna.samplers.RandomSampler(seed=seed)
    study, space = optuna.create_study(sampler=sampler), searched.experiment.space
    found = []
    for _ in range(CONFIGURATIONS):
        asked = study.ask()
        values = {key: one.suggest(asked, key) for key, one in space.items()}
        found.append(searched.experiment.configuration(values))
    return found


def finish(running: learner.Learner) -> learner.Learner:
    while not running.finished:
        running.epoch()
    return running


def start(one: spec.Configuration, data: prepare.Dataset, metric: str) -> learner.Learner:
    return learner.build(one, data.encode(data.fit(one.features)), metric=metric)


def tested(one: spec.Configuration, data: prepare.Dataset, metric: str, until: int) -> float:
    """Train for so many epochs on the training part, and judge the last one on the test part."""
    parts = data.split
    data = replace(data, split=split.Split(parts.train, parts.test, parts.test))
    running = start(one, data, metric)
    running.progress.until = until
    return finish(running).progress.best[metric]


def by_validation(searched: search.Search, seed: int) -> Chosen:
    metric, data = searched.metric, searched.dataset
    trials = [(finish(start(one, data, metric)), one) for one in drawn(searched, seed)]
    best, chosen = max(trials, key=lambda trial: trial[0].score)
    until = best.progress.best_epoch
    return Chosen(tested(chosen, data, metric, until), tested(chosen, data.whole(), metric, until))


def by_folds(searched: search.Search, seed: int) -> Chosen:
    metric, data = searched.metric, searched.dataset

    def crossed(one: spec.Configuration) -> learner.Learner:
        return folded.Folded(lambda number: start(one, data.fold(number), metric), FOLDS)

    trials = [(finish(crossed(one)), one) for one in drawn(searched, seed)]
    best, chosen = max(trials, key=lambda trial: trial[0].score)
    until = folded.best_epoch(best.progress.history)
    return Chosen(tested(chosen, data, metric, until), tested(chosen, data.whole(), metric, until))


def opened(folder: Path, table: str, seed: int, folds: int) -> search.Search:
    file = folder / f"{table}.yaml"
    file.write_text(FILE.format(table=table, metric=TABLES[table], folds=folds))
    return search.Search(spec.load(file, {"data.seed": str(seed)}))


def claims() -> Iterator[dict[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        for table, metric in TABLES.items():
            seeds = range(SEEDS)
            one = [by_validation(opened(Path(folder), table, seed, 1), seed) for seed in seeds]
            many = [by_folds(opened(Path(folder), table, seed, FOLDS), seed) for seed in seeds]
            sign = 1 if metrics.REGISTRY[metric].mode == "max" else -1
            peer = np.array([chosen.plain for chosen in one])
            for name, ours in (
                ("one validation part, trained anew", [chosen.anew for chosen in one]),
                (f"{FOLDS} folds, not trained anew", [chosen.plain for chosen in many]),
                (f"{FOLDS} folds, trained anew", [chosen.anew for chosen in many]),
            ):
                gain = sign * (np.array(ours) - peer)
                error = float(gain.std(ddof=1) / math.sqrt(SEEDS))
                yield {
                    "claim": f"{table}, mean {metric} of {SEEDS} test parts: {name}",
                    "ours": float(np.mean(ours)),
                    "peer": float(peer.mean()),
                    "gain": float(gain.mean()),
                    "standard_error": error,
                    "better": int((gain > 0).sum()),
                }


if __name__ == "__main__":
    for line in claims():
        print(json.dumps(line), flush=True)
