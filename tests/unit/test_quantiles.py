"""Quantiles of a number: loss, monotone answers, coverage that holds, and what is refused."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as sk

from eagleray import bundle, compatibility, errors, evaluation, predictions, spec
from eagleray.api import checks
from eagleray.evaluation import baselines, calibrations
from eagleray.learn import losses, metrics, schema, tasks
from eagleray.reports import findings
from eagleray.state import evaluations
from eagleray.state.models import Registry
from ray_jobs import learner, pack, search, training
from ray_jobs.report import outcome
from serving import batching, openapi, predictor, protocol
from serving import metrics as counted
from serving.wire import inference
from tests import bundles, judged

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
TARGET = schema.Target(name="y", task="quantiles", quantiles=LEVELS)
SCALE = {"mean": 0.0, "deviation": 1.0}


def rows(count: int, seed: int = 0) -> pd.DataFrame:
    """A number whose noise grows with `x`: the right quantiles are known."""
    random = np.random.default_rng(seed)
    x, kind = random.uniform(0, 4, count), random.choice(["a", "b"], count)
    y = 2 * x + (kind == "b") + (0.2 + x / 2) * random.normal(size=count)
    return pd.DataFrame({"x": x.round(4), "kind": kind, "y": y.round(4)})


def file(folder: Path, count: int = 900, *, more: str = "", data: str = "") -> Path:
    rows(count).to_csv(folder / "rows.csv", index=False)
    path = folder / "experiment.yaml"
    path.write_text(
        f"name: y\ndata: {{source: rows.csv, target: y, quantiles: {list(LEVELS)}{data}}}\n"
        f"storage: {(folder / 'storage').as_uri()}\n{more}"
    )
    (folder / "storage").mkdir(exist_ok=True)
    return path


MODELS = {
    "mlp": "model: {type: mlp, hidden: [32], dropout: 0}\ntrain: {epochs: 25, lr: 0.01}\n",
    "tabm": "model: {type: tabm, width: 32, members: 4, bins: 16}\ntrain: {epochs: 12, lr: 0.01}\n",
    "boosting": "model: {type: boosting, rounds: 10, leaves: 7}\ntrain: {epochs: 6, lr: 0.1}\n",
}


def searched(folder: Path, model: str, count: int = 900, **overrides: str) -> search.Search:
    return search.Search(spec.load(file(folder, count, more=MODELS[model]), overrides))


# The task


def test_the_loss_is_scikit_learns_mean_pinball_loss() -> None:
    random = np.random.default_rng(0)
    truth, outputs = random.normal(size=200), np.sort(random.normal(size=(200, 5)), axis=1)
    each = [
        sk.mean_pinball_loss(truth, outputs[:, place], alpha=level)
        for place, level in enumerate(LEVELS)
    ]
    loss = losses.build(spec.Train(), TARGET, truth)
    found = loss(torch.from_numpy(outputs).float(), torch.from_numpy(truth).float())
    assert float(found) == pytest.approx(np.mean(each), rel=1e-5)
    scores = metrics.score(TARGET, truth, outputs)
    assert scores["pinball"] == pytest.approx(np.mean(each))
    assert scores["mae"] == pytest.approx(sk.mean_absolute_error(truth, outputs[:, 2]))
    inside = (outputs[:, 0] <= truth) & (truth <= outputs[:, -1])
    assert scores["coverage"] == pytest.approx(inside.mean())
    assert scores["interval_width"] == pytest.approx((outputs[:, -1] - outputs[:, 0]).mean())


@given(
    arrays.arrays(np.float64, (7, 5), elements=st.floats(-1e6, 1e6)),
    st.none() | st.tuples(*[st.floats(-1e3, 1e3)] * 5),
)
def test_quantiles_of_a_row_never_cross(
    raw_BC: np.ndarray, shifts: tuple[float, ...] | None
) -> None:
    task = tasks.of(TARGET.model_copy(update={"shifts": shifts or ()}))
    value_BC = task.activate(raw_BC, SCALE)
    assert (np.diff(value_BC, axis=1) >= 0).all()
    if shifts is not None:  # moved outward alone
        moved_BC = np.sort(raw_BC, axis=1) + np.array(shifts)
        assert (value_BC[:, :2] <= moved_BC[:, :2]).all()
        assert (value_BC[:, 3:] >= moved_BC[:, 3:]).all()
        np.testing.assert_array_equal(value_BC[:, 2], moved_BC[:, 2])


def test_an_answer_has_the_median_its_bounds_and_every_level() -> None:
    task = tasks.of(TARGET)
    (answer,) = task.answers(np.array([[1.0, 2.0, 3.0, 4.0, 5.0]]))
    every = {"0.05": 1.0, "0.25": 2.0, "0.5": 3.0, "0.75": 4.0, "0.95": 5.0}
    assert answer == {"value": 3.0, "lower": 1.0, "upper": 5.0, "quantiles": every}
    assert task.answer_schema().keys() == answer.keys()
    cells = task.flat(answer)
    assert list(cells) == list(task.flat(task.blank))
    assert (cells["value"], cells["quantile 0.95"]) == (3.0, 5.0)
    assert task.outcome(answer, {"mean": 3.0, "deviation": 1.0}) == "tenth 6"
    assert task.outcome_counts(np.array([[1.0, 2, 3, 4, 5]]), {"mean": 3.0, "deviation": 1.0}) == {
        "tenth 6": 1
    }
    assert task.reward(3.0, 3.0, SCALE) == 1.0


def test_intervals_are_reported_from_outside_in_with_their_binomial_intervals() -> None:
    truth, edges = np.arange(100.0), np.array([4.5, 24.5, 49.5, 74.5, 94.5])
    outputs = np.tile(edges, (100, 1))
    wide, narrow = tasks.of(TARGET).evaluate(truth, outputs, {}).intervals
    assert (wide.level, wide.bin.was, wide.width) == (0.9, 0.9, 90.0)
    assert (narrow.level, narrow.bin.was) == (0.5, 0.5)
    assert wide.bin.sides == pytest.approx((0.8256, 0.9448), abs=1e-4)  # Wilson, of 90 in 100
    assert "in its 90 % interval for 90 of 100 rows" in tasks.of(TARGET).headline(truth, outputs)
    coverage = next(tasks.of(TARGET).diagrams(truth, outputs))
    assert coverage.name == "coverage"
    assert coverage.lines[0].y == pytest.approx(LEVELS)


def test_baselines_of_quantiles_are_constant_linear_and_trees() -> None:
    frame, task = rows(600), tasks.of(TARGET)
    x, y = frame[["x"]].to_numpy(), frame["y"].to_numpy()
    constant = task.constant(y, 3)
    assert constant is not None
    np.testing.assert_allclose(constant[1], np.quantile(y, LEVELS))
    scores = {"constant": metrics.score(TARGET, y, np.tile(constant[0], (600, 1)))["pinball"]}
    for name, estimator in task.estimators().items():
        outputs = task.estimate(estimator.fit(x, y), x)
        assert (np.diff(outputs, axis=1) >= 0).all()
        scores[name] = metrics.score(TARGET, y, outputs)["pinball"]
    assert scores["boosting"] < scores["linear regression"] < scores["constant"]
    plain = evaluation.Judged(TARGET, y, np.tile(constant[0], (600, 1)))
    assert not baselines.judge(plain, "itself", plain.outputs, "pinball").beaten


# Conformal calibration


@pytest.mark.parametrize("spoiled", [0.2, 1.0, 3.0])
def test_conformal_intervals_hold_what_they_say_however_wrong_the_model_is(spoiled: float) -> None:
    """A model whose intervals are far too narrow, right, or so wide that moved ones would cross."""
    random = np.random.default_rng(3)
    normal = np.array([-1.645, -0.674, 0, 0.674, 1.645])

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        x = random.uniform(0, 4, count)
        spread = 0.2 + x / 2
        truth = 2 * x + spread * random.normal(size=count)
        return truth, 2 * x[:, None] + 0.5 + spoiled * spread[:, None] * normal

    covered = []
    for _ in range(60):
        found = calibrations.fit("conformal", TARGET, *draw(300))
        truth, outputs = draw(300)
        moved = tasks.of(found.target).activate(outputs, SCALE)
        covered.append([one.was for one in tasks.of(TARGET).bins(truth, moved)])
    below = np.mean(covered, axis=0)
    assert (below[:2] < np.array(LEVELS[:2]) + 0.015).all()
    assert (below[3:] > np.array(LEVELS[3:]) - 0.015).all()
    if spoiled <= 1:  # else the intervals hold more
        np.testing.assert_allclose(below, LEVELS, atol=0.015)


def test_too_few_rows_for_a_level_say_what_they_can_promise() -> None:
    truth, outputs = np.arange(9.0), np.tile(np.zeros(5), (9, 1))
    found = calibrations.fit("conformal", TARGET, truth, outputs)
    assert found.warning == (
        "cannot promise quantiles from 0.05 to 0.95 by 9 validation rows: the furthest are 0.1 and"
        " 0.9; 19 rows can"
    )
    assert found.target.shifts == (0.0, 1.0, 4.0, 7.0, 8.0)
    assert not calibrations.fit("conformal", TARGET, np.arange(19.0), np.zeros((19, 5))).warning


# From search to endpoint


def trained(one: search.Search) -> learner.Learner:
    configuration = one.experiment.default()
    data = one.dataset.encode(one.transforms(configuration))
    running = learner.build(configuration, data, metric=one.metric)
    while not running.finished:
        running.epoch()
    return running


@pytest.mark.parametrize("model", MODELS)
def test_a_model_learns_quantiles_and_its_bundle_predicts_the_same(
    model: str, tmp_path: Path
) -> None:
    from ray_jobs import tensors

    one = searched(tmp_path, model)
    assert (one.metric, one.dataset.schema.target.quantiles) == ("pinball", LEVELS)
    running, task = trained(one), tasks.of(one.dataset.schema.target)
    transforms = one.transforms(one.experiment.default())
    (tmp_path / "best").write_bytes(running.best("x").read())
    weights = tensors.Reader([tmp_path / "best"])
    made = bundle.Bundle(
        schema=transforms.with_categories(one.dataset.schema),
        transforms=transforms,
        engine=running.engine(one.experiment.model, transforms, task, weights),
        scale=task.scale(one.dataset.targets[one.dataset.split.train]),
    )
    validation = one.dataset.split.validation
    raw = schema.to_json(one.dataset.schema, one.dataset.take(validation))
    loaded = bundle.unpack(bundle.pack(made, raw, {}))
    loaded.verify()
    outputs = loaded.predict(raw).outputs
    best = running.progress.best
    found = metrics.score(task.target, one.dataset.targets[validation], outputs)
    assert found == pytest.approx({name: best[name] for name in found}, rel=1e-5)
    truth = one.dataset.targets[validation]
    constant = task.constant(one.dataset.targets[one.dataset.split.train], len(truth))
    assert constant is not None
    least = metrics.score(task.target, truth, constant)["pinball"]
    assert best["pinball"] < 0.6 * least
    assert best["coverage"] == pytest.approx(0.9, abs=0.1)


def test_a_pack_trains_quantiles_as_each_alone(tmp_path: Path) -> None:
    one = searched(tmp_path, "mlp", **{"train.epochs": "2"})
    chosen = one.experiment.default()
    data = one.dataset.encode(one.transforms(chosen))

    def start(lr: float) -> training.Trainer:
        train = chosen.train.model_copy(update={"lr": lr})
        return training.Trainer(chosen.model_copy(update={"train": train}), data, metric="pinball")

    alone, packed = [start(0.01), start(0.02)], [start(0.01), start(0.02)]
    for trainer, done in zip(packed, pack.epoch(packed), strict=True):
        trainer.record(done)
    for trainer in alone:
        trainer.epoch()
    for first, second in zip(alone, packed, strict=True):
        pinball = first.progress.best["pinball"]
        assert second.progress.best["pinball"] == pytest.approx(pinball, rel=1e-4)


def won(folder: Path, more: str = "") -> tuple[search.Search, evaluations.Evaluation, Any]:
    one = search.Search(spec.load(file(folder, 600, more=MODELS["mlp"] + more)))
    result = judged.won(one, [judged.trial(one, 1)])
    registry = Registry(one.storage)
    version = registry.version("y", result.version)
    found = evaluations.decode(registry.read(version, evaluations.FILE), "here")
    return one, found, bundle.load(registry, version)


@pytest.fixture(scope="module")
def winner(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[search.Search, evaluations.Evaluation, bundle.Bundle]:
    return won(tmp_path_factory.mktemp("quantiles"))


Winner = tuple[search.Search, evaluations.Evaluation, bundle.Bundle]


def test_a_winner_is_calibrated_judged_and_kept_with_its_shifts(winner: Winner) -> None:
    one, found, loaded = winner
    assert len(loaded.schema.target.shifts) == 5
    assert found.calibration is not None
    assert (found.calibration.method, len(found.calibration.bins_after)) == ("conformal", 5)
    assert [interval.level for interval in found.intervals] == [0.9, 0.5]
    wide = found.intervals[0].coverage
    assert wide.low is not None
    assert wide.high is not None
    assert wide.low < 0.9 < wide.high
    assert found.values["coverage"] == pytest.approx(wide.value)
    assert {"pinball", "coverage", "interval_width", "mae"} <= found.metrics.keys()
    assert {plain.name for plain in found.baselines} == {
        "always the same",
        "linear regression",
        "boosting",
    }
    assert [picture.name for picture in found.diagrams] == ["coverage", "predicted", "residuals"]
    assert "its 90 % interval" in found.headline.replace("in its", "its")
    said = [finding.message for finding in findings.of(found)]
    assert any(text.startswith("Its 90 % interval holds") for text in said)
    assert one.experiment.decide.calibrate == "auto"
    result = one.records.result()
    assert result is not None
    told = list(outcome.said(result))
    assert f"is calibrated by {found.calibration}" in told
    assert str(found.calibration).startswith("conformal shifts: expected calibration error on the")
    assert any(text.startswith("on the test part: the 50 % interval holds 0.") for text in told)
    loaded.verify()


def test_without_calibration_the_quantiles_stay_as_the_model_gives_them(tmp_path: Path) -> None:
    _, found, loaded = won(tmp_path, "decide: {calibrate: none}\n")
    assert (loaded.schema.target.shifts, found.calibration) == ((), None)


def test_a_bundle_with_shifts_is_refused_by_releases_that_know_none() -> None:
    made = bundles.make(target=TARGET)
    made.schema = made.schema.model_copy(
        update={"target": TARGET.model_copy(update={"shifts": (0.0,) * 5})}
    )
    assert bundle._format(made) == bundle.DECIDED
    assert bundle._format(bundles.make(target=TARGET)) == bundle.FORMAT


def test_the_endpoint_answers_in_each_protocol(
    winner: Winner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(counted.FOLDER, "")
    loaded = winner[2]
    body = json.dumps({"instances": [{"x": 1.0, "kind": "a"}, {"x": 3.5, "kind": "b"}]}).encode()
    codec = protocol.Codec(loaded.schema)
    prediction = loaded.predict_columns(codec.columns(codec.rows(body)))
    first, second = codec.answers(prediction)
    assert first["lower"] <= first["value"] <= first["upper"] < second["upper"]
    assert list(first["quantiles"]) == [str(level) for level in LEVELS]
    gauges = counted.Metrics(tmp_path, "y")
    with ThreadPoolExecutor(1) as thread:
        served = predictor.Predictor(loaded, batching.Limits(), thread, gauges)
        assert served.outcome(first).startswith("tenth ")
        assert served.reward(first["value"], first["value"]) == 1.0
        explained = served._explainer.explain(codec.columns(codec.rows(body)[:1]))
        total = explained["mean"] + sum(explained["contributions"].values())
        assert total == pytest.approx(first["value"], rel=1e-5)
    described = openapi.document(loaded)["components"]["schemas"]["Answer"]
    assert {"value", "lower", "upper", "quantiles"} <= described["properties"].keys()
    outputs = {
        one.name: one
        for one in inference.answered(inference.Request([]), loaded.task, [first, second])
    }
    assert outputs["quantiles"].shape == [2, 5]
    assert outputs["value"].values == [first["value"], second["value"]]
    table = predictions.predict(
        loaded, pd.DataFrame({"x": [1, "much"], "kind": ["a", "b"]})
    ).table()
    assert table["quantile 0.5"][0] == pytest.approx(first["value"])
    assert np.isnan(table["value"][1])


def test_other_levels_are_another_answer_for_clients() -> None:
    fewer = TARGET.model_copy(update={"quantiles": (0.1, 0.5, 0.9)})
    column = schema.Column(name="x", type="numeric")
    old, new = (schema.Schema(columns=(column,), target=one) for one in (TARGET, fewer))
    (change,) = compatibility.changes(old, new)
    assert change.breakage == "an answer has other quantiles"


# Bad input


@pytest.mark.parametrize(
    ("levels", "problem"),
    [
        ("[0, 0.5]", "data.quantiles[0]: must be above 0, but got 0"),
        ("[0.5, 1.5]", "data.quantiles[1]: must be below 1, but got 1.5"),
        ("[0.5, 0.1]", "data.quantiles: must ascend, and hold each level once, but got [0.5, 0.1]"),
        (
            "[0.5, 0.5]",
            "data.quantiles: must ascend, and hold each level once, but got [0.5, 0.5]",
        ),
        (
            "[0.1, 0.9]",
            "data.quantiles: must hold 0.5, the median, which is the prediction, but got"
            " [0.1, 0.9]",
        ),
        ("0.5", "data.quantiles: must be a list, but got 0.5"),
    ],
)
def test_levels_that_are_none_are_refused(tmp_path: Path, levels: str, problem: str) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(f"name: x\ndata: {{source: s, target: y, quantiles: {levels}}}\n")
    with pytest.raises(errors.SpecError) as failure:
        spec.load(path)
    assert failure.value.problems == [f"{path}:2: {problem}"]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (
            "train: {loss: mse}\n",
            "train.loss: must fit data.quantiles: [0.05, 0.25, 0.5, 0.75, 0.95], which is for"
            ' quantiles, but got "mse"',
        ),
        (
            "tune: {metric: coverage}\n",
            "tune.metric: must be one of auto, accuracy, balanced_accuracy, f1, precision, recall,"
            " roc_auc, pr_auc, log_loss, brier, mcc, rmse, mae, r2, pinball, ndcg_at_k,"
            ' recall_at_k, map_at_k, coverage_at_k, but got "coverage"; did you mean coverage_at_k',
        ),
        (
            "decide: {maximize: f1}\n",
            "decide.maximize: must fit data.quantiles: [0.05, 0.25, 0.5, 0.75, 0.95], which is for"
            ' quantiles, but got "f1"',
        ),
        (
            "decide: {calibrate: isotonic}\n",
            "decide.calibrate: must fit data.quantiles: [0.05, 0.25, 0.5, 0.75, 0.95], which is for"
            ' quantiles, but got "isotonic"',
        ),
    ],
)
def test_keys_of_other_tasks_are_refused_beside_quantiles(
    tmp_path: Path, more: str, problem: str
) -> None:
    with pytest.raises(errors.SpecError) as failure:
        spec.load(file(tmp_path, 20, more=more))
    assert failure.value.problems == [f"{tmp_path / 'experiment.yaml'}:4: {problem}"]


def test_quantiles_of_classes_and_a_loss_without_levels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    data = "data: {source: 'dataset:iris', target: target, quantiles: [0.5]}\n"
    path.write_text(f"name: x\n{data}")
    assert checks.examine(path, {}).problems == [
        f"{path}:2: data.quantiles: must be left out unless the target is a number, but target has"
        " classes"
    ]
    path.write_text("name: x\ndata: {source: s, target: y}\ntrain: {loss: quantile}\n")
    with pytest.raises(errors.SpecError, match=r"needs data\.quantiles beside it, such as \[0\.05"):
        spec.load(path)
    path.write_text("name: x\ndata: {source: 'dataset:diabetes', target: target}\n")
    path.write_text(path.read_text() + "decide: {calibrate: conformal}\n")
    (found,) = checks.examine(path, {}).problems
    assert "decide.calibrate: must be left out unless the task is quantiles, but it is" in found


def test_few_whole_numbers_are_quantities_where_quantiles_are_asked_for(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.arange(90.0), "y": np.arange(90) % 4})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    path = tmp_path / "experiment.yaml"
    path.write_text("name: x\ndata: {source: rows.csv, target: y, quantiles: [0.1, 0.5, 0.9]}\n")
    assert search.Search(spec.load(path)).dataset.schema.target.task == "quantiles"
