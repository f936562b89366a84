"""A configuration by cross-validation: its mean, its outputs, and interrupted to the bit."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from eagleray import spec, storage
from eagleray.learn import metrics, tasks
from eagleray.state import searches
from eagleray.storage import cache
from ray_jobs import folded, learner, retention, search, session, snapshots, tensors
from ray_jobs.data import prepare
from tests.unit import test_trial

COUNT = 3
MODELS = {
    "mlp": "{type: mlp, hidden: [8], dropout: 0.3}",
    "boosting": "{type: boosting, rounds: 3, leaves: 4, min_rows: 5, row_share: 0.8}",
}
FILE = """
name: wine
data: {{source: 'dataset:wine', target: target}}
model: {model}
train: {{epochs: 4, lr: 0.05, early_stopping: {{patience: 2}}}}
tune: {{metric: log_loss, folds: {count}, trials: 1}}
storage: file://{folder}
"""


def experiment(folder: Path, model: str = "mlp", **overrides: str) -> spec.Experiment:
    file = folder / "x.yaml"
    file.write_text(FILE.format(model=MODELS[model], count=COUNT, folder=folder))
    return spec.load(file, overrides)


def build(
    chosen: spec.Experiment, made: prepare.Dataset, metric: str = "log_loss"
) -> folded.Folded:
    configuration = chosen.default()

    def of_fold(number: int) -> learner.Learner:
        fold = made.fold(number)
        data = fold.encode(fold.fit(configuration.features))
        return learner.build(configuration, data, metric=metric)

    return folded.Folded(of_fold, COUNT)


def finish(running: folded.Folded) -> folded.Folded:
    while not running.finished:
        running.epoch()
    return running


def stops(after: int) -> Callable[[], bool]:
    """Stop at the call of this number, from 1."""
    calls = iter([False] * (after - 1))
    return lambda: next(calls, True)


def copy(first: folded.Folded, second: folded.Folded, folder: Path) -> bool:
    """Restore a training from the files of another's snapshot; False where there is none."""
    taken = first.snapshot("test/1")
    if taken is None:
        return False
    paths = {name: folder / name for name in snapshots.FILES}
    for name, path in paths.items():
        path.write_bytes(taken.stream(name).read())
    assert paths[snapshots.BEST].read_bytes() == first.best("test/1").read()
    second.restore([paths])
    return True


def history(running: folded.Folded) -> list[dict[str, float]]:
    return [fold | {"seconds": 0.0} for fold in running.progress.history]


@pytest.mark.parametrize("model", MODELS)
def test_its_score_is_the_mean_over_folds_of_models_that_have_not_seen_the_rows(
    tmp_path: Path, model: str
) -> None:
    chosen = experiment(tmp_path, model)
    made = prepare.dataset(chosen)
    running = finish(build(chosen, made))
    scores = [fold["log_loss"] for fold in running.progress.history]
    assert len(scores) == running.progress.epoch == running.progress.best_epoch == COUNT
    assert running.progress.best["log_loss"] == pytest.approx(np.mean(scores))
    assert running.progress.standard_error == pytest.approx(stats.sem(scores))
    assert running.score == pytest.approx(-np.mean(scores))
    (tmp_path / "best").write_bytes(running.best("x").read())
    truth, raw = folded.held_out(made, tensors.Reader([tmp_path / "best"]))
    assert len(truth) == len(raw) == made.counts["train"] + made.counts["validation"]
    ends = np.cumsum([len(one.validation) for one in made.folds])[:-1]
    task = tasks.of(made.schema.target)
    for fold, of_fold, raw_BC in zip(
        scores, np.split(truth, ends), np.split(raw, ends), strict=True
    ):
        outputs = task.activate(raw_BC, {})
        assert metrics.score(made.schema.target, of_fold, outputs)["log_loss"] == pytest.approx(
            fold
        )


@pytest.mark.parametrize("model", MODELS)
def test_held_out_outputs_are_those_of_each_fold_s_best_epoch_in_the_target_s_unit(
    tmp_path: Path, model: str
) -> None:
    """Folds have scales of their own, and the averages of the last epoch are not the best ones."""
    levels = {"data.source": "dataset:diabetes", "data.quantiles": "[0.1, 0.5, 0.9]"}
    levels |= {"tune.metric": "pinball", "train.early_stopping": "null"}
    levels |= {"train.lr": "0.5", "train.epochs": "8"}
    ema = {"train.ema": "0.5"} if model == "mlp" else {}
    chosen = experiment(tmp_path, model, **levels, **ema)
    made = prepare.dataset(chosen)
    running = finish(build(chosen, made, "pinball"))
    bests = [fold[folded.BEST_EPOCH] for fold in running.progress.history]
    assert min(bests) < 8
    (tmp_path / "best").write_bytes(running.best("x").read())
    truth, raw = folded.held_out(made, tensors.Reader([tmp_path / "best"]))
    ends = np.cumsum([len(one.validation) for one in made.folds])[:-1]
    task = tasks.of(made.schema.target)
    for fold, of_fold, raw_BC in zip(
        running.progress.history, np.split(truth, ends), np.split(raw, ends), strict=True
    ):
        outputs = task.activate(raw_BC, task.unit)
        found = metrics.score(made.schema.target, of_fold, outputs)
        assert found["pinball"] == pytest.approx(fold["pinball"], rel=1e-5)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("after", [1, 2, 4, 7])
@pytest.mark.parametrize("folds", [0, 1, 2])
def test_interrupted_in_any_fold_and_resumed_it_equals_one_that_was_not_to_the_bit(
    tmp_path: Path, model: str, folds: int, after: int
) -> None:
    chosen = experiment(tmp_path, model, **{"train.early_stopping": "null"})
    made = prepare.dataset(chosen)
    whole, first, second = (build(chosen, made) for _ in range(3))
    finish(whole)
    for _ in range(folds):
        first.epoch()
    assert copy(first, build(chosen, made), tmp_path) or not folds
    assert first.epoch(stops(after)) is None
    saved = copy(first, second, tmp_path)
    assert saved or folds
    torch.manual_seed(99)  # as another process has drawn other numbers
    resumed = [first, second] if saved else [first]
    for one in resumed:
        assert one.progress.epoch == folds
        finish(one)
        assert history(one) == history(whole)
        assert (one.outputs() == whole.outputs()).all()
        assert one.progress.best | {"seconds": 0.0} == whole.progress.best | {"seconds": 0.0}
    if model == "boosting":
        assert one.size == whole.size > 0


def test_a_newer_state_is_told_from_an_older_one(tmp_path: Path) -> None:
    chosen = experiment(tmp_path)
    running = build(chosen, prepare.dataset(chosen))
    places = []
    while not running.finished:
        running.epoch(stops(1))
        taken = running.snapshot("x")
        places += [(taken.epoch, taken.batch)] if taken else []
    assert len(set(places)) > 10
    assert places == sorted(places)


FOLDED = test_trial.FILE.replace("scheduler: none", "scheduler: none, folds: 3")


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[session.Job]:
    with test_trial.in_process(monkeypatch):
        found = test_trial.searched(tmp_path, FOLDED, epochs=4)
        yield test_trial.job_of(found, rungs=frozenset(range(1, COUNT + 1)))


def outputs(job: session.Job, report: dict[str, Any]) -> np.ndarray:
    (weights,) = report["weights"]
    with cache.default().open(storage.open(job.experiment.storage), weights) as path:
        dataset: Any = job.dataset
        return folded.held_out(dataset, tensors.Reader([path]))[1]


@pytest.mark.parametrize("steps", [1, 4, 7, 11])
def test_a_trial_whose_worker_is_lost_goes_on_from_its_fold(job: session.Job, steps: int) -> None:
    whole = test_trial.finish(test_trial.actor(job, 0.01))[1]
    test_trial.records(job).remove_state(1)
    lost, reports = test_trial.actor(job, 0.01), list[dict[str, Any]]()
    for _ in range(steps):
        reports += lost.step()["members"]
        test_trial.uploaded(lost)
    state = test_trial.records(job).state(1, {"train.lr": 0.01}).checkpoints[0]
    assert (state.epoch, state.batch) > (0, 0)
    resumed = test_trial.finish(test_trial.actor(job, 0.01))[1]
    (first, *_), last = resumed, resumed[-1]
    assert first["epoch"] >= state.epoch
    assert last["score"] == whole[-1]["score"]
    assert last["standard_error"] == whole[-1]["standard_error"] > 0
    assert (last["weights_epoch"], last["best_epoch"]) == (COUNT, COUNT)
    assert (outputs(job, last) == outputs(job, whole[-1])).all()


def test_a_trial_reports_after_each_fold(job: session.Job) -> None:
    reports = test_trial.finish(test_trial.actor(job, 0.01))[1]
    assert test_trial.epochs(reports) == COUNT
    ends = {one["epoch"]: one for one in reports if one["history"]}
    assert sorted(ends) == [1, 2, 3]
    assert ends[1]["standard_error"] is None
    assert all(one["weights_epoch"] == epoch for epoch, one in ends.items())


def test_a_search_that_ran_out_of_time_keeps_the_mean_of_the_folds_that_are_saved(
    job: session.Job,
) -> None:
    running, made = test_trial.actor(job, 0.01), search.Search(job.experiment)
    reports = []
    while not any(one["history"] for one in reports if one["epoch"] == 2):
        reports += running.step()["members"]
        test_trial.uploaded(running)
    last = reports[-1]
    folds = [fold for one in reports for fold in one["history"]]
    record = searches.Record(
        number=1,
        values={"train.lr": 0.01},
        status="stopped",
        folds=COUNT,
        history=folds,
        epoch=2,
        state_epoch=2,
    )
    retention.Retention(made, {1: record}).settle(record)
    assert record.weights
    assert record.best_epoch == 2
    assert record.score == pytest.approx(np.mean([fold["log_loss"] for fold in folds]))
    assert record.score == last["score"]
    assert record.standard_error == last["standard_error"]
