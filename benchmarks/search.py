"""Hyperparameter search against plain Ray Tune, against optuna in processes, and against the ideal.

All train the same trials (same data, same configuration but for the learning rate, same loop):

    ideal     the bare loop in one process: work of a trial, over the cores
    eagleray  `ray_jobs.search`, records and weights in storage included; each trial alone, and
              in packs of the size that `tune.pack: auto` measures
    optuna    a process a core, sharing one study
    ray_tune  a function trial in Ray Tune, as its documentation starts with; fewer of them, since
              each takes a fresh process: its seconds a trial do not depend on their number

What Ray Tune's fresh processes cost does not depend on what a trial does, so the ratio to it falls
as trials grow longer: `--epochs 48` shows trials of about two seconds.

Run: python benchmarks/search.py [--trials 100] [--peer-trials 8] [--epochs 6]
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

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


def bare(chosen: spec.Experiment, rounds: int = 10) -> float:
    """Median seconds of one trial in the bare loop, one process, one thread."""
    import torch

    torch.set_num_threads(1)
    data = encode(chosen)
    train(chosen.default(), data)
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        train(chosen.default(), data)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


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


def claim(text: str, ours: float, peer: float, target: float, *, at_least: bool) -> None:
    ratio = peer / ours if at_least else ours / peer
    holds = ratio >= target if at_least else ratio <= target
    figures = {"ours": round(ours, 4), "peer": round(peer, 4), "ratio": round(ratio, 2)}
    print(json.dumps({"claim": text, **figures, "target": target, "holds": holds}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--peer-trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    from ray_jobs import cluster

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = experiment(folder, trials=options.trials, epochs=options.epochs)
        with cluster.connected():
            whole, warm = ours(chosen, packed=False)
            again = experiment(folder, trials=options.trials, epochs=options.epochs, seed=1)
            packed, packed_warm = ours(again, packed=True)
            work = bare(chosen)
            tuned = plain(chosen, options.peer_trials)
        shared = processes(chosen, folder, options.trials)
    print(f"bare loop {work:.3f} s a trial; seconds a trial on {CORES} cores:", file=sys.stderr)
    for label, value in (
        ("ideal", work / CORES),
        ("eagleray warm", warm),
        ("eagleray", whole),
        ("packs warm", packed_warm),
        ("packs", packed),
        ("optuna processes", shared),
        ("plain Ray Tune", tuned),
    ):
        print(f"  {label:18}{value:8.3f}", file=sys.stderr)
    ideal = work / CORES
    claim("seconds a trial, optuna processes over EagleRay", whole, shared, 0.8, at_least=True)
    claim("seconds a warm trial over the ideal", warm, ideal, 1.2, at_least=False)
    claim("seconds a trial, plain Ray Tune over packs", packed, tuned, 40, at_least=True)
    claim("seconds a warm trial, the ideal over packs", packed_warm, ideal, 3, at_least=True)


if __name__ == "__main__":
    main()
