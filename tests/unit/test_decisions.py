"""How classes are decided: thresholds, costs and temperatures, on planted data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from eagleray import bundle, errors, predictions, spec
from eagleray.api import checks
from eagleray.evaluation import calibrations, decisions
from eagleray.learn import metrics, schema, tasks
from eagleray.state import evaluations
from eagleray.state.models import Registry
from tests import bundles, judged

BINARY = schema.Target(name="y", task="binary", classes=("no", "yes"))
THREE = schema.Target(name="y", task="multiclass", classes=("a", "b", "c"))
COSTS = {"no": {"yes": 1.0}, "yes": {"no": 10.0}}


def two(score: np.ndarray) -> np.ndarray:
    return np.stack([1 - score, score], 1)


def drawn(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are positive as often as their probability says, a fifth of them on average."""
    random = np.random.default_rng(seed)
    score = random.beta(1, 4, rows)
    return (random.random(rows) < score).astype(np.int64), two(score)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "f1", "mcc"])
def test_no_threshold_scores_higher_than_the_chosen_one(name: str, seed: int) -> None:
    truth, outputs = drawn(100, seed)
    target, found = decisions.decide(spec.Decide(maximize=name), BINARY, truth, outputs)
    assert found is not None
    score = {"f1": sk.f1_score, "mcc": sk.matthews_corrcoef}.get(name) or getattr(
        sk, f"{name}_score"
    )
    every = [score(truth, outputs[:, 1] >= one) for one in np.unique(outputs[:, 1])]
    assert found.reached[name] == pytest.approx(max(every))
    assert found.usual[name] == pytest.approx(score(truth, outputs[:, 1] >= 0.5))
    assert metrics.score(target, truth, outputs)[name] == pytest.approx(found.reached[name])
    label = tasks.of(target).decide(outputs)
    np.testing.assert_array_equal(label, outputs[:, 1] >= target.threshold)


def test_a_planted_threshold_is_found_midway_between_its_neighbours() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1, 1])
    score = np.array([0.01, 0.05, 0.1, 0.2, 0.3, 0.35, 0.4], np.float32)
    target, _ = decisions.decide(spec.Decide(maximize="f1"), BINARY, truth, two(score))
    assert target.threshold == pytest.approx(0.25)
    assert metrics.score(target, truth, two(score))["f1"] == 1.0
    assert metrics.score(BINARY, truth, two(score))["f1"] == 0.0


@pytest.mark.parametrize("least", [0.3, 0.5, 0.6])
def test_recall_is_the_most_that_the_precision_allows(least: float) -> None:
    truth, outputs = drawn(500)
    chosen = spec.Decide(maximize="recall", precision=least)
    target, found = decisions.decide(chosen, BINARY, truth, outputs)
    precision, recall, _ = sk.precision_recall_curve(truth, outputs[:, 1])
    assert found is not None
    assert not found.warning
    assert found.reached["recall"] == pytest.approx(recall[:-1][precision[:-1] >= least].max())
    assert metrics.score(target, truth, outputs)["precision"] >= least


def test_a_precision_that_cannot_be_reached_says_the_best_that_can() -> None:
    truth = np.array([0, 1, 0, 1, 0, 0])
    outputs = two(np.array([0.9, 0.8, 0.7, 0.6, 0.2, 0.1]))
    chosen = spec.Decide(maximize="recall", precision=0.9)
    target, found = decisions.decide(chosen, BINARY, truth, outputs)
    assert found is not None
    assert found.warning == (
        "cannot reach precision 0.9 on the rows held out: the best is 0.5, with recall 1"
        " from probability 0.4 on, which it now decides by"
    )
    assert target.threshold == pytest.approx(0.4)


def test_costs_of_two_classes_choose_the_cheapest_threshold() -> None:
    truth, outputs = drawn(4000)
    target, found = decisions.decide(spec.Decide(costs=COSTS), BINARY, truth, outputs)
    assert found is not None
    assert target.threshold == pytest.approx(1 / 11, abs=0.04), "that of true probabilities"

    def cost(label: np.ndarray) -> float:
        return float((10 * (label < truth) + (label > truth)).mean())

    every = [cost(outputs[:, 1] >= one) for one in np.unique(outputs[:, 1])]
    assert found.reached["mean_cost"] == pytest.approx(min(every))
    assert found.usual["mean_cost"] == pytest.approx(cost(outputs[:, 1] >= 0.5))
    assert found.reached["mean_cost"] < found.usual["mean_cost"]


def test_costs_of_several_classes_predict_the_one_that_is_expected_to_cost_least() -> None:
    costs = {"a": {"b": 1, "c": 1}, "b": {"a": 1, "c": 1}, "c": {"a": 9, "b": 9}}
    outputs = np.array([[0.8, 0.0, 0.2], [0.9, 0.05, 0.05], [0.1, 0.9, 0.0]])
    truth = np.array([2, 0, 1])
    target, found = decisions.decide(spec.Decide(costs=costs), THREE, truth, outputs)
    assert tasks.of(target).decide(outputs).tolist() == [2, 0, 1]
    assert tasks.of(THREE).decide(outputs).tolist() == [0, 0, 1]
    assert found is not None
    assert (found.reached, found.usual) == ({"mean_cost": 0.0}, {"mean_cost": 3.0})
    assert metrics.score(target, truth, outputs)["accuracy"] == 1.0
    assert tasks.of(target).confidence(outputs).tolist() == [0.2, 0.9, 0.9]


@pytest.mark.parametrize("planted", [0.5, 1.0, 3.0])
def test_a_planted_temperature_is_found(planted: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (20_000, 3))
    right = tasks.of(THREE).activate(logits, {})
    truth = (random.random((len(right), 1)) > right.cumsum(1)).sum(1)
    outputs = tasks.of(THREE).activate(logits * planted, {})
    found = calibrations.fit("temperature", THREE, truth, outputs)
    assert found.scale["temperature"] == pytest.approx(planted, rel=0.05)
    mended = tasks.of(THREE).activate(logits * planted, found.scale)
    np.testing.assert_allclose(mended, right, atol=0.02)


def test_a_perfect_part_gives_a_bounded_temperature_and_threshold() -> None:
    truth, outputs = np.array([0, 0, 1, 1]), two(np.array([0.0, 0.0, 1.0, 1.0]))
    found = calibrations.fit("temperature", BINARY, truth, outputs)
    assert calibrations.LEAST <= found.scale["temperature"] <= calibrations.MOST
    target, _ = decisions.decide(spec.Decide(maximize="f1"), BINARY, truth, outputs)
    assert target.threshold == 0.5
    alike = two(np.full(4, 0.3))
    target, decided = decisions.decide(spec.Decide(maximize="accuracy"), BINARY, truth, alike)
    assert decided is not None
    assert decided.reached == {"accuracy": 0.5}


def decided(threshold: float, **scale: float) -> bundle.Bundle:
    target = schema.Target(name="left", task="binary", classes=("no", "yes"), threshold=threshold)
    made = bundles.make(target=target)
    made.scale = scale
    return made


def test_a_bundle_keeps_its_threshold_and_temperature() -> None:
    raw = bundles.rows(32, seed=7)
    made = decided(0.3, temperature=4.0)
    loaded = bundle.unpack(bundle.pack(made, raw, {}))
    loaded.verify()
    assert loaded.schema.target.threshold == 0.3
    assert loaded.scale == {"temperature": 4.0}
    said = loaded.predict(raw).outputs
    plain = bundles.make().predict(raw).outputs
    np.testing.assert_allclose(
        np.log(said[:, 1] / said[:, 0]), np.log(plain[:, 1] / plain[:, 0]) / 4, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("made", "number"),
    [
        (bundles.make(), bundle.FORMAT),
        (decided(0.3), bundle.DECIDED),
        (decided(0.3, temperature=2.0), bundle.DECIDED),
    ],
)
def test_releases_that_know_no_threshold_refuse_the_bundle(
    made: bundle.Bundle, number: int
) -> None:
    files = bundle.pack(made, bundles.rows(4), {})
    assert f'"format":{number},' in files["bundle.json"].decode()
    later = files["bundle.json"].replace(f'"format":{number},'.encode(), b'"format":5,')
    law = "bundle format must be one of 1, 2, 3, 4, but got 5"
    with pytest.raises(errors.ServingError, match=law):
        bundle.unpack({**files, "bundle.json": later})


def test_predictions_of_a_table_follow_the_threshold() -> None:
    import pandas as pd

    raw = bundles.rows(40, seed=7)
    plain = bundles.make().predict(raw).outputs[:, 1]
    threshold = float(np.sort(plain)[[9, 10]].mean())
    found = predictions.predict(decided(threshold), pd.DataFrame(raw))
    assert [row["label"] for row in found.rows].count("yes") == 30
    for row, said in zip(found.rows, plain.tolist(), strict=True):
        assert row["label"] == ("yes" if said >= threshold else "no")
        assert row["probability"] == pytest.approx(row["probabilities"][row["label"]])
        assert row["probabilities"]["yes"] == pytest.approx(said, abs=1e-6)


def winner(folder: Path, section: str) -> tuple[Any, evaluations.Evaluation, bundle.Bundle]:
    one = judged.searched(folder, f"{judged.TUMOURS}decide: {section}\n")
    result = judged.won(one, [judged.trial(one, 1)])
    registry = Registry(one.storage)
    version = registry.version("tumours", result.version)
    found = evaluations.decode(registry.read(version, evaluations.FILE), "here")
    return version, found, bundle.load(registry, version)


def test_a_winner_decides_as_the_file_asks_from_search_to_bundle(tmp_path: Path) -> None:
    text = "{calibrate: temperature, costs: {malignant: {benign: 20}, benign: {malignant: 1}}}"
    version, found, loaded = winner(tmp_path, text)
    assert found.decision is not None
    assert found.calibration is not None
    assert loaded.schema.target.threshold == found.decision.threshold
    assert found.decision.threshold < 0.5
    assert found.decision.reached["mean_cost"] < found.decision.usual["mean_cost"]
    assert found.decision.rows == 114
    assert loaded.scale == {"temperature": found.calibration.temperature}
    assert version.manifest["decision"]["threshold"] == found.decision.threshold
    assert version.manifest["calibration"]["before"] == found.calibration.before
    assert found.notes[:2] == [str(found.decision), str(found.calibration)]
    loaded.verify()
    (_, alarms), (missed, hits) = found.confusion
    assert found.values["recall"] == pytest.approx(hits / (hits + missed))
    assert found.values["precision"] == pytest.approx(hits / (hits + alarms))


def test_an_objective_out_of_reach_is_a_warning_of_the_version(tmp_path: Path) -> None:
    rows = [
        f"{seen},{'yes' if row % 10 < (6 if seen else 2) else 'no'}"
        for row in range(200)
        for seen in (0, 1)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(["seen,y", *rows]))
    text = f"""
name: tumours
data: {{source: {tmp_path / "rows.csv"}, target: y, positive: yes}}
model: {{type: mlp}}
train: {{epochs: 3}}
decide: {{maximize: recall, precision: 0.9}}
"""
    one = judged.searched(tmp_path, text)
    result = judged.won(one, [judged.trial(one, 1)])
    (warning,) = [said for said in result.warnings if "precision" in said]
    assert warning.startswith("cannot reach precision 0.9 on the rows held out: the best is 0.")


def test_another_way_to_decide_is_another_search_and_none_is_the_same(tmp_path: Path) -> None:
    plain = judged.searched(tmp_path)
    other = judged.searched(tmp_path, judged.TUMOURS + "decide: {maximize: f1}\n")
    assert plain.id != other.id
    assert plain.dataset.fingerprint == other.dataset.fingerprint


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        (
            "{costs: {malignant: {benign: 5}}}",
            "decide.costs: each of the 2 classes needs its costs, but there are none of benign",
        ),
        (
            "{costs: {malignant: {benign: 5}, benign: {}}}",
            "decide.costs: each of the 2 classes needs its costs, but 'benign' has none of"
            " malignant",
        ),
        (
            "{costs: {malignant: {benign: 5}, benign: {malignent: 1, malignant: 1}}}",
            "decide.costs: must be of classes, but got 'malignent'; did you mean 'malignant'",
        ),
        (
            "{costs: {malignant: {benign: 5}, benign: {malignant: 1, benign: 2}}}",
            "decide.costs: 'benign' predicted as itself is no mistake, but costs 2",
        ),
    ],
)
def test_a_cost_matrix_of_the_wrong_size_is_refused_with_its_line(
    tmp_path: Path, section: str, problem: str
) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(f"{judged.TUMOURS}decide: {section}\n")
    line = len(file.read_text().splitlines())
    assert checks.examine(file, {}).problems == [f"{file}:{line}: {problem}"]


@pytest.mark.parametrize(
    ("source", "key", "task"),
    [
        ("wine", "maximize: f1", "multiclass"),
        ("diabetes", "calibrate: temperature", "regression"),
    ],
)
def test_a_decision_of_another_task_is_refused(
    tmp_path: Path, source: str, key: str, task: str
) -> None:
    file = tmp_path / "experiment.yaml"
    data = f"data: {{source: 'dataset:{source}', target: target}}\n"
    file.write_text(f"name: x\n{data}decide: {{{key}}}\n")
    (found,) = checks.examine(file, {}).problems
    assert f":3: decide.{key.partition(':')[0]}: must be left out unless the task is" in found
    assert found.endswith(f"but it is {task}")
