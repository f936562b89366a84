"""Hyperparameter search against plain Ray Tune, against optuna in processes, and against the ideal.

All train the same trials (same data, same configuration but for the learning rate, same loop):

    ideal     the bare loop on all cores at once, a process each: what no search can be faster than
    eagleray  `ray_jobs.search`, records and weights in storage included; each trial alone, and
              in packs of the size that `tune.pack: auto` measures
    optuna    a process a core, sharing one study
    ray_tune  a function trial in Ray Tune, as its documentation starts with; fewer of them, since
              each takes a fresh process: its seconds a trial do not depend on their number

A machine's speed drifts: the ideal is measured before and after each search, and its mean is what
the search is compared with. Figures are medians of the rounds.

What Ray Tune's fresh processes cost does not depend on what a trial does, so the ratio to it falls
as trials grow longer: `--epochs 48` shows trials of about two seconds.

Run: python benchmarks/search.py [--trials 100] [--rounds 3] [--peer-trials 8] [--epochs 6]
"""

import argparse
import functools
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

from eagleray import spec
from ray_jobs import pack_size, search, training, tuning
from ray_jobs.data import encoded, prepare

CORES = os.cpu_count() or 1
FILE = """
name: bench-search
data: {{source: "dataset:digits", target: target}}
model: {{type: mlp, hidden: [128, 64]}}
train:
  lr: {{loguniform: [1.0e-3, 1.0e-2]}}
  epochs: {epochs}
  batch_size: 32
  early_stopping: null
tune: {{trials: {trials}, search: random, scheduler: none, metric: accuracy}}
storage: file://{folder}
"""


def experiment(folder: Path, *, trials: int, epochs: int, seed: int = 0) -> spec.Experiment:
    (folder / "storage").mkdir(exist_ok=True)
    file = folder / "bench.yaml"
    file.write_text(FILE.format(trials=trials, epochs=epochs, folder=folder / "storage"))
    return spec.load(file, {"tune.seed": str(seed)})


def train(configuration: spec.Configuration, data: encoded.Encoded) -> float:
    """The work of one trial, which every contestant does."""
    trainer = training.Trainer(configuration, data, metric="accuracy")
    while not trainer.finished:
        trainer.epoch()
    return trainer.progress.best["accuracy"]


def encode(chosen: spec.Experiment) -> encoded.Encoded:
    dataset = prepare.dataset(chosen)
    return dataset.encode(dataset.fit(chosen.default().features))


def bare(file: Path, trials: int) -> float:
    """Seconds of a trial in the bare loop, in this process by one thread."""
    chosen = spec.load(file)
    data = _encoded(file)
    began = time.perf_counter()
    for _ in range(trials):
        train(chosen.default(), data)
    return (time.perf_counter() - began) / trials


@functools.cache
def _encoded(file: Path) -> encoded.Encoded:
    import torch

    torch.set_num_threads(1)
    chosen = spec.load(file)
    data = encode(chosen)
    train(chosen.default(), data)  # warm
    return data


def ours(chosen: spec.Experiment, *, packed: bool) -> tuple[float, float]:
    """Seconds a trial, start of the workers included; and once each of them is warm."""
    searched, ends, size = search.Search(chosen), list[float](), 1
    began = time.perf_counter()
    if packed:
        size, why = pack_size.choose(searched, trials=chosen.trials, slots=CORES)
        print(f"packs of {size}: {why}", file=sys.stderr)
    lease = searched.records.watcher().acquire()
    assert lease is not None
    searched.write_under(lease)
    tuning.run(searched, {}, lambda _: ends.append(time.perf_counter()), size=size)
    first = CORES * size  # trials of the first round, in which workers start
    whole = (ends[-1] - began) / len(ends)
    return whole, (ends[-1] - ends[first - 1]) / (len(ends) - first)


def plain(chosen: spec.Experiment, trials: int) -> float:
    """Seconds a trial of a Ray Tune function trainable on the same data."""
    from ray import tune

    data = encode(chosen)

    def trial(config: dict[str, Any], data: encoded.Encoded) -> None:
        import torch
        from ray import tune

        torch.set_num_threads(1)
        configuration = chosen.configuration({"train.lr": config["lr"]})
        tune.report({"accuracy": train(configuration, data)})

    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trial, data=data), {"cpu": 1}),
            param_space={"lr": tune.loguniform(1e-3, 1e-2)},
            tune_config=tune.TuneConfig(num_samples=trials, metric="accuracy", mode="max"),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        began = time.perf_counter()
        tuner.fit()
        return (time.perf_counter() - began) / trials


def processes(chosen: spec.Experiment, folder: Path, trials: int) -> float:
    """Seconds a trial of optuna in a process a core, interpreter start included."""
    context = multiprocessing.get_context("spawn")
    share = trials // CORES
    began = time.perf_counter()
    workers = [
        context.Process(target=_optimize, args=(str(chosen.path), str(folder / "journal"), share))
        for _ in range(CORES)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return (time.perf_counter() - began) / (share * CORES)


def _optimize(file: str, journal: str, trials: int) -> None:
    import optuna
    import torch
    from optuna.storages import JournalStorage
    from optuna.storages import journal as journals

    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    chosen = spec.load(file)
    data = encode(chosen)
    study = optuna.create_study(
        study_name="bench",
        storage=JournalStorage(journals.JournalFileBackend(journal)),
        sampler=optuna.samplers.RandomSampler(),
        direction="maximize",
        load_if_exists=True,
    )

    def objective(asked: optuna.trial.Trial) -> float:
        rate = asked.suggest_float("lr", 1e-3, 1e-2, log=True)
        return train(chosen.configuration({"train.lr": rate}), data)

    study.optimize(objective, n_trials=trials)


class Ideal:
    """The bare loop in a process a core, which wait while they are not asked."""

    def __init__(self, file: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._file, self._pool = file, futures.ProcessPoolExecutor(CORES, context)
        self.measure(1)

    def measure(self, trials: int = 10) -> float:
        """Seconds of a trial, over the cores, now."""
        each = [self._pool.submit(bare, self._file, trials) for _ in range(CORES)]
        return statistics.mean(one.result() for one in each) / CORES


class Round(NamedTuple):
    """Seconds a trial: of single trials and of packs, start included and warm, and each's ideal."""

    single: float
    single_warm: float
    single_ideal: float
    packed: float
    packed_warm: float
    packed_ideal: float


def measured(folder: Path, ideal: Ideal, options: argparse.Namespace, seed: int) -> Round:
    def chosen(seed: int) -> spec.Experiment:
        return experiment(folder, trials=options.trials, epochs=options.epochs, seed=seed)

    ideals = [ideal.measure()]
    single = ours(chosen(2 * seed), packed=False)
    ideals.append(ideal.measure())
    packed = ours(chosen(2 * seed + 1), packed=True)
    ideals.append(ideal.measure())
    before, between, after = ideals
    return Round(*single, (before + between) / 2, *packed, (between + after) / 2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    from ray_jobs import cluster

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = experiment(folder, trials=options.trials, epochs=options.epochs)
        ideal = Ideal(chosen.path)
        with cluster.connected():
            rounds = [measured(folder, ideal, options, seed) for seed in range(options.rounds)]
            tuned = plain(chosen, options.peer_trials)
        shared = processes(chosen, folder, options.trials)
    for one in rounds:
        print({name: round(value, 3) for name, value in one._asdict().items()}, file=sys.stderr)
    median = Round(*map(statistics.median, zip(*rounds, strict=True)))
    ratios = [
        (one.single_warm / one.single_ideal, one.packed_ideal / one.packed_warm) for one in rounds
    ]
    over, under = (statistics.median(each) for each in zip(*ratios, strict=True))
    claim(
        "optuna in processes over single trials",
        (median.single, shared),
        shared / median.single,
        0.8,
    )
    claim(
        "plain Ray Tune over packs, start of workers included",
        (median.packed, tuned),
        tuned / median.packed,
        40,
    )
    claim(
        "plain Ray Tune over warm packs",
        (median.packed_warm, tuned),
        tuned / median.packed_warm,
        40,
    )
    claim(
        "warm single trials over the ideal",
        (median.single_warm, median.single_ideal),
        over,
        1.2,
        most=True,
    )
    claim("the ideal over warm packs", (median.packed_warm, median.packed_ideal), under, 3)


def claim(
    text: str, seconds: tuple[float, float], ratio: float, target: float, *, most: bool = False
) -> None:
    """Print a ratio of seconds a trial, ours and the peer's."""
    ours, peer = (round(one, 4) for one in seconds)
    holds = ratio <= target if most else ratio >= target
    found = {"claim": f"seconds a trial: {text}", "ours": ours, "peer": peer}
    found |= {"ratio": round(ratio, 2), "target": target, "holds": holds}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
