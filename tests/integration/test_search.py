"""Searches on real Ray with real storage: found, kept, interrupted, resumed, failed."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich import console

from eagleray import bundle, errors, schema, spec, storage
from eagleray.registry import Registry
from ray_jobs import cluster, finish, records, search

FILE = """
name: wine
data: {source: 'dataset:wine', target: target}
model: {hidden: {choice: [[16], [32]]}}
train: {lr: {loguniform: [1.0e-3, 1.0e-1]}, epochs: 9, batch_size: 32}
tune: {trials: 6, metric: log_loss}
"""


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    with cluster.connected():
        yield


@pytest.fixture
def out() -> console.Console:
    return console.Console(file=io.StringIO(), width=200)


def printed(out: console.Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def experiment(folder: Path, text: str = FILE, **overrides: str) -> spec.Experiment:
    file = folder / "wine.yaml"
    file.write_text(text + f"storage: file://{folder}/storage\n")
    return spec.load(file, overrides)


def kept(chosen: spec.Experiment) -> dict[str, Any]:
    """Every object in storage but blobs, by key."""
    store = storage.open(chosen.storage)
    keys = [entry.key for entry in store.list() if not entry.key.startswith("blobs/")]
    return {key: store.get(key) for key in keys}


def test_an_experiment_becomes_a_champion_that_answers_as_it_did_in_training(
    ray_cluster: None, tmp_path: Path, out: console.Console
) -> None:
    chosen = experiment(tmp_path)
    ended = finish.experiment(chosen, out)
    assert (ended.result.version, ended.champion) == (1, 1)
    assert {one.status for one in ended.outcome.trials} <= {"finished", "stopped"}
    assert len(ended.outcome.trials) == 6
    scores = [one.score for one in ended.outcome.trials]
    assert scores == sorted(scores)
    registry = Registry(storage.open(chosen.storage))
    made = bundle.load(registry, registry.resolve("wine", "champion"))
    made.verify()
    dataset = ended.outcome.dataset
    columns = {name: column[dataset.split.test] for name, column in dataset.columns.items()}
    raw = schema.to_json(dataset.schema, columns)
    right = made.predict(raw).outputs.argmax(1) == dataset.targets[dataset.split.test]
    assert right.mean() == pytest.approx(ended.result.test["accuracy"])


def test_run_again_a_search_that_ended_gives_its_result_and_registers_nothing(
    ray_cluster: None, tmp_path: Path, out: console.Console
) -> None:
    chosen = experiment(tmp_path, **{"tune.trials": "2"})
    first = finish.experiment(chosen, out)
    before = kept(chosen)
    again = finish.experiment(chosen, out)
    assert "has ended before" in printed(out)
    assert again.summary() == first.summary()
    assert kept(chosen) == before


def test_another_seed_is_another_version_that_waits_for_a_person(
    ray_cluster: None, tmp_path: Path, out: console.Console
) -> None:
    finish.experiment(experiment(tmp_path, **{"tune.trials": "1"}), out)
    second = experiment(tmp_path, **{"tune.trials": "1", "train.seed": "1"})
    ended = finish.experiment(second, out)
    assert (ended.result.version, ended.champion) == (2, 1)
    promote = f"eagleray models promote wine 2 --storage {second.storage}"
    assert promote in ended.next_steps()


def test_a_grid_is_tried_whole_and_no_point_twice(
    ray_cluster: None, tmp_path: Path, out: console.Console
) -> None:
    text = FILE.replace("{loguniform: [1.0e-3, 1.0e-1]}", "{choice: [0.001, 0.01, 0.1]}")
    chosen = experiment(tmp_path, text, **{"tune.search": "grid", "tune.trials": "100"})
    ended = finish.experiment(chosen, out)
    points = {str(one.values) for one in ended.outcome.trials}
    assert len(points) == len(ended.outcome.trials) == 6


def test_searched_features_are_encoded_for_each_setting(
    ray_cluster: None, tmp_path: Path, out: console.Console
) -> None:
    text = FILE + "features: {alcohol: {type: numeric, scale: {choice: [standard, quantile]}}}\n"
    chosen = experiment(tmp_path, text, **{"tune.search": "random", "tune.trials": "8"})
    ended = finish.experiment(chosen, out)
    tried = {one.values["features.alcohol.scale"] for one in ended.outcome.trials}
    assert tried == {"standard", "quantile"}
    assert all(one.status != "failed" for one in ended.outcome.trials)


def test_a_trial_whose_loss_explodes_fails_alone_and_names_the_epoch(
    ray_cluster: None, tmp_path: Path, out: console.Console
) -> None:
    text = FILE.replace("{loguniform: [1.0e-3, 1.0e-1]}", "{choice: [0.01, 1.0e+30]}")
    overrides = {"tune.search": "grid", "train.optimizer": "sgd"}
    ended = finish.experiment(experiment(tmp_path, text, **overrides), out)
    failed = [one for one in ended.outcome.trials if one.status == "failed"]
    assert [one.values["train.lr"] for one in failed] == [1e30, 1e30]
    assert all("in epoch" in str(one.failure) for one in failed)
    assert ended.outcome.winner.values["train.lr"] == 0.01


def test_a_search_in_which_all_trials_fail_says_why_and_registers_nothing(
    ray_cluster: None, tmp_path: Path, out: console.Console
) -> None:
    overrides = {"train.lr": "1.0e+30", "train.optimizer": "sgd", "tune.trials": "2"}
    chosen = experiment(tmp_path, **overrides)
    with pytest.raises(errors.SearchError, match=r"no trial gave a model: .* in epoch \d"):
        finish.experiment(chosen, out)
    assert not any(key.startswith("models/") for key in kept(chosen))


def test_ones_own_model_and_loss_train_and_travel_with_the_bundle(
    ray_cluster: None, tmp_path: Path, out: console.Console
) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, shape, outputs, width):\n"
        "        super().__init__()\n"
        "        self.layers = torch.nn.Sequential(\n"
        "            torch.nn.Linear(shape.numeric, width), torch.nn.ReLU(), torch.nn.Linear(width, outputs))\n"
        "    def forward(self, inputs):\n"
        "        return self.layers(inputs['numeric'])\n"
        "def loss(outputs, targets):\n"
        "    return torch.nn.functional.multi_margin_loss(outputs, targets)\n"
    )
    text = FILE.replace(
        "{hidden: {choice: [[16], [32]]}}", "{type: 'own:Net', width: {choice: [8, 16]}}"
    )
    chosen = experiment(tmp_path, text, **{"train.loss": "own:loss", "tune.trials": "2"})
    finish.experiment(chosen, out)
    (tmp_path / "own.py").unlink()
    registry = Registry(storage.open(chosen.storage))
    bundle.load(registry, registry.resolve("wine", "1")).verify()


def test_interrupted_and_run_again_a_search_goes_on_where_it_was(tmp_path: Path) -> None:
    """Ctrl-C in a process of its own; the finished trials stay, the others are made up."""
    chosen = experiment(tmp_path, **{"tune.trials": "8", "tune.scheduler": "none"})
    slow = ["--set", "tune.trials=8", "--set", "tune.scheduler=none", "--set", "train.epochs=150"]
    command = [sys.executable, "-m", "eagleray", "run", str(chosen.path), *slow]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    _wait_for_records(chosen, 3)
    first.send_signal(signal.SIGINT)
    assert first.wait(60) == 130
    before = _records(chosen)
    ended = {number for number, one in before.items() if one.status == "finished"}
    assert 3 <= len(ended) < 8
    second = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    after = _records(chosen)
    assert sorted(after) == list(range(1, 9))
    assert all(one.status == "finished" for one in after.values())
    assert all(after[number] == before[number] for number in ended)
    assert "registered wine version 1" in second.stdout


def _records(chosen: spec.Experiment) -> dict[int, records.Record]:
    found = [
        records.Record.model_validate_json(content)
        for key, content in kept(chosen).items()
        if "/trials/" in key
    ]
    return {one.number: one for one in found}


def _wait_for_records(chosen: spec.Experiment, count: int) -> None:
    until = time.monotonic() + 90
    while time.monotonic() < until:
        if sum(one.status == "finished" for one in _records(chosen).values()) >= count:
            return
        time.sleep(0.05)
    pytest.fail(f"no {count} trials were finished in 90 s")


def test_rungs_are_epochs_at_which_trials_are_compared(tmp_path: Path) -> None:
    assert search.rungs(experiment(tmp_path, **{"train.epochs": "30"})) == (30, [3, 9, 27])
    assert search.rungs(experiment(tmp_path, **{"tune.scheduler": "none"})) == (9, [])
    drawn = {"train.epochs": "{choice: [5, 20]}"}
    assert search.rungs(experiment(tmp_path, **drawn))[0] == 20


def test_a_metric_of_another_task_is_refused_before_compute_is_spent(
    tmp_path: Path, out: console.Console
) -> None:
    with pytest.raises(errors.UserError, match="must be one of accuracy, .* for multiclass"):
        finish.experiment(experiment(tmp_path, **{"tune.metric": "rmse"}), out)


def test_golden_rows_are_found_to_be_off_when_a_weight_is(
    ray_cluster: None, tmp_path: Path, out: console.Console
) -> None:
    chosen = experiment(tmp_path, **{"tune.trials": "1"})
    finish.experiment(chosen, out)
    registry = Registry(storage.open(chosen.storage))
    made = bundle.load(registry, registry.resolve("wine", "champion"))
    parameter = next(made.model.parameters())
    parameter.data += 0.5
    with pytest.raises(errors.ServingError, match="golden rows must be reproduced"):
        made.verify()
    assert np.isfinite(parameter.detach().numpy()).all()
