"""A search by folds on real Ray: poor trials stop after one, the simplest good one is refit."""

import io
from pathlib import Path

import pytest
from rich import console

from eagleray import bundle, spec, storage
from eagleray.state import searches
from eagleray.state.models import Registry
from ray_jobs import pipeline, refit, winner
from ray_jobs.report.outcome import Outcome

FILE = """
name: tumours
data: {source: 'dataset:breast_cancer', target: target, positive: malignant}
model: {hidden: {choice: [[8], [64, 64]]}}
train: {lr: {choice: [1.0e-5, 3.0e-2, 2.0e-2]}, epochs: 6, batch_size: 64}
tune: {trials: 6, metric: roc_auc, search: grid, folds: 3, cost: size,
       tolerance: one_standard_error}
decide: {maximize: f1}
"""


def run(folder: Path, **overrides: str) -> tuple[Outcome, str]:
    (folder / "storage").mkdir(exist_ok=True)
    file = folder / "tumours.yaml"
    file.write_text(FILE + f"storage: file://{folder}/storage\n")
    out = io.StringIO()
    ended = pipeline.run(spec.load(file, overrides), console.Console(file=out, width=200))
    return ended, out.getvalue()


@pytest.mark.slow
def test_a_search_by_folds_goes_on_where_it_was_interrupted_and_serves_the_refit(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(winner.Winner, "register", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    ended, said = run(tmp_path)
    assert "is trained anew" not in said, "the refit was done, and only its judgement was left"
    trials = {one.number: one for one in ended.trials}
    folds = {number: len(one.history) for number, one in trials.items()}
    assert set(folds.values()) <= {1, 2, 3}
    assert 1 in folds.values()
    assert {one.status for one in ended.trials if folds[one.number] == 1} == {"stopped"}
    whole = [one for one in ended.trials if one.epoch == 3]
    best = max(whole, key=lambda one: one.score or 0)
    least = (best.score or 0) - (best.standard_error or 0)
    near = [one for one in whole if (one.score or 0) >= least]
    assert ended.winner.costs["size"] == min(one.costs["size"] for one in near)
    assert "mean of 3 folds" in ended.page()
    assert "±" in ended.page()
    (known,) = ended.search.records.trials_by_number(
        [searches.REFIT + ended.result.winner]
    ).values()
    assert known.until == known.epoch == refit.epochs(ended.winner)
    registry = Registry(storage.open(ended.search.experiment.storage))
    version = registry.version("tumours", ended.result.version)
    assert version.manifest["refit"] == known.until
    assert bundle.load(registry, version).schema.target.threshold is not None
    assert ended.result.test["roc_auc"] > 0.95
    assert "has already ended" in run(tmp_path)[1]


@pytest.mark.slow
def test_trees_and_searches_over_models_take_folds_and_a_refit_without_folds(
    ray_cluster: None, tmp_path: Path
) -> None:
    auto = {"model": "{type: auto}", "train": "{epochs: 2}", "tune.search": "random"}
    ended, said = run(tmp_path, **auto, **{"tune.trials": "3", "tune.folds": "2"})
    assert "each trial alone: the folds of a trial are trained one after another" in said
    assert ended.result.refit >= 1
    assert {one.failure for one in ended.trials} == {None}
    trees = {
        "model": "{type: boosting, rounds: 5}",
        "train": "{epochs: 3}",
        "tune.search": "random",
    }
    alone = {"tune": "{trials: 1, metric: roc_auc, refit: true}"}
    ended, said = run(tmp_path, **{k: v for k, v in trees.items() if k != "tune.search"}, **alone)
    assert "is trained anew on 455 rows of training and validation" in said
    assert ended.result.refit == ended.winner.best_epoch
    assert ended.result.test["roc_auc"] > 0.95
