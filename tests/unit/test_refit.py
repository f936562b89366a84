"""The winner trained anew: for how long, on which rows, and what is decided for it by which."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import torch as safe_torch

from eagleray import bundle, storage
from eagleray.evaluation import calibrations
from eagleray.state import evaluations, searches
from eagleray.state.models import Registry
from eagleray.storage import blobs
from ray_jobs import (
    bundles,
    ensembles,
    folded,
    learner,
    learning_curve,
    refit,
    search,
    session,
    training,
    winner,
)
from ray_jobs.data import encoded
from tests import judged
from tests.unit import test_trial

FOLDS = {"tune.folds": "3", "decide": "{maximize: f1, calibrate: temperature}"}


def crossed(one: search.Search, number: int, **values: Any) -> searches.Record:
    """Train one trial by cross-validation, and put it on record."""
    drawn = {key: known.default() for key, known in one.experiment.space.items()} | values
    configuration = one.experiment.configuration(drawn)

    def build(fold: int) -> learner.Learner:
        made = one.dataset.fold(fold)
        data = made.encode(made.fit(configuration.features))
        return learner.build(configuration, data, metric=one.metric)

    count = one.experiment.tune.folds
    running = folded.Folded(build, count)
    while not running.finished:
        running.epoch()
    progress = running.progress
    record = searches.Record(
        number=number,
        values=drawn,
        status="finished",
        folds=count,
        score=progress.best[one.metric],
        standard_error=progress.standard_error,
        epoch=count,
        best_epoch=count,
        best=progress.best,
        history=progress.history,
        weights=(blobs.put(one.storage, running.best("x")),),
    )
    one.records.save(record)
    return record


def trained(anew: refit.Refits) -> refit.Refits:
    """Train refits in this process."""
    made, done = anew.search, dict[int, searches.Record]()
    for number, record in anew.records.items():
        configuration = made.experiment.configuration(record.values)
        data = made.dataset.encode(made.transforms(configuration))
        running = learner.build(configuration, data, metric=made.metric)
        running.progress.until = record.until
        while not running.finished:
            running.epoch()
        blob = blobs.put(made.storage, running.best("x"))
        fields = {"status": "finished", "weights": (blob,), "epoch": running.progress.epoch}
        done[number] = record.model_copy(update=fields)
        made.records.save(done[number])
    return dataclasses.replace(anew, records=done)


def registered(one: search.Search, record: searches.Record, anew: refit.Refits) -> searches.Result:
    """Register the refit of a trial."""
    trials = one.ranked([record])
    return winner.Winner(one, trials, ensembles.best(one, trials), anew).register()


def history(*epochs: int) -> list[dict[str, float]]:
    return [{"roc_auc": 0.9, folded.BEST_EPOCH: float(one)} for one in epochs]


def test_it_trains_for_the_mean_best_epoch_and_keeps_its_last_one(tmp_path: Path) -> None:
    one = judged.searched(tmp_path, **FOLDS)
    record = crossed(one, 1, **{"train.lr": 0.1})
    assert refit.epochs(record.model_copy(update={"history": history(3, 4, 6)})) == 4
    assert refit.epochs(record.model_copy(update={"history": history(1, 1, 1)})) == 1
    plain = judged.trial(judged.searched(tmp_path), 1)
    assert refit.epochs(plain) == plain.best_epoch
    anew = refit.of(one, [record])
    configuration = anew.search.experiment.configuration(record.values)
    data = anew.search.dataset.encode(anew.search.transforms(configuration))
    running = training.Trainer(configuration, data, metric="roc_auc")
    running.progress.until = 5
    while not running.finished:
        running.epoch()
        assert running.progress.best_epoch == running.progress.epoch
    assert running.progress.epoch == 5
    for name, value in running.model.state_dict().items():
        assert (running.best_weights[name] == value).all()


def test_it_sees_all_rows_but_those_of_the_test_part(tmp_path: Path) -> None:
    one = judged.searched(tmp_path, **FOLDS)
    anew = refit.of(one, [crossed(one, 1)])
    assert anew.rows == one.dataset.counts["train"] + one.dataset.counts["validation"]
    rows = anew.search.dataset.split.train
    assert not set(rows) & set(one.dataset.split.test)
    columns = one.dataset.take(rows)
    own, outer = (
        made.transforms(made.experiment.default()).apply(columns)["numeric"]
        for made in (anew.search, one)
    )
    np.testing.assert_allclose(own.mean(0), 0, atol=1e-5)
    assert np.abs(outer.mean(0)).max() > 1e-3


def test_a_refit_that_is_on_record_counts_for_the_same_winner_alone(tmp_path: Path) -> None:
    one = judged.searched(tmp_path, **FOLDS)
    first, second = crossed(one, 1), crossed(one, 2, **{"train.lr": 0.05})
    anew = refit.of(one, [first])
    assert (anew.new, anew.done) == ({1}, False)
    made = trained(anew)
    assert made.done
    assert refit.of(one, [first]).records == made.records
    assert refit.of(one, [first]).done
    assert refit.of(one, [second]).new == {2}
    both = refit.of(one, [first, second])
    assert (both.new, both.done, both.records[1]) == ({2}, False, made.records[1])
    longer = first.model_copy(update={"history": history(3, 3, 3)})
    assert refit.of(one, [longer]).new == {1}
    assert [one.number for one in one.records.trials()] == [1, 2]


def test_a_refit_whose_weights_are_damaged_is_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = judged.searched(tmp_path, **FOLDS)
    record = crossed(one, 1)
    done = trained(refit.of(one, [record]))
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "of another machine"))
    (blob,) = done.records[1].weights
    good = one.storage.get(blobs.key(blob))
    one.storage.put(blobs.key(blob), b"rotten")
    again = refit.of(one, [record])
    assert (again.new, again.done) == ({1}, False)
    assert blob.sha256 in again.damaged[1]
    assert trained(again).done
    assert one.storage.get(blobs.key(blob)) == good
    assert refit.of(one, [record]).damaged == {}


def test_the_refit_is_judged_once_and_its_threshold_found_on_rows_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_curve, "LEAST_S", learning_curve.MOST_S)
    one = judged.searched(tmp_path, **FOLDS)
    record = crossed(one, 1, **{"train.lr": 0.02})
    anew = trained(refit.of(one, [record]))
    result = registered(one, record, anew)
    registry = Registry(one.storage)
    version = registry.version("tumours", result.version)
    assert (result.looks, result.folds, result.refit) == (1, 3, anew.epochs)
    assert version.manifest["refit"] == version.manifest["lineage"]["epoch"] == result.refit
    assert version.manifest["standard_error"] == record.standard_error
    assert version.manifest["metrics"]["validation"]["roc_auc"] == record.score
    kept = evaluations.decode(registry.read(version, evaluations.FILE), "here")
    assert kept.decision is not None
    assert kept.decision.rows == anew.rows
    assert f"on {anew.rows} out-of-fold rows" in str(kept.decision)
    assert kept.learning_curve is not None, kept.notes
    assert kept.learning_curve.points[-1].rows == one.dataset.counts["train"]
    assert kept.calibration is not None
    assert bundle.load(registry, version).schema.target.threshold == kept.decision.threshold
    again = registered(one, record, anew)
    assert (again.version, again.looks) == (result.version, 1)


def test_without_folds_what_is_decided_comes_of_the_model_that_has_not_seen_the_rows(
    tmp_path: Path,
) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "anew").mkdir()
    decide = {"decide": "{maximize: f1}"}
    plain = judged.searched(tmp_path / "plain", **decide)
    expected = winner.Winner(plain, [judged.trial(plain, 1)]).register()
    one = judged.searched(tmp_path / "anew", **decide, **{"tune.refit": "true"})
    record = judged.trial(one, 1)
    found = registered(one, record, trained(refit.of(one, [record])))
    decisions = [
        evaluations.decode(
            Registry(made.storage).read(
                Registry(made.storage).version("tumours", result.version), evaluations.FILE
            ),
            "here",
        ).decision
        for made, result in ((plain, expected), (one, found))
    ]
    assert decisions[0] == decisions[1]
    assert found.refit == record.best_epoch
    assert found.test != expected.test


def test_shifts_of_quantiles_are_those_of_the_model_that_has_not_seen_the_rows(
    tmp_path: Path,
) -> None:
    """A refit has another scale of the target, on which those outputs are other values."""
    keys = {"data.quantiles": "[0.1, 0.5, 0.9]", "tune.refit": "true", "train.lr": "0.01"}
    one = judged.searched(tmp_path, judged.DIABETES, **keys)
    record = judged.trial(one, 1)
    rows = one.dataset.split.validation
    alone = bundles.of(one, record)
    outputs = alone.predict_columns(one.dataset.take(rows)).outputs
    expected = calibrations.fit(
        "conformal", alone.schema.target, one.dataset.targets[rows], outputs
    )
    result = registered(one, record, trained(refit.of(one, [record])))
    registry = Registry(one.storage)
    made = bundle.load(registry, registry.version("diabetes", result.version))
    assert made.scale != alone.scale
    assert made.schema.target.shifts == pytest.approx(expected.target.shifts)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[session.Job]:
    with test_trial.in_process(monkeypatch):
        found = test_trial.searched(tmp_path, test_trial.FILE)
        whole = found.dataset.whole()
        data = whole.encode(whole.fit({}))
        yield test_trial.job_of(found, shared={encoded.key({}): data}, dataset=whole, refits={1: 4})


def weights(job: session.Job, report: dict[str, Any]) -> dict[str, np.ndarray]:
    (blob,) = report["weights"]
    store = storage.open(job.experiment.storage)
    return {name: one.numpy() for name, one in safe_torch.load(store.get(blobs.key(blob))).items()}


def test_a_refit_whose_worker_is_lost_equals_one_that_was_not_interrupted(job: session.Job) -> None:
    whole = test_trial.finish(test_trial.actor(job, 0.01))[1]
    assert (whole[-1]["epoch"], whole[-1]["weights_epoch"]) == (4, 4)
    test_trial.records(job).remove_state(1)
    lost = test_trial.actor(job, 0.01)
    for _ in range(2):
        lost.step()
        test_trial.uploaded(lost)
    resumed = test_trial.finish(test_trial.actor(job, 0.01))[1]
    assert (resumed[-1]["epoch"], resumed[-1]["weights_epoch"]) == (4, 4)
    for name, value in weights(job, whole[-1]).items():
        assert (weights(job, resumed[-1])[name] == value).all()
