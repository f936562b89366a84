"""ASHA against random search: the epochs that it takes to reach random search's best score.

Random search trains each of its trials to the end. ASHA draws from the same sampler, with the same
seed, and may go on with further trials; counted are the epochs of all trials, those that still run
included, when a trial with that score or a better one has ended. Figures are medians over seeds.

Run: python benchmarks/asha.py [--trials 32] [--epochs 27] [--seeds 3]
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from eagleray import spec
from eagleray.state import searches
from ray_jobs import cluster, search, tuning

ADULT = Path(__file__).parents[1] / "tests" / "data" / "adult.csv.gz"
DATA = {
    "digits": ('{source: "dataset:digits", target: target}', "log_loss", 64),
    "adult": (f'{{source: "{ADULT}", target: income, positive: ">50K"}}', "roc_auc", 512),
}
"""By name: section, metric, rows of a batch."""
FILE = """
name: bench-asha
data: {data}
model: {{type: mlp, hidden: {{choice: [[32], [128], [128, 64]]}}, dropout: {{uniform: [0.0, 0.5]}}}}
train:
  lr: {{loguniform: [1.0e-4, 1.0e-1]}}
  weight_decay: {{loguniform: [1.0e-6, 1.0e-2]}}
  batch_size: {batch_size}
  epochs: {epochs}
tune: {{trials: {trials}, search: random, scheduler: {scheduler}, metric: {metric}, seed: {seed}}}
storage: file://{folder}
"""


def tuned(folder: Path, **options: object) -> tuple[search.Search, list[tuple[int, float]]]:
    """Run a search; return it, and after each ended trial the epochs so far and its score."""
    file = folder / "bench.yaml"
    file.write_text(FILE.format(folder=folder, **options))
    searched, trials = search.Search(spec.load(file)), dict[int, searches.Record]()
    lease = searched.records.watcher().acquire()
    assert lease is not None
    searched.write_under(lease)
    steps: list[tuple[int, float]] = []

    def ended(record: searches.Record) -> None:
        if record.score is not None:
            steps.append((sum(one.epoch for one in trials.values()), record.score))

    tuning.run(searched, trials, ended)
    lease.release()
    return searched, steps


def part(folder: Path, data: str, seed: int, options: argparse.Namespace) -> tuple[float, float]:
    """Epochs of ASHA up to random search's best score, and those of random search."""
    section, metric, batch_size = DATA[data]
    known = {"data": section, "metric": metric, "batch_size": batch_size, "seed": seed}
    known["epochs"] = options.epochs
    searched, steps = tuned(folder, trials=options.trials, scheduler="none", **known)
    best = (max if searched.mode == "max" else min)(score for _, score in steps)
    _, halved = tuned(folder, trials=3 * options.trials, scheduler="asha", **known)
    sign = 1 if searched.mode == "max" else -1
    reached = (epochs for epochs, score in halved if sign * (score - best) >= 0)
    ours, peer = next(reached, float("inf")), steps[-1][0]
    last = f"{halved[-1][0]} epochs in all"
    print(f"  {data} seed {seed}: {metric} {best:.5f}, {ours} of {peer}, {last}", file=sys.stderr)
    return ours, peer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    options = parser.parse_args()
    for data in options.data:
        with tempfile.TemporaryDirectory() as folder, cluster.connected():
            pairs = [part(Path(folder), data, seed, options) for seed in range(options.seeds)]
        ours, peer = (statistics.median(values) for values in zip(*pairs, strict=True))
        claim = f"epochs up to random search's best score on {data}, ASHA over random search"
        figures = {"ours": ours, "peer": peer, "ratio": round(ours / peer, 3)}
        holds = {"target": 0.333, "holds": 3 * ours <= peer}
        print(json.dumps({"claim": claim, **figures, **holds}), flush=True)


if __name__ == "__main__":
    main()
