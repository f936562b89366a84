"""Searches on real Ray with real storage: found, kept, interrupted, resumed, failed."""

import io
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich import console

from eagleray import bundle, errors, spec, storage
from eagleray.client import local
from eagleray.learn import schema
from eagleray.state import searches
from eagleray.state.models import Registry
from ray_jobs import pipeline
from ray_jobs.report.outcome import Outcome
from tests import records

FILE = """
name: wine
data: {source: 'dataset:wine', target: target}
model: {hidden: {choice: [[16], [32]]}}
train: {lr: {loguniform: [1.0e-3, 1.0e-1]}, epochs: 9, batch_size: 32}
tune: {trials: 6, metric: log_loss}
serve: {extra_fields: ignore}
"""


@pytest.fixture(scope="module")
def wine(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A search that has come to its end."""
    folder = tmp_path_factory.mktemp("wine")
    return pipeline.run(experiment(folder), quiet())


@pytest.fixture(scope="module")
def second(wine: Outcome) -> tuple[Outcome, str]:
    """Another search of that model, whose space has three configurations; and what it printed."""
    text = FILE.replace("{loguniform: [1.0e-3, 1.0e-1]}", "{choice: [0.1, 0.01, 0.001]}")
    text = text.replace("{choice: [[16], [32]]}", "[16]")
    overrides = {"tune.trials": "9", "tune.search": "random", "train.seed": "1"}
    out = quiet()
    ended = pipeline.run(experiment(wine.search.experiment.path.parent, text, **overrides), out)
    assert isinstance(out.file, io.StringIO)
    return ended, out.file.getvalue()


@pytest.fixture(scope="module")
def own(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A search with the user's model and loss, on a table of which one column is the target."""
    folder = tmp_path_factory.mktemp("own")
    lines = [f"{'spam' if row % 2 else 'ham'},{row % 2},{row % 7}" for row in range(300)]
    (folder / "mail.csv").write_text("\n".join(["kind,flag,size", *lines]) + "\n")
    (folder / "own.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, shape, outputs, width):\n"
        "        super().__init__()\n"
        "        self.layers = torch.nn.Sequential(\n"
        "            torch.nn.Linear(shape.numeric, width),\n"
        "            torch.nn.ReLU(), torch.nn.Linear(width, outputs))\n"
        "    def forward(self, inputs):\n"
        "        return self.layers(inputs['numeric'])\n"
        "def loss(outputs, targets):\n"
        "    return torch.nn.functional.multi_margin_loss(outputs, targets)\n"
    )
    text = (
        "name: wine\ndata: {source: mail.csv, target: kind}\n"
        "model: {type: 'own:Net', width: {choice: [8, 16]}}\n"
        "train: {loss: 'own:loss', lr: 0.02, epochs: 15}\ntune: {trials: 2, metric: log_loss}\n"
    )
    return pipeline.run(experiment(folder, text), quiet())


def quiet() -> console.Console:
    return console.Console(file=io.StringIO(), width=200)


def experiment(folder: Path, text: str = FILE, **overrides: str) -> spec.Experiment:
    (folder / "storage").mkdir(exist_ok=True)
    file = folder / "wine.yaml"
    file.write_text(text + f"storage: file://{folder}/storage\n")
    return spec.load(file, overrides)


def kept(chosen: spec.Experiment) -> dict[str, Any]:
    """Every object in storage but blobs, by key."""
    store = storage.open(chosen.storage)
    keys = [entry.key for entry in store.list() if not entry.key.startswith("blobs/")]
    return {key: store.get(key) for key in keys}


def champion(chosen: spec.Experiment) -> bundle.Bundle:
    registry = Registry(storage.open(chosen.storage))
    return bundle.load(registry, registry.resolve("wine", "champion"))


def test_a_search_tries_what_it_was_told_to_and_ranks_it(wine: Outcome) -> None:
    trials = wine.trials
    assert sorted(one.number for one in trials) == [1, 2, 3, 4, 5, 6]
    assert {one.status for one in trials} <= {"finished", "stopped"}
    scores = [one.score for one in trials]
    assert scores == sorted(scores)


def test_what_was_watched_of_each_trial_is_in_storage(wine: Outcome) -> None:
    for record in wine.trials:
        rows = wine.search.records.layers(record.number)
        assert [row.epoch for row in rows] == [1, 1, 9, 9][: 4 if record.epoch == 9 else 2]
        assert {row.layer for row in rows} == {"head.0", "head.3"}
        assert all(0 < row.gradient < 100 and 0 < row.update < 1 for row in rows)


def test_the_curves_of_all_trials_are_one_table_in_storage(wine: Outcome) -> None:
    store = storage.open(wine.search.experiment.storage)
    (key,) = [
        entry.key
        for entry in store.list()
        if entry.key.endswith(f"{wine.search.id}/curves.parquet")
    ]
    table = pd.read_parquet(io.BytesIO(store.get(key)))
    assert table.groupby("trial")["log_loss"].min().to_dict() == {
        one.number: pytest.approx(one.score) for one in wine.trials
    }


def test_the_first_version_is_the_champion_and_answers_as_it_did_in_training(
    wine: Outcome,
) -> None:
    assert (wine.result.version, wine.place.champion) == (1, 1)
    made = champion(wine.search.experiment)
    made.verify()
    assert made.extra_fields == "ignore"
    dataset = wine.search.dataset
    rows = dataset.split.test
    raw = schema.to_json(dataset.schema, dataset.take(rows))
    right = made.predict(raw).outputs.argmax(1) == dataset.targets[rows]
    assert right.mean() == pytest.approx(wine.result.test["accuracy"])


def test_what_the_winner_says_of_the_test_part_is_kept_with_it(wine: Outcome) -> None:
    registry = Registry(storage.open(wine.search.experiment.storage))
    version = registry.version("wine", 1)
    kept = pd.read_parquet(io.BytesIO(registry.read(version, bundle.PREDICTIONS)))
    dataset = wine.search.dataset
    rows, classes = dataset.split.test, np.array(dataset.schema.target.classes)
    assert kept["row"].tolist() == dataset.rows[rows].tolist()
    assert kept["truth"].tolist() == classes[dataset.targets[rows]].tolist()
    right = (kept["truth"] == kept["prediction"]).mean()
    assert right == pytest.approx(version.manifest["metrics"]["test"]["accuracy"])


def test_the_loss_on_record_is_that_of_the_validation_part(wine: Outcome) -> None:
    registry = Registry(storage.open(wine.search.experiment.storage))
    found = registry.version("wine", 1).manifest["metrics"]["validation"]
    assert found["loss"] == pytest.approx(found["log_loss"], rel=1e-4)
    assert found["train_loss"] != found["loss"]


def test_a_winner_that_a_leak_makes_perfect_becomes_champion_with_a_warning(own: Outcome) -> None:
    out = console.Console(file=io.StringIO(), width=60)
    own.show(out)
    assert isinstance(out.file, io.StringIO)
    (warning,) = own.summary()["warnings"]
    assert "is perfect on the test part: accuracy 1 on 60 rows" in warning
    assert f"WARNING: wine version 1 {warning}" in out.file.getvalue()
    (leak,) = [one for one in own.summary()["audit"]["findings"] if one["severity"] == "error"]
    assert (leak["check"], leak["column"]) == ("target copy", "flag")
    assert "WARNING: the audit of the data: flag: is a copy of the target" in out.file.getvalue()
    registry = Registry(storage.open(own.search.experiment.storage))
    assert registry.version("wine", 1).manifest["warnings"] == [warning]


def test_ones_own_model_and_loss_train_and_travel_with_the_bundle(own: Outcome) -> None:
    own.search.experiment.path.with_name("own.py").unlink()
    champion(own.search.experiment).verify()


def test_golden_rows_are_found_to_be_off_when_a_weight_is(wine: Outcome) -> None:
    made = champion(wine.search.experiment)
    next(made.engine.module.parameters()).data += 0.5
    with pytest.raises(errors.ServingError, match="golden rows must be reproduced"):
        made.verify()


def test_run_again_a_search_that_ended_gives_its_result_and_changes_nothing(
    wine: Outcome,
) -> None:
    out, chosen = quiet(), wine.search.experiment
    before = kept(chosen)
    again = pipeline.run(chosen, out)
    assert isinstance(out.file, io.StringIO)
    assert "has already ended" in out.file.getvalue()
    assert again.summary() | {"why": ""} == wine.summary() | {"why": ""}
    assert kept(chosen) == before


def test_another_search_is_another_version_that_waits_for_a_person(
    second: tuple[Outcome, str],
) -> None:
    ended, _ = second
    assert (ended.result.version, ended.place.champion) == (2, 1)
    promote = f"eagleray models promote wine 2 --storage {ended.search.experiment.storage}"
    assert promote in ended.next_steps()


def test_a_small_space_is_tried_whole_and_once(second: tuple[Outcome, str]) -> None:
    ended, said = second
    assert sorted(one.values["train.lr"] for one in ended.trials) == [0.001, 0.01, 0.1]
    assert "note: tune.trials: 9 asked for, but the space has 3 configurations" in said


def test_a_grid_is_tried_whole_and_a_loss_that_explodes_fails_its_trial_alone(
    ray_cluster: None, tmp_path: Path
) -> None:
    text = (
        FILE.replace("{loguniform: [1.0e-3, 1.0e-1]}", "{choice: [0.01, 1.0e+30]}")
        + "features: {alcohol: {type: numeric, scale: {choice: [standard, quantile]}}}\n"
    )
    overrides = {"tune.search": "grid", "tune.trials": "100", "train.optimizer": "sgd"}
    trials = pipeline.run(experiment(tmp_path, text, **overrides), quiet()).trials
    points = {str(one.values) for one in trials}
    failed = [one for one in trials if one.status == "failed"]
    assert len(points) == len(trials) == 8
    assert [one.values["train.lr"] for one in failed] == [1e30] * 4
    assert all("in epoch" in str(one.failure) for one in failed)


def test_a_winner_with_columns_that_are_made_takes_the_columns_of_the_data(
    ray_cluster: None, tmp_path: Path
) -> None:
    options = (
        "{strength: {ratio: [alcohol, ash], scale: {choice: [log, robust]}},"
        " hue: {type: numeric, bins: 4, clip: [0.01, 0.99]}}"
    )
    chosen = experiment(tmp_path, FILE, features=options, **{"tune.trials": "2"})
    assert {one.status for one in pipeline.run(chosen, quiet()).trials} <= {"finished", "stopped"}
    made = champion(chosen)
    assert len(made.schema.columns) == 13
    assert made.golden is not None
    rows = dict(made.golden.rows)
    assert rows.keys() == {one.name for one in made.schema.columns}
    one = made.predict({name: values[:1] for name, values in rows.items()})
    assert one.outputs[0] == pytest.approx(made.golden.outputs[0], abs=1e-6)


def test_a_search_in_which_all_trials_fail_says_why_and_registers_nothing(
    ray_cluster: None, tmp_path: Path
) -> None:
    """One trial's model leaves the process, the other's loss is infinite."""
    (tmp_path / "own.py").write_text(
        "import sys, torch\n"
        "class Net(torch.nn.Linear):\n"
        "    def __init__(self, shape, outputs, leaves):\n"
        "        super().__init__(shape.numeric, outputs)\n"
        "        self.leaves = leaves\n"
        "    def forward(self, inputs):\n"
        "        if self.leaves:\n"
        "            sys.exit(1)\n"
        "        return super().forward(inputs['numeric']) * torch.inf\n"
    )
    model = "{type: 'own:Net', leaves: {choice: [true, false]}}"
    text = FILE.replace("{hidden: {choice: [[16], [32]]}}", model)
    chosen = experiment(tmp_path, text, **{"train.lr": "0.01", "tune.search": "grid"})
    with pytest.raises(
        errors.SearchError, match=r"no trial gave a model: .* in epoch \d"
    ) as failed:
        pipeline.run(chosen, quiet())
    assert re.search(r"own\.py:8: own:Net: .* SystemExit: 1", str(failed.value))
    assert not any(key.startswith("models/") for key in kept(chosen))


def test_interrupted_and_run_again_a_search_goes_on_where_it_was(
    ray_cluster: None, tmp_path: Path
) -> None:
    """Ctrl-C in a process of its own; the finished trials stay, and none is tried again."""
    slow = {"tune.trials": "8", "tune.pack": "1", "tune.scheduler": "none", "train.epochs": "1500"}
    chosen, runs = experiment(tmp_path, **slow), local.LocalRuns((tmp_path / "storage").as_uri())
    options = [part for key, value in slow.items() for part in ("--set", f"{key}={value}")]
    first = subprocess.Popen([sys.executable, "-m", "eagleray", "run", str(chosen.path), *options])
    _wait_for_records(chosen, 2)
    assert [one.state for one in runs.attempts()] == ["running"]
    first.send_signal(signal.SIGINT)
    assert first.wait(60) == 130
    assert [one.state for one in runs.attempts()] == ["unfinished"]
    before = _records(chosen)
    ended = {number for number, one in before.items() if one.status == "finished"}
    assert 2 <= len(ended) < 8
    out = quiet()
    outcome = pipeline.run(chosen, out)
    after = _records(chosen)
    assert sorted(after) == list(range(1, 9))
    assert all(one.status == "finished" for one in after.values())
    assert records.unchanged({number: before[number] for number in ended}, after)
    assert len({str(one.values) for one in after.values()}) == 8
    assert isinstance(out.file, io.StringIO)
    assert re.search(r"resuming: [2-7] of 8 trials done, best [\d.e-]+\n", out.file.getvalue())
    assert (outcome.result.version, outcome.place.champion) == (1, 1)


def _records(chosen: spec.Experiment) -> dict[int, searches.Record]:
    return {one.number: one for one in records.of(chosen.storage, chosen.name)}


def _wait_for_records(chosen: spec.Experiment, count: int) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until:
        if sum(one.status == "finished" for one in _records(chosen).values()) >= count:
            return
        time.sleep(0.2)
    pytest.fail(f"no {count} trials were finished in 180 s")


def test_a_metric_of_another_task_is_refused_before_compute_is_spent(
    tmp_path: Path,
) -> None:
    with pytest.raises(errors.UserError, match="for multiclass, but got rmse"):
        pipeline.run(experiment(tmp_path, **{"tune.metric": "rmse"}), quiet())
