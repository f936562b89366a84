"""Options of numbers: beside scikit-learn's transformers, through a bundle's state, and at ends."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import numpy as safe_numpy
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, RobustScaler, StandardScaler

from eagleray import errors, spec
from eagleray.learn import features, schema
from eagleray.learn.features import scales

TARGET = schema.Target(name="y", task="regression")
KNOWN = schema.Schema(columns=(schema.Column(name="x", type="numeric"),), target=TARGET)
DRAWN = np.random.default_rng(0).lognormal(3, 2, size=2000) - 10
SCALES = ["standard", "robust", "minmax", "log", "quantile", "none"]
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "scale": st.sampled_from(SCALES),
        "impute": st.sampled_from(["median", "mean", "mode", -1.0, 1e300]),
        "indicator": st.booleans(),
        "clip": st.sampled_from([None, (0.0, 1.0), (0.1, 0.9), (0.0, 0.5)]),
        "bins": st.sampled_from([None, 2, 5]),
    },
)


def fit(values: Any, **options: Any) -> features.Transforms:
    known = {"x": np.array(values, float)}
    return features.Transforms.fit(
        KNOWN, {"x": spec.FeatureOptions(type="numeric", **options)}, known
    )


def encode(made: features.Transforms, values: Any) -> np.ndarray:
    return made.apply({"x": np.array(values, float)})["numeric"]


def again(made: features.Transforms) -> features.Transforms:
    """The transforms as a bundle keeps them."""
    state, tensors = made.state()
    held = safe_numpy.load(safe_numpy.save(tensors))
    return features.Transforms.from_state(json.loads(json.dumps(state)), held)


@pytest.mark.parametrize(
    ("scale", "peer"),
    [("standard", StandardScaler()), ("robust", RobustScaler()), ("minmax", MinMaxScaler())],
)
def test_scales_agree_with_scikit_learn(scale: str, peer: Any) -> None:
    expected = peer.fit(DRAWN[:, None]).transform(DRAWN[::-1, None])[:, 0]
    given = encode(fit(DRAWN, scale=scale), DRAWN[::-1])[:, 0]
    assert given == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_logarithm_is_standardised_and_keeps_the_sign() -> None:
    logged = np.sign(DRAWN) * np.log1p(np.abs(DRAWN))
    expected = StandardScaler().fit_transform(logged[:, None])[:, 0]
    assert encode(fit(DRAWN, scale="log"), DRAWN)[:, 0] == pytest.approx(expected, rel=1e-5)


@given(st.floats(-1e300, 1e300))
def test_the_logarithm_is_that_of_the_machine(value: float) -> None:
    expected = math.copysign(math.log1p(abs(value)), value)
    assert scales.log(np.array([value]))[0] == pytest.approx(expected, rel=1e-14, abs=1e-320)


@pytest.mark.parametrize(
    ("impute", "strategy"),
    [("mean", "mean"), ("median", "median"), ("mode", "most_frequent"), (-1, "constant")],
)
def test_gaps_are_filled_as_by_scikit_learn(impute: str | float, strategy: str) -> None:
    values = [[7.0], [3.0], [3.0], [7.0], [math.nan], [100.0]]
    peer = SimpleImputer(strategy=strategy, fill_value=-1.0)
    made = encode(fit(np.ravel(values), scale="none", impute=impute), np.ravel(values))
    assert made[:, 0] == pytest.approx(peer.fit_transform(values)[:, 0])
    assert made[:, 1].tolist() == [0, 0, 0, 0, 1, 0]


def test_gaps_need_not_be_told() -> None:
    made = fit([1, math.nan, 3], indicator=False)
    assert made.shape.numeric == 1
    assert encode(made, [math.nan]).tolist() == [[0.0]]


@pytest.mark.parametrize(("indicator", "gap"), [(True, math.nan), (False, -1.0)])
def test_trees_get_gaps_as_gaps_unless_these_are_not_told(indicator: bool, gap: float) -> None:
    values = [1, math.nan, 3]
    made = fit(values, scale="none", impute=-1, indicator=indicator, bins=2)
    inputs = made.apply({"x": np.array(values)})
    given = features.Matrix.of(made).apply(inputs)
    assert given[:, 0] == pytest.approx([1, gap, 3], nan_ok=True)
    assert given[:, 1:].tolist() == [[1, 0], [0, 0], [0, 1]]


def test_values_are_clipped_to_quantiles_of_the_training_part_before_they_are_scaled() -> None:
    low, high = np.quantile(DRAWN, (0.05, 0.9))
    bounded = DRAWN.clip(low, high)
    made = fit(DRAWN, clip=[0.05, 0.9])
    expected = StandardScaler().fit_transform(bounded[:, None])[:, 0]
    assert encode(made, DRAWN)[:, 0] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert encode(fit(DRAWN, clip=[0.05, 0.9], scale="none"), [-1e9, 1e9])[:, 0] == pytest.approx(
        [low, high]
    )


def test_clipping_hides_no_warning_of_a_number_out_of_range() -> None:
    made = fit([17, 90, 40, 33], clip=[0.25, 0.75])
    assert made.flags({"x": np.array([163.0, 164.0])})[0] == []
    assert made.flags({"x": np.array([164.0])})[0]


def test_bins_agree_with_scikit_learn_and_a_gap_is_in_none() -> None:
    peer = KBinsDiscretizer(
        7, encode="onehot-dense", strategy="quantile", quantile_method="linear", subsample=None
    )
    wide = np.append(DRAWN, [-1e9, 1e9])
    expected = peer.fit(DRAWN[:, None]).transform(wide[:, None])
    made = fit(DRAWN, bins=7)
    assert made.shape.numeric == 8
    assert (encode(made, wide)[:, 1:] == expected).all()
    assert not encode(made, [math.nan])[0, 1:].any()


def test_bins_whose_edges_are_one_are_one_and_a_constant_has_none() -> None:
    assert fit([0] * 90 + list(range(10)), bins=20).shape.numeric == 1 + 2
    assert fit([0] * 60 + [1] * 40, bins=4).shape.numeric == 1 + 2
    assert fit([0] * 40 + [1] * 60, bins=4).shape.numeric == 1 + 2
    assert fit([7, 7, 7], bins=4).shape.numeric == 1
    assert fit([math.nan, math.nan], bins=4).shape.numeric == 2


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("values", [[7, 7, 7], [math.nan] * 3, [1e300, -1e300, 0], [5, 5, 5, 9e9]])
def test_every_scale_takes_constants_gaps_and_the_largest_numbers(
    scale: str, values: list[float]
) -> None:
    made = fit(values, scale=scale, clip=[0.1, 0.9], bins=3)
    assert np.isfinite(encode(made, [*values, math.nan, 1.8e308 / 2, -1.7e308])).all()


@given(
    options=OPTIONS,
    training=st.lists(st.floats(allow_infinity=False), min_size=1, max_size=8),
    rows=st.lists(st.floats(allow_infinity=False), min_size=1, max_size=6),
)
@settings(max_examples=150)
def test_rows_are_encoded_alike_alone_in_a_batch_and_by_a_stored_bundle_and_stay_finite(
    options: Mapping[str, Any], training: list[float], rows: list[float]
) -> None:
    made = fit(training, **options)
    batch = encode(made, rows)
    assert np.isfinite(batch).all()
    assert batch.shape == (len(rows), made.shape.numeric)
    assert encode(again(made), rows).tobytes() == batch.tobytes()
    for place, row in enumerate(rows):
        assert encode(made, [row])[0].tobytes() == batch[place].tobytes()


def test_many_columns_keep_their_bins_apart_when_stored() -> None:
    """Tensors come back in the order of their names, `edges.10` before `edges.2`."""
    rng, names = np.random.default_rng(0), [f"n{place}" for place in range(12)]
    known = schema.Schema(
        columns=tuple(schema.Column(name=name, type="numeric") for name in names), target=TARGET
    )
    chosen = {
        name: spec.FeatureOptions(type="numeric", bins=2 + place, scale=SCALES[place % 6])
        for place, name in enumerate(names)
    }
    columns = {name: rng.normal(size=50) for name in names}
    made = features.Transforms.fit(known, chosen, columns)
    assert (
        again(made).apply(columns)["numeric"].tobytes() == made.apply(columns)["numeric"].tobytes()
    )


def test_a_bundle_of_before_has_neither_logarithms_nor_bins() -> None:
    made = fit([1, 2, 4, math.nan])
    state, tensors = made.state()
    del state["numbers"]["logged"]
    assert not any("edges" in name for name in tensors)
    old = features.Transforms.from_state(state, tensors)
    assert encode(old, [3, math.nan]).tobytes() == encode(made, [3, math.nan]).tobytes()


def checked(tmp_path: Path, options: str) -> spec.Experiment:
    file = tmp_path / "one.yaml"
    file.write_text(
        f"name: one\ndata: {{source: rows.csv, target: y}}\nfeatures: {{x: {options}}}\n"
    )
    return spec.load(file)


@pytest.mark.parametrize(
    ("options", "law"),
    [
        ("{type: numeric, impute: avrage}", "must be a number or one of median, mean, mode, but"),
        ("{type: numeric, impute: medain}", "did you mean median"),
        ("{type: numeric, impute: .inf}", "must be a number or one of"),
        ("{type: numeric, impute: true}", "must be a number or one of"),
        ("{type: numeric, impute: [1]}", "must be a number or one of"),
        ("{type: numeric, clip: [0.9, 0.1]}", r"must be \[lower quantile, upper quantile\]"),
        ("{type: numeric, clip: [1, 99]}", "must be at most 1, but got 99"),
        ("{type: numeric, bins: 1}", "must be at least 2, but got 1"),
        ("{type: numeric, scale: min_max}", "did you mean minmax"),
        ("{type: text, bins: 3}", "needs type: numeric beside it"),
        ("{type: numeric, bins: {choice: [null, 1]}}", "must be at least 2, but got 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: str, law: str) -> None:
    with pytest.raises(errors.SpecError, match=law):
        checked(tmp_path, options)


def test_all_options_of_numbers_may_be_searched(tmp_path: Path) -> None:
    made = checked(
        tmp_path,
        "{type: numeric, scale: {choice: [log, robust]}, impute: {choice: [mean, -1]},"
        " clip: {choice: [null, [0.01, 0.99]]}, bins: {randint: [2, 20]},"
        " indicator: {choice: [true, false]}}",
    )
    drawn = dict(zip(made.space, ["log", -1, (0.01, 0.99), 5, False], strict=True))
    chosen = made.configuration(drawn).features["x"]
    assert features.Number(
        "log", warns=True, impute=-1, clip=(0.01, 0.99), bins=5, indicator=False
    ) == chosen.kind.encoding(chosen)
