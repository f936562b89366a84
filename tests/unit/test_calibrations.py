"""Calibration: a planted bend is undone, by itself where it pays, kept in a bundle, and told."""

from pathlib import Path

import numpy as np
import pytest
from scipy import special
from sklearn.isotonic import IsotonicRegression

from eagleray import bundle, spec
from eagleray.evaluation import calibrations
from eagleray.learn import metrics, schema, tasks
from eagleray.learn.tasks import diagrams
from eagleray.state import evaluations
from eagleray.state.models import Registry
from ray_jobs import decided, search
from tests import bundles, judged

BINARY = schema.Target(name="left", task="binary", classes=("no", "yes"))
THREE = schema.Target(name="y", task="multiclass", classes=("a", "b", "c"))


def two(score: np.ndarray) -> np.ndarray:
    return np.stack([1 - score, score], 1)


def planted(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, probabilities that are right, and probabilities bent in a way no temperature mends."""
    random = np.random.default_rng(seed)
    right = random.beta(0.8, 3, rows)
    return (random.random(rows) < right).astype(np.int64), right, 0.5 * right**0.4


def error(target: schema.Target, truth: np.ndarray, outputs: np.ndarray) -> float:
    return diagrams.calibration_error(tasks.of(target).bins(truth, outputs))


def applied(found: calibrations.Fitted, outputs: np.ndarray) -> np.ndarray:
    return tasks.of(found.target).activate(np.log(outputs), found.scale)


def test_a_planted_bend_is_undone_where_a_temperature_cannot() -> None:
    truth, _, bent = planted(6000, 0)
    isotonic, temperature = (
        calibrations.fit(how, BINARY, truth, two(bent)) for how in ("isotonic", "temperature")
    )
    fresh, right, bent = planted(6000, 1)
    before = error(BINARY, fresh, two(bent))
    after = error(BINARY, fresh, applied(isotonic, two(bent)))
    assert after < 0.02 < error(BINARY, fresh, applied(temperature, two(bent)))
    assert after < before / 5
    mended = applied(isotonic, two(bent))[:, 1]
    assert np.abs(mended - right).mean() < 0.02
    by_library = IsotonicRegression(out_of_bounds="clip").fit(planted(6000, 0)[2], truth)
    assert np.abs(mended - right).mean() < 1.05 * np.abs(by_library.predict(bent) - right).mean()


def test_a_curve_rises_says_neither_0_nor_1_and_has_few_points() -> None:
    truth, _, bent = planted(4000, 0)
    (curve,) = calibrations.fit("isotonic", BINARY, truth, two(bent)).target.curves
    assert (np.diff(curve.probability) >= 0).all()
    assert 0 < curve.probability[0] <= curve.probability[-1] < 1
    assert (np.diff(curve.log_odds) > 0.0999).all()
    sure = two(np.repeat([0.0, 1.0], 50))
    found = calibrations.fit("isotonic", BINARY, np.repeat([0, 1], 50), sure)
    mended = applied(found, np.clip(sure, 1e-30, 1))
    assert mended[0, 1] == pytest.approx(1 / 102)
    alike = calibrations.fit("isotonic", BINARY, np.array([0, 1]), two(np.full(2, 0.3)))
    assert applied(alike, two(np.array([0.1, 0.9])))[:, 1].tolist() == [0.5, 0.5]


def test_classes_are_curved_one_against_the_rest_and_add_up_to_one() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 1.5, (12_000, 3))
    right = tasks.of(THREE).activate(logits, {})
    truth = (random.random((len(right), 1)) > right.cumsum(1)).sum(1)
    bent = tasks.of(THREE).activate(3 * logits + np.array([1.0, 0, 0]), {})
    found = calibrations.fit("isotonic", THREE, truth[:6000], bent[:6000])
    assert len(found.target.curves) == 3
    mended = applied(found, bent[6000:])
    np.testing.assert_allclose(mended.sum(1), 1)
    scores = [metrics.score(THREE, truth[6000:], one) for one in (bent[6000:], mended)]
    assert scores[1]["log_loss"] < 0.7 * scores[0]["log_loss"]
    assert error(THREE, truth[6000:], mended) < error(THREE, truth[6000:], bent[6000:]) / 3


def timid(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth, and log-odds as of a model that has hardly begun to train: all on one side of 0."""
    random = np.random.default_rng(seed)
    odds = random.normal(0, 1.5, rows)
    truth = (random.random(rows) < special.expit(odds)).astype(np.int64)
    return truth, 0.04 * odds - 0.1


def test_a_line_undoes_what_a_temperature_cannot() -> None:
    truth, odds = timid(4000, 0)
    found = calibrations.fit("platt", BINARY, truth, two(special.expit(odds)))
    fresh, odds = timid(4000, 1)
    before, after = two(special.expit(odds)), applied(found, two(special.expit(odds)))
    assert error(BINARY, fresh, after) < 0.03 < error(BINARY, fresh, before)
    assert found.scale["temperature"] == pytest.approx(0.04, rel=0.15)
    scores = [metrics.score(BINARY, fresh, one) for one in (before, after)]
    assert scores[0]["f1"] < 0.2 < 0.7 < scores[1]["f1"]
    assert scores[0]["roc_auc"] == pytest.approx(scores[1]["roc_auc"])


def test_a_line_through_classes_that_are_parted_is_not_steep() -> None:
    truth, odds = np.repeat([0, 1], 50), np.repeat([-1.0, 1.0], 50)
    found = calibrations.fit("platt", BINARY, truth, two(special.expit(odds)))
    mended = applied(found, two(special.expit(odds)))[:, 1]
    np.testing.assert_allclose(mended, np.where(truth == 1, 51 / 52, 1 / 52), rtol=1e-3)


def held(truth: np.ndarray, odds: np.ndarray) -> decided.Held:
    return decided.Held(truth, np.stack([np.zeros(len(odds)), odds], 1))


def test_probabilities_are_calibrated_by_themselves_where_it_pays() -> None:
    made, rows = bundles.make(target=BINARY), held(*timid(400, 0))
    found = decided.decide(spec.Decide(), made, lambda: rows)
    assert (found.how, found.model.scale.keys() - made.scale.keys()) == (
        "platt",
        {"temperature", "offset"},
    )
    files = bundle.pack(found.model, bundles.rows(32, seed=7), {})
    assert f'"format":{bundle.DECIDED},' in files["bundle.json"].decode()
    bundle.unpack(files).verify()
    for chosen, distorted in ((spec.Decide(calibrate="none"), False), (spec.Decide(), True)):
        assert decided.decide(chosen, made, lambda: rows, distorted=distorted).how == "none"
    asked = decided.decide(spec.Decide(calibrate="platt"), made, lambda: rows, distorted=True)
    assert asked.how == "platt"


def test_probabilities_that_are_right_are_left_alone() -> None:
    made, often = bundles.make(target=BINARY), 0
    for seed in range(200):
        truth, odds = timid(400, seed)
        rows = held(truth, (odds + 0.1) / 0.04)
        often += decided.decide(spec.Decide(), made, lambda rows=rows: rows).how != "none"
    assert often <= 10


def test_several_classes_get_a_temperature_where_it_pays() -> None:
    random, made = np.random.default_rng(0), bundles.make(target=THREE)
    logits = random.normal(0, 1.5, (1000, 3))
    right = tasks.of(THREE).activate(logits, {})
    truth = (random.random((len(right), 1)) > right.cumsum(1)).sum(1)
    sure = decided.decide(spec.Decide(), made, lambda: decided.Held(truth, 4 * logits))
    assert (sure.how, round(sure.model.scale["temperature"])) == ("temperature", 4)
    assert decided.decide(spec.Decide(), made, lambda: decided.Held(truth, logits)).how == "none"


def test_a_bundle_keeps_its_curve_as_data_and_older_releases_refuse_it() -> None:
    curve = schema.Curve(log_odds=(-2.0, 0.0, 1.5), probability=(0.1, 0.4, 0.8))
    made = bundles.make(target=BINARY.model_copy(update={"curves": (curve,)}))
    raw = bundles.rows(32, seed=7)
    files = bundle.pack(made, raw, {})
    assert f'"format":{bundle.DECIDED},' in files["bundle.json"].decode()
    loaded = bundle.unpack(files)
    loaded.verify()
    assert loaded.schema.target.curves == (curve,)
    plain = bundles.make().predict(raw).outputs[:, 1]
    odds = np.log(plain / (1 - plain))
    expected = np.interp(odds, curve.log_odds, curve.probability)
    np.testing.assert_allclose(loaded.predict(raw).outputs[:, 1], expected, rtol=1e-6)


@pytest.mark.parametrize("how", ["isotonic", "temperature", "platt"])
def test_a_winner_tells_its_calibration_error_with_its_bins(tmp_path: Path, how: str) -> None:
    one = judged.searched(tmp_path, f"{judged.TUMOURS}decide: {{calibrate: {how}, maximize: f1}}\n")
    result = judged.won(one, [judged.trial(one, 1)])
    registry = Registry(one.storage)
    version = registry.version("tumours", result.version)
    found = evaluations.decode(registry.read(version, evaluations.FILE), "here").calibration
    assert found is not None
    assert found.method == how
    validation = version.manifest["metrics"]["validation"]
    assert result.validation.items() <= validation.items()
    decision = result.decision
    assert decision is not None
    assert validation["f1"] == pytest.approx(decision.reached["f1"])
    for bins, told in ((found.bins_before, found.before), (found.bins_after, found.after)):
        rows = sum(one.rows for one in bins)
        assert rows == len(one.dataset.split.test)
        mean = sum(one.rows * abs(one.said - one.was) for one in bins) / rows
        assert told == pytest.approx(mean)
    assert f"in {len(found.bins_after)} bins" in str(found)
    assert result.calibration == found
    loaded = bundle.load(registry, version)
    assert bool(loaded.schema.target.curves) == (how == "isotonic")
    assert loaded.schema.target.threshold is not None
    loaded.verify()


def test_a_search_without_calibration_has_none(tmp_path: Path) -> None:
    one = judged.searched(tmp_path)
    assert isinstance(one, search.Search)
    assert one.experiment.decide == spec.Decide()
    result = judged.won(one, [judged.trial(one, 1)])
    assert (result.calibration, result.decision, result.coverage) == (None, None, [])
