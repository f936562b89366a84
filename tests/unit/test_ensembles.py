"""The winner may be the mean of several trials, where that is better beyond noise."""

import functools
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich import console
from safetensors import torch as safe_torch

from eagleray import bundle, errors, spec
from eagleray.engines.ensemble import Ensemble
from eagleray.evaluation import ensembles
from eagleray.learn import metrics, schema, tasks
from eagleray.state import searches
from eagleray.state.models import Registry
from eagleray.storage import blobs
from ray_jobs import bundles, latency, pipeline, refit, search, winner
from ray_jobs import ensembles as winners
from tests import judged
from tests.unit import test_refit

ROWS = 600
VALUE = schema.Target(name="y", task="regression")
CLASS = schema.Target(name="y", task="binary", classes=("no", "yes"))
CLASSES = schema.Target(name="y", task="multiclass", classes=("a", "b", "c"))


def noisy(target: schema.Target, seeds: tuple[int, ...]) -> ensembles.Candidates:
    """Models that are right but for noise of their own, which a mean makes smaller."""
    random = np.random.default_rng(0)
    if not target.classes:
        truth = random.normal(size=ROWS)
        outputs = [truth + np.random.default_rng(seed).normal(size=ROWS) for seed in seeds]
        return ensembles.Candidates(target, truth, outputs, "rmse")
    count = len(target.classes)
    truth = random.integers(0, count, ROWS)
    found = []
    for seed in seeds:
        raw = np.eye(count)[truth] + np.random.default_rng(seed).normal(size=(ROWS, count))
        found.append(np.exp(raw) / np.exp(raw).sum(1, keepdims=True))
    return ensembles.Candidates(target, truth, found, "log_loss")


@pytest.mark.parametrize("target", [VALUE, CLASS, CLASSES], ids=lambda one: one.task)
def test_models_with_errors_of_their_own_make_an_ensemble_that_is_better(
    target: schema.Target,
) -> None:
    candidates = noisy(target, (1, 2, 3, 4))
    times = ensembles.select(candidates, 3)
    assert sum(map(bool, times)) == 3
    scores = [candidates.score(one) for one in candidates.outputs]
    assert candidates.score(candidates.mean(times)) > max(scores)
    verdict = ensembles.gain(candidates, 3)
    assert verdict is not None
    assert (verdict.outcome, verdict.metric) == ("better", candidates.metric)


def test_weights_follow_from_what_each_model_adds() -> None:
    """Of errors 3 and -1 the mean is without error where the second counts three times."""
    truth = np.linspace(0, 1, ROWS)
    sign = np.where(np.arange(ROWS) % 2, 1.0, -1.0)
    pair = [truth - sign, truth + 3 * sign]
    candidates = ensembles.Candidates(VALUE, truth, pair, "rmse")
    assert ensembles.select(candidates, 2) == (3, 1)
    assert candidates.mean((3, 1)) == pytest.approx(truth)


def test_equal_models_are_no_ensemble() -> None:
    one = noisy(VALUE, (1,))
    equal = ensembles.Candidates(VALUE, one.truth_B, one.outputs * 3, "rmse")
    assert ensembles.select(equal, 3) == (1, 0, 0)
    verdict = ensembles.gain(equal, 3)
    assert verdict is not None
    assert (verdict.outcome, verdict.difference.value) == ("no difference", 0.0)


def test_a_single_model_and_a_bound_of_one_give_the_best_alone() -> None:
    assert ensembles.select(noisy(CLASS, (1,)), 5) == (1,)
    assert sum(ensembles.select(noisy(CLASS, (1, 2, 3)), 1)) == 1


def test_the_gain_is_measured_on_rows_that_did_not_select() -> None:
    """Of models that know nothing the best mean fits the rows by luck, and no others."""
    seen, unseen = [], []
    for seed in range(5):
        random = np.random.default_rng(seed)
        truth = random.integers(0, 2, 60)
        said = random.uniform(size=(40, 60))
        outputs = [np.stack([1 - one, one], axis=1) for one in said]
        candidates = ensembles.Candidates(CLASS, truth, outputs, "roc_auc")
        seen.append(candidates.score(candidates.mean(ensembles.select(candidates, 5))))
        verdict = ensembles.gain(candidates, 5)
        assert verdict is not None
        unseen.append(verdict.difference.value)
    assert min(seen) > 0.7
    assert abs(np.mean(unseen)) < 0.1


def test_rows_that_do_not_define_the_metric_give_the_best_alone() -> None:
    few = noisy(CLASS, (1, 2)).rows(np.arange(10))
    only = ensembles.Candidates(CLASS, np.ones(10, int), few.outputs, "roc_auc")
    assert ensembles.select(only, 5) == (1, 0)
    assert ensembles.gain(only, 5) is None


SUMS = """
name: sums
data: {source: sums.csv, target: y, split: {validation: 0.4, test: 0.4}}
features: {a: {type: numeric, scale: {choice: [standard, minmax]}}}
model: {type: mlp, hidden: []}
train: {epochs: 1, seed: {choice: [0, 1, 2, 3]}}
tune: {trials: 8, ensemble: {members: 3, latency_ms: null}}
"""
OFF = 0.5
"""Error of one weight of each model, relative to the target's deviation."""


def searched(folder: Path, text: str = SUMS, **overrides: str) -> search.Search:
    """Sums of four columns, with noise; whether they are high."""
    random = np.random.default_rng(3)
    x_BF = random.normal(size=(1000, 4))
    y_B = x_BF.sum(1) + random.normal(0, 0.5, 1000)
    rows = [
        ",".join([*(f"{value:.4f}" for value in (*x_F, y)), "high" if y > 0 else "low"])
        for x_F, y in zip(x_BF.tolist(), y_B.tolist(), strict=True)
    ]
    (folder / "sums.csv").write_text("\n".join(["a,b,c,d,y,kind", *rows]) + "\n")
    drop = "kind" if "target: y" in text else "y"
    return judged.searched(folder, text, **{"data.drop": f"[{drop}]", **overrides})


def linear(one: search.Search, scales: str = "ssmm") -> list[searches.Record]:
    """Linear models on column `a` as each scale gives it, the best first."""
    made = [_linear(one, number, scale) for number, scale in enumerate(scales, 1)]
    return one.ranked(made)


def _linear(one: search.Search, number: int, scale: str) -> searches.Record:
    """The least squares with an error in one weight, another one in each trial."""
    values = {"features.a.scale": {"s": "standard", "m": "minmax"}[scale], "train.seed": number - 1}
    configuration = one.experiment.configuration(values)
    data, task = (
        one.dataset.encode(one.transforms(configuration)),
        tasks.of(one.dataset.schema.target),
    )
    target_B = task.scaled(data.train.targets, task.scale(data.train.targets)).astype(float)
    inputs_BF = np.column_stack([data.train.inputs["numeric"], np.ones(len(target_B))])
    solved_F = np.linalg.lstsq(inputs_BF, target_B - target_B.mean(), rcond=None)[0]
    spread_F = inputs_BF.std(0)
    solved_F[number - 1] += OFF * (1 + number / 100) * target_B.std() / spread_F[number - 1]
    weight_CF = solved_F[None] * np.array([[-2.0], [2.0]]) if task.width == 2 else solved_F[None]
    tensors = {
        "head.0.weight": torch.tensor(weight_CF[:, :-1]).float().contiguous(),
        "head.0.bias": torch.tensor(weight_CF[:, -1]).float().contiguous(),
    }
    record = searches.Record(
        number=number,
        values=values,
        status="finished",
        epoch=1,
        best_epoch=1,
        weights=(blobs.put(one.storage, safe_torch.save(tensors)),),
    )
    columns = one.dataset.take(one.dataset.split.validation)
    outputs = bundles.of(one, record).predict_columns(columns).outputs
    truth_B = one.dataset.targets[one.dataset.split.validation]
    record.best = metrics.score(one.dataset.schema.target, truth_B, outputs)
    record.score, record.history = record.best[one.metric], [record.best]
    one.records.save(record)
    return record


def loaded(one: search.Search, result: searches.Result) -> bundle.Bundle:
    registry = Registry(one.storage)
    return bundle.load(registry, registry.version("sums", result.version))


def members(one: search.Search, result: searches.Result) -> list[tuple[bundle.Bundle, float]]:
    """Each member rebuilt from its trial, with its weight."""
    assert result.ensemble is not None
    by_number = {record.number: record for record in one.records.trials()}
    return [
        (bundles.of(one, by_number[int(number)]), member.weight)
        for number, member in result.ensemble.members.items()
    ]


def mean(one: search.Search, result: searches.Result, raw: Any) -> Any:
    return sum(weight * model.predict(raw).outputs for model, weight in members(one, result))


def made(one: search.Search, best: winners.Best) -> bundle.Bundle:
    return best.model(functools.partial(bundles.of, one))


def test_an_ensemble_is_registered_and_predicts_the_mean_of_its_members(tmp_path: Path) -> None:
    one = searched(tmp_path)
    trials = linear(one)
    result = winner.Winner(one, trials).register()
    found = result.ensemble
    assert found is not None
    assert found.kept
    assert found.verdict is not None
    assert found.verdict.difference.high < 0
    assert len(found.members) == 3
    assert sum(member.weight for member in found.members.values()) == pytest.approx(1)
    assert found.metrics["rmse"] < min(record.score or 0 for record in trials)
    assert found.single is not None
    assert found.price is not None
    assert found.price.size > 2 * found.single.size

    made = loaded(one, result)
    assert isinstance(made.engine, Ensemble)
    assert len(made.others) == 1, "the other scale has transforms of its own"
    made.verify()
    raw = schema.to_json(one.dataset.schema, one.dataset.take(one.dataset.split.test[:40]))
    assert made.predict(raw).outputs == pytest.approx(mean(one, result, raw), abs=1e-6)
    manifest = Registry(one.storage).version("sums", result.version).manifest
    assert manifest["metrics"]["validation"] == found.metrics
    assert list(manifest["ensemble"]["members"]) == list(found.members)
    assert sum(manifest["lineage"]["members"].values()) == pytest.approx(1)

    again = winner.Winner(one, trials).register()
    assert again.version == result.version, "the same trials give the same version"


def test_the_members_of_an_ensemble_are_trained_anew(tmp_path: Path) -> None:
    one = searched(tmp_path, **{"tune.refit": "true"})
    trials = linear(one)
    best = winners.best(one, trials)
    assert len(best.weights) > 1
    anew = test_refit.trained(refit.of(one, [trial for trial, _ in best.members]))
    result = winner.Winner(one, trials, best, anew).register()
    columns = one.dataset.take(one.dataset.split.test)
    expected = sum(
        best.weights[str(trial.number)]
        * bundles.of(anew.search, anew.records[trial.number]).predict_columns(columns).outputs
        for trial, _ in best.members
    )
    outputs = loaded(one, result).predict_columns(columns).outputs
    assert outputs == pytest.approx(expected, rel=1e-4, abs=1e-4)
    plain = made(one, best).predict_columns(columns).outputs
    assert np.abs(plain - expected).max() > 1e-3
    assert result.refit == anew.epochs == 1
    assert result.validation == {}
    assert result.ensemble is not None
    assert all(member.refit for member in result.ensemble.members.values())
    assert str(result.ensemble).count("trained anew") == len(best.weights)


@pytest.mark.parametrize(
    ("text", "anew"),
    [
        ("model: {type: auto}", [2]),
        ("model: {type: auto}\ntune: {refit: true}", [1, 2]),
        ("model: {type: auto}\ntune: {refit: false}", []),
        ("model: {type: auto}\ntune: {folds: 3}", [1, 2]),
        ("model: {type: auto}\ndata: {split: {time: alcohol}}", []),
        ("model: {type: mlp}", []),
        ("model: {type: boosting}", []),
        ("model: {type: mlp}\ntune: {refit: true}", [1, 2]),
        ("model: {type: mlp}\ntune: {folds: 3}", [1, 2]),
    ],
)
def test_which_members_are_trained_anew(tmp_path: Path, text: str, anew: list[int]) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(f"name: wine\n{text}\nstorage: {tmp_path.as_uri()}\n")
    source = {"data.source": "dataset:wine", "data.target": "target"}
    one = search.Search(spec.load(file, source))
    usual = {key: drawn.default() for key, drawn in one.experiment.space.items()}
    members = [
        searches.Record(
            number=1, values=usual | dict.fromkeys({"model.family"} & usual.keys(), "tabm")
        ),
        searches.Record(number=2, values=usual),
    ]
    assert [trial.number for trial in refit.selected(one, members)] == anew


def test_a_refit_that_fails_leaves_the_winner_unless_the_file_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise errors.SearchError("trial 1 must be trained anew, but failed: no room")

    monkeypatch.setattr(refit, "run", fail)
    one = searched(tmp_path, **{"tune.refit": "true"})
    trained = pipeline._trained(one, linear(one))
    assert trained.anew is not None
    assert not trained.anew.done
    out = console.Console(file=io.StringIO(), width=300)
    with pytest.raises(errors.SearchError):
        pipeline._refit(one, trained, out, grows=False)
    tune = one.experiment.tune.model_copy(update={"refit": "auto"})
    one.experiment = one.experiment.model_copy(update={"tune": tune})
    assert pipeline._refit(one, trained, out, grows=False).anew is None
    assert "no room; the winner is as the search has trained it" in out.file.getvalue()  # type: ignore[attr-defined]
    assert "of the winner are trained anew on" in out.file.getvalue()  # type: ignore[attr-defined]


def test_threshold_and_temperature_follow_the_mean_of_probabilities(tmp_path: Path) -> None:
    text = SUMS.replace("target: y", "target: kind, positive: high")
    asked = {"decide": "{calibrate: temperature, maximize: f1}"}
    one = searched(tmp_path, text, **asked)
    result = winner.Winner(one, linear(one, "ssss")).register()
    assert result.ensemble is not None
    assert result.ensemble.kept
    made, raw = (
        loaded(one, result),
        schema.to_json(one.dataset.schema, one.dataset.take(one.dataset.split.test[:40])),
    )
    assert not made.others
    share = 1 / made.scale["temperature"]
    plain = mean(one, result, raw) ** share
    expected = plain / plain.sum(1, keepdims=True)
    assert made.predict(raw).outputs == pytest.approx(expected, abs=1e-5)
    assert made.schema.target.threshold is not None


def test_trees_alone_may_be_an_ensemble(tmp_path: Path) -> None:
    model = "{type: boosting, min_rows: 2, row_share: 0.3, rounds: 5}"
    text = SUMS.replace("{type: mlp, hidden: []}", model).replace("epochs: 1", "epochs: 1, lr: 0.5")
    one = searched(tmp_path, text)
    seeds = [{"features.a.scale": "standard", "train.seed": seed} for seed in range(4)]
    trials = [judged.trial(one, number, **values) for number, values in enumerate(seeds, 1)]
    best = winners.best(one, one.ranked(trials))
    assert best.ensemble is not None
    assert best.ensemble.kept, str(best.ensemble)
    assert {member.model for member in best.ensemble.members.values()} == {"boosting"}
    columns = one.dataset.take(one.dataset.split.test[:4])
    files = bundle.pack(made(one, best), schema.to_json(one.dataset.schema, columns), {})
    loaded = bundle.unpack(files)
    loaded.verify()
    assert {path.split("/")[0] for path in files if "model" in path} == {"members"}


def test_a_trial_whose_weights_are_damaged_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = searched(tmp_path)
    trials = linear(one)
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "of another machine"))
    one.storage.delete(blobs.key(trials[2].weights[0]))
    one.storage.put(blobs.key(trials[3].weights[0]), b"rotten")
    found = winners.best(one, trials).ensemble
    assert found is not None
    assert [text.split(":")[0] for text in found.damaged] == [
        f"trial {trials[2].number}",
        f"trial {trials[3].number}",
    ]
    assert set(found.members) <= {str(record.number) for record in trials[:2]}
    assert "damaged in storage, so not tried: trial" in str(found)


def test_the_next_best_takes_the_place_of_a_trial_whose_weights_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = searched(tmp_path, **{"tune.trials": "3", "tune.ensemble.members": "1"})
    trials = linear(one, "sss")
    best, second, third = trials
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "of another machine"))
    one.storage.put(blobs.key(best.weights[0]), b"rotten")
    one.storage.delete(blobs.key(second.weights[0]))
    said = io.StringIO()
    outcome = pipeline.run(one.experiment, console.Console(file=said, width=500))
    assert (outcome.result.winner, outcome.winner.number) == (third.number, third.number)
    assert outcome.result.warnings[-1].startswith(
        f"is of trial {third.number}, the best one that storage can give back; damaged there: "
        f"trial {best.number}: "
    )
    assert f"trial {second.number}: " in outcome.result.warnings[-1]
    assert loaded(one, outcome.result).predict({name: [1] for name in "abcd"}).outputs.size
    again = pipeline.run(one.experiment, console.Console(file=said, width=500))
    assert (again.result, again.winner.number) == (outcome.result, third.number)


def test_a_search_all_of_whose_weights_are_damaged_names_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = searched(tmp_path)
    trials = linear(one, "ss")
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "of another machine"))
    one.storage.put(blobs.key(trials[0].weights[0]), b"rotten")
    one.storage.delete(blobs.key(trials[1].weights[0]))
    with pytest.raises(errors.CorruptObjectError, match=trials[0].weights[0].sha256[:12]):
        bundles.readable(one, trials)


def test_a_storage_that_is_not_there_is_told_before_the_data_are_read(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(SUMS)
    made = spec.load(file, {"storage": (tmp_path / "nowhere").as_uri()})
    assert not (tmp_path / "sums.csv").exists()
    with pytest.raises(errors.BucketNotFoundError, match="the folder must exist"):
        pipeline.run(made, console.Console(file=io.StringIO()))


def test_the_best_trial_itself_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = searched(tmp_path)
    trials = linear(one, "ss")
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "of another machine"))
    one.storage.delete(blobs.key(trials[0].weights[0]))
    with pytest.raises(errors.ObjectNotFoundError):
        winners.best(one, trials)


def test_one_trial_is_no_ensemble_and_says_so(tmp_path: Path) -> None:
    one = searched(tmp_path)
    found = winners.best(one, linear(one, "s"))
    assert found.ensemble is not None
    assert str(found.ensemble) == "is one trial alone: no other one has its weights in storage"
    assert not isinstance(made(one, found).engine, Ensemble)


def test_members_leave_until_a_row_is_fast_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def a_millisecond_each(model: bundle.Bundle, _: object) -> float:
        return float(len(model.engine.members)) if isinstance(model.engine, Ensemble) else 1.0

    monkeypatch.setattr(latency, "milliseconds", a_millisecond_each)
    one = searched(tmp_path, **{"tune.ensemble.latency_ms": "2"})
    trials = linear(one)
    found = winners.best(one, trials).ensemble
    assert found is not None
    assert (found.kept, len(found.members), found.larger_ms) == (True, 2, 3.0)
    assert str(found).endswith("; more members took 3 ms")
    slow = searched(tmp_path, **{"tune.ensemble.latency_ms": "1.5"})
    alone = winners.best(slow, trials).ensemble
    assert alone is not None
    assert not alone.kept
    assert "one row takes 3 ms or more, more than tune.ensemble.latency_ms: 1.5" in str(alone)


def test_a_latency_is_measured_in_milliseconds_on_one_core(tmp_path: Path) -> None:
    one, before = searched(tmp_path), torch.get_num_threads()
    found = winners.best(one, linear(one, "ss"))
    assert found.ensemble is not None
    assert found.ensemble.single is not None
    assert 0.01 < found.ensemble.single.latency_ms < 1000
    assert torch.get_num_threads() == before


def test_an_ensemble_that_is_no_better_leaves_the_best_trial(tmp_path: Path) -> None:
    """On 44 rows noise is larger than what a mean gains."""
    one = judged.searched(
        tmp_path,
        judged.DIABETES,
        **{"tune.ensemble": "{members: 3}", "data.split.validation": "0.1"},
    )
    trials = one.ranked([judged.trial(one, n, **{"train.lr": 10.0**-n}) for n in (2, 3)])
    result = winner.Winner(one, trials).register()
    assert result.ensemble is not None
    assert not result.ensemble.kept
    assert "is one trial alone" in str(result.ensemble)
    version = Registry(one.storage).version("diabetes", result.version)
    assert "members" not in version.manifest["lineage"]
    assert version.manifest["metrics"]["validation"] == trials[0].best


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("model: {type: auto}", spec.MEMBERS),
        ("model: {type: auto}\ntune: {cost: size}", 1),
        ("model: {type: auto}\ntune: {ensemble: {members: 1}}", 1),
        ("model: {type: mlp}", 1),
        ("model: {type: mlp}\ntune: {ensemble: {members: 2}}", 2),
    ],
)
def test_how_many_members_a_file_allows(tmp_path: Path, text: str, most: int) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(f"name: x\ndata: {{source: 'dataset:wine', target: target}}\n{text}\n")
    assert spec.load(file).members == most


def test_other_bounds_judge_the_same_trials_anew(tmp_path: Path) -> None:
    """The search is the same one: nothing is trained again."""
    one = searched(tmp_path, **{"tune.trials": "4"})
    result = winner.Winner(one, linear(one)).register()
    ended = one.finished()
    assert ended is not None
    assert ended[1] == result
    other = searched(tmp_path, **{"tune.trials": "4", "tune.ensemble.members": "1"})
    assert other.id == one.id
    ended = other.finished()
    assert ended is not None
    assert ended[1] is None
    alone = winner.Winner(other, ended[0]).register()
    assert (alone.version, alone.ensemble) == (result.version + 1, None)


def test_members_that_were_trained_on_other_rows_give_their_mean_in_the_target_s_unit(
    tmp_path: Path,
) -> None:
    """Of the rows without outliers of `a` the target has another mean and deviation."""
    text = SUMS.replace(
        "features: {a: {type: numeric, scale: {choice: [standard, minmax]}}}",
        "features: {a: {type: numeric, clip: [0.0, 0.6], outliers: {choice: [clip, drop]}}}",
    )
    one = searched(tmp_path, text)
    torch.manual_seed(0)
    tensors = {"head.0.weight": torch.randn(1, 4), "head.0.bias": torch.randn(1)}
    blob = blobs.put(one.storage, safe_torch.save(tensors))
    models = []
    for number, how in enumerate(["clip", "drop"], 1):
        values = {"features.a.outliers": how, "train.seed": 0}
        models.append(
            bundles.of(one, searches.Record(number=number, values=values, weights=(blob,)))
        )
    assert models[0].scale != models[1].scale
    columns = one.dataset.take(one.dataset.split.test)
    made = bundles.mean([(models[0], 2), (models[1], 1)])
    found = bundle.unpack(bundle.pack(made, {"a": [1], "b": [1], "c": [1], "d": [1]}, {}))
    first, second = (model.predict_columns(columns).outputs for model in models)
    assert found.predict_columns(columns).outputs == pytest.approx((2 * first + second) / 3)
