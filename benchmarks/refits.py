"""Test scores of an `auto` search's trials, and of the same trained anew on more rows (ADR 49).

Of each model the best trials of a search are trained anew on the rows of training and validation,
for their best epoch. Both are judged on the test part.

Run: python -m benchmarks.refits [NAME …] --tables FOLDER [--seeds N …] [--minutes M]
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich import console

from benchmarks import quality
from eagleray import bundle
from eagleray.learn import metrics
from eagleray.state import searches
from eagleray.storage import blobs
from ray_jobs import bundles, cluster, learner, pipeline, refit, search

BEST = 3
"""How many of the best trials of each model are trained anew."""
TREES, LEAST = "boosting", 0.5
"""The model that is claimed to gain, and the share of tables on which it has to."""


def anew(searched: search.Search, trial: searches.Record) -> bundle.Bundle:
    """Train a trial's refit in this process."""
    found = refit.of(searched, [trial])
    record = found.records[trial.number]
    configuration = found.search.experiment.configuration(record.values)
    data = found.search.dataset.encode(found.search.transforms(configuration))
    running = learner.build(configuration, data, metric=searched.metric)
    running.progress.until = record.until
    while not running.finished:
        running.epoch()
    weights = (blobs.put(searched.storage, running.best("refits")),)
    return bundles.of(found.search, record.model_copy(update={"weights": weights}))


def measure(
    name: str, seed: int, options: argparse.Namespace, folder: Path
) -> dict[str, tuple[float, float]]:
    """Mean test scores of each model's best trials, as they are and trained anew."""
    chosen = quality.table(name, "auto", seed, options, folder)
    ended = pipeline.run(chosen, console.Console(file=sys.stderr, highlight=False))
    searched, dataset = ended.search, ended.search.dataset
    test = dataset.split.test
    columns, truth_B = dataset.take(test), dataset.targets[test]

    def score(model: bundle.Bundle) -> float:
        outputs: np.ndarray = model.predict_columns(columns).outputs
        return metrics.score(dataset.schema.target, truth_B, outputs)[searched.metric]

    found: dict[str, tuple[float, float]] = {}
    trials = [one for one in searched.able(ended.trials) if one.weights]
    models = {
        one.number: searched.experiment.configuration(one.values).model.type for one in trials
    }
    for model in sorted(set(models.values())):
        best = [one for one in trials if models[one.number] == model][:BEST]
        plain = statistics.mean(score(bundles.of(searched, one)) for one in best)
        found[model] = plain, statistics.mean(score(anew(searched, one)) for one in best)
        told = {"model": model, "trials": len(best), "plain": plain, "anew": found[model][1]}
        print(json.dumps({"table": name, "seed": seed, "metric": searched.metric} | told))
    sign = 1 if searched.mode == "max" else -1
    return {model: (sign * plain, sign * again) for model, (plain, again) in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", choices=[*quality.TABLES, []])
    parser.add_argument("--tables", type=Path, required=True, help="folder with the files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--minutes", type=float, default=1, help="of each search")
    options = parser.parse_args()
    options.trials, options.plain = 500, False
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, cluster.connected():
        found = [
            measure(name, seed, options, Path(folder))
            for name, seed in itertools.product(options.names or quality.TABLES, options.seeds)
        ]
    models = {model for one in found for model in one}
    for model in sorted(models, key=lambda one: (one == TREES, one)):
        pairs = [one[model] for one in found if model in one]
        better = sum(again > plain for plain, again in pairs)
        text = f"of {len(pairs)} searches, those in which trials of {model} are better trained anew"
        figures = {"ours": better, "peer": len(pairs), "ratio": round(better / len(pairs), 2)}
        target = {"target": LEAST, "holds": better > LEAST * len(pairs)} if model == TREES else {}
        print(json.dumps({"claim": text, **figures, **target}))


if __name__ == "__main__":
    main()
