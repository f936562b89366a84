"""Transforms: fitted on the training part, applied by the very same code in serving."""

import json
import math
import timeit
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import numpy as safe_numpy
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import QuantileTransformer

from eagleray import errors, spec
from eagleray.learn import features, schema
from eagleray.learn.features import texts

LAW = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
TARGET = schema.Target(name="y", task="regression")
KNOWN = schema.Schema(
    columns=(
        schema.Column(name="age", type="numeric", nullable=True),
        schema.Column(name="gain", type="numeric"),
        schema.Column(name="raw", type="numeric"),
        schema.Column(name="member", type="boolean", nullable=True),
        schema.Column(name="since", type="datetime", nullable=True),
        schema.Column(name="town", type="categorical", nullable=True),
        schema.Column(name="shop", type="categorical"),
        schema.Column(name="title", type="text"),
        schema.Column(name="body", type="text"),
        schema.Column(name="photo", type="image", image_shape=(1, 2, 2)),
    ),
    target=TARGET,
)
OPTIONS = {
    "gain": spec.FeatureOptions(type="numeric", scale="quantile"),
    "raw": spec.FeatureOptions(type="numeric", scale="none"),
    "town": spec.FeatureOptions(type="categorical", max_categories=2),
    "body": spec.FeatureOptions(type="text", max_tokens=3),
}
TRAINING = {
    "age": [20, 30, None, 40, 60],
    "gain": [0, 0, 0, 10, 1000],
    "raw": [1, 2, 3, 4, 5],
    "member": [True, False, None, True, True],
    "since": ["2024-01-01", "2024-01-02", None, "2023-06-01T12:00:00", "2022-01-01"],
    "town": ["ulm", "ulm", "bonn", "bonn", "kiel"],
    "shop": [1, 2, 1, 2, 1],
    "title": ["a new car", "an old car", "new", "old", ""],
    "body": ["red car for sale today", "red car", "for sale", "today", "sale of a red car today"],
    "photo": [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[0, 0], [0, 0]], [[1, 1], [1, 1]], None],
}

ROW: dict[str, st.SearchStrategy[Any]] = {
    "age": st.none() | st.floats(allow_nan=True) | st.just(1e300),
    "gain": st.none() | st.floats() | st.integers(-5, 2000),
    "raw": st.none() | st.floats(),
    "member": st.none() | st.booleans(),
    "since": st.none() | st.datetimes().map(lambda time: time.isoformat()),
    "town": st.none() | st.sampled_from(["ulm", "bonn", "kiel", "rome"]),
    "shop": st.sampled_from([1, 2, 3, "1"]),
    "title": st.none() | st.text(max_size=20) | st.just("a new old car"),
    "body": st.none() | st.just("a red car for sale today, today") | st.text(max_size=20),
    "photo": st.none() | st.just([[1e30, -1e30], [0, 255]]),
}


def columns(rows: Mapping[str, Any]) -> schema.Columns:
    return schema.parse(KNOWN, rows)


@pytest.fixture(scope="module")
def fitted() -> features.Transforms:
    return features.Transforms.fit(KNOWN, OPTIONS, columns(TRAINING))


def fit(kind: Any, raw: list[Any], **options: Any) -> tuple[features.Transforms, schema.Columns]:
    """Transforms of one column, and that column."""
    shape = (1, 2, 2) if kind == "image" else None
    known = schema.Schema(
        columns=(schema.Column(name="x", type=kind, image_shape=shape),), target=TARGET
    )
    parsed = schema.parse(known, {"x": raw})
    given = {"x": spec.FeatureOptions(type=kind, **options)}
    return features.Transforms.fit(known, given, parsed), parsed


def one(kind: Any, value: Any) -> schema.Columns:
    known = schema.Schema(
        columns=(schema.Column(name="x", type=kind, image_shape=(1, 2, 2)),), target=TARGET
    )
    return schema.parse(known, {"x": [value]})


@given(rows=st.lists(st.fixed_dictionaries(ROW), min_size=1, max_size=9))
@LAW
def test_a_row_is_encoded_alike_alone_and_in_a_batch_and_always_finite(
    fitted: features.Transforms, rows: list[dict[str, Any]]
) -> None:
    batch = fitted.apply(columns({name: [row[name] for row in rows] for name in ROW}))
    for place, row in enumerate(rows):
        alone = fitted.apply(columns({name: [row[name]] for name in ROW}))
        for name, array in alone.items():
            assert np.isfinite(array).all()
            padded = batch[name][place]
            width = array.shape[1] if name in ("tokens", "weights") else len(padded)
            assert padded[:width].tobytes() == array[0].tobytes()
            assert not padded[width:].any()


@given(rows=st.lists(st.fixed_dictionaries(ROW), min_size=1, max_size=5))
@LAW
def test_transforms_come_back_from_json_and_tensors_exactly(
    fitted: features.Transforms, rows: list[dict[str, Any]]
) -> None:
    state, tensors = fitted.state()
    again = features.Transforms.from_state(
        json.loads(json.dumps(state)), safe_numpy.load(safe_numpy.save(tensors))
    )
    batch = columns({name: [row[name] for row in rows] for name in ROW})
    first, second = fitted.apply(batch), again.apply(batch)
    assert again.shape == fitted.shape
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert fitted.flags(batch) == again.flags(batch)


def test_the_shape_says_what_a_model_has_to_take(fitted: features.Transforms) -> None:
    inputs = fitted.apply(columns(TRAINING))
    assert inputs["numeric"].shape == (5, fitted.shape.numeric)
    assert inputs["numeric"].dtype == inputs["weights"].dtype == inputs["image"].dtype == np.float32
    assert inputs["categories"].dtype == inputs["tokens"].dtype == np.int32
    assert fitted.shape.categories == 2
    assert inputs["categories"].max() < fitted.shape.table
    assert inputs["tokens"].max() == fitted.shape.tokens - 1
    assert inputs["image"].shape[1:] == fitted.shape.image == (1, 2, 2)


def test_what_the_data_has_not_is_absent() -> None:
    made, parsed = fit("numeric", [1, 2, 3])
    assert list(made.apply(parsed)) == ["numeric"]
    assert made.shape == features.Shape(numeric=1)


def test_numbers_are_standardised_and_gaps_filled_with_the_median_and_told() -> None:
    made, parsed = fit("numeric", [1, 2, 9, None])
    encoded = made.apply(parsed)["numeric"]
    mean, deviation = 4.0, np.std([1, 2, 9])
    assert encoded[:, 0] == pytest.approx((np.array([1, 2, 9, 2]) - mean) / deviation)
    assert encoded[:, 1].tolist() == [0, 0, 0, 1]


def test_no_gap_in_training_means_no_indicator_and_a_later_gap_is_still_filled() -> None:
    made, _ = fit("numeric", [1, 2, 3])
    assert made.shape.numeric == 1
    assert made.apply(one("numeric", None))["numeric"].tolist() == [[0.0]]


def test_a_constant_column_is_zero() -> None:
    made, parsed = fit("numeric", [7, 7, 7])
    assert made.apply(parsed)["numeric"].tolist() == [[0.0]] * 3


def test_quantiles_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.lognormal(size=5000)
    made, parsed = fit("numeric", drawn.tolist(), scale="quantile")
    peer = QuantileTransformer(output_distribution="normal", n_quantiles=1000, subsample=None)
    expected = peer.fit_transform(drawn[:, None])[:, 0]
    inner = np.abs(expected) < 2.5
    assert np.abs(made.apply(parsed)["numeric"][:, 0] - expected)[inner].max() < 0.02


def test_a_number_that_is_not_scaled_stays_as_it_is_and_finite() -> None:
    made, parsed = fit("numeric", [1, 2, 5], scale="none")
    assert made.apply(parsed)["numeric"][:, 0].tolist() == [1, 2, 5]
    assert made.apply(one("numeric", 1e300))["numeric"].tolist() == [[np.float32(1e30)]]


def test_times_are_an_age_and_three_circles() -> None:
    made, _ = fit("datetime", ["2024-01-01", "2024-07-01", "2023-01-01"])
    midnight, noon = (
        made.apply(one("datetime", time))["numeric"][0]
        for time in ("2024-03-04", "2024-03-04T12:00")
    )
    assert made.shape.numeric == 7
    assert midnight[1:3] == pytest.approx([0, 1])
    assert noon[1:3] == pytest.approx([0, -1], abs=1e-6)
    assert midnight[3:7].tolist() == noon[3:7].tolist()
    assert not made.apply(one("datetime", None))["numeric"][0, 1:].any()


def test_categories_have_rows_of_their_own_beside_missing_and_other() -> None:
    made, parsed = fit("categorical", ["a", "a", "b", "c", None], max_categories=1)
    assert made.apply(parsed)["categories"][:, 0].tolist() == [2, 2, 1, 1, 0]
    assert made.apply(one("categorical", "z"))["categories"].tolist() == [[1]]
    assert made.shape.table == 3


@pytest.mark.parametrize("scale", ["standard", "quantile", "none"])
def test_a_number_further_out_than_the_range_is_wide_is_flagged(scale: str) -> None:
    made, parsed = fit("numeric", [17, 90, 40, None, 33], scale=scale)
    assert made.flags(parsed) == [[]] * 5
    for near in (-56, 163, None):
        assert made.flags(one("numeric", near)) == [[]]
    for far in (-57, 164, 1e300):
        ((flag,),) = made.flags(one("numeric", far))
        assert flag == f"x: {far:g} is far outside the training rows' range, 17 to 90"


def test_dates_are_not_flagged_and_bundles_that_know_no_range_flag_nothing() -> None:
    dated, _ = fit("datetime", ["2024-01-01", "2024-01-02"])
    assert dated.flags(one("datetime", "2034-01-01")) == [[]]
    state, tensors = fit("numeric", [1, 2, 3])[0].state()
    older = {name: array for name, array in tensors.items() if not name.endswith("extremes")}
    assert len(older) < len(tensors)
    old = features.Transforms.from_state(state, older)
    assert old.flags(one("numeric", 1e9)) == [[]]
    assert old.state()[1].keys() == older.keys()


def test_unknown_categories_are_flagged_and_rare_or_missing_ones_are_not() -> None:
    made, parsed = fit("categorical", ["a", "a", "b", None], max_categories=1)
    assert made.flags(parsed) == [[], [], [], []]
    assert made.flags(one("categorical", "z")) == [["x: 'z' was not seen in training"]]
    assert made.flags(one("categorical", None)) == [[]]


def test_the_schema_as_seen_lists_the_training_parts_categories(
    fitted: features.Transforms,
) -> None:
    seen = {column.name: column.categories for column in fitted.with_categories(KNOWN).columns}
    assert seen["town"] == ("bonn", "kiel", "ulm")
    assert seen["age"] is None


def test_words_weigh_as_in_scikit_learn() -> None:
    documents = ["red car for sale", "a red red bike", "bike for sale!", "old car"]
    made, parsed = fit("text", documents, ngrams=(1, 2))
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), token_pattern=texts.WORD, vocabulary=made.texts[0].terms
    )
    expected = vectorizer.fit_transform(documents).toarray()
    inputs = made.apply(parsed)
    dense = np.zeros((4, made.shape.tokens))
    np.put_along_axis(dense, inputs["tokens"].astype(int), inputs["weights"], axis=1)
    assert dense[:, 1:] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("documents", "term"),
    [
        (["质量很好推荐", "物流慢但是质量很好"], "很 好"),
        (["とても良い品", "これは良い品です"], "良 い"),
        (["ดีมากครับ", "ของดีมาก"], "ด ี"),
        (["हिन्दी अच्छी है", "यह अच्छी किताब है"], "अच्छी"),
        (["جودةٌ ممتازة", "هذه جودةٌ"], "جودةٌ"),
        (["cafe\u0301 noir", "un cafe\u0301"], "cafe\u0301"),
        (["снег идёт", "белый снег"], "снег"),
    ],
)
def test_what_documents_of_any_script_share_is_a_term(documents: list[str], term: str) -> None:
    """Words of scripts without blanks are pairs of letters; vowel signs part no word."""
    made, _ = fit("text", documents, ngrams=(1, 2))
    assert term in made.texts[0].terms


def test_bundles_of_before_cut_texts_as_they_did() -> None:
    made, parsed = fit("text", ["质量很好", "质量很好"], ngrams=(1, 1))
    assert set(made.texts[0].terms) == set("质量很好")
    state, tensors = made.state()
    (old,) = state["texts"]
    assert old.pop("words") == 2
    old["terms"] = ["质量很好"]
    tensors["texts.0.idf"] = np.ones(1, np.float32)
    before = features.Transforms.from_state(state, tensors)
    assert before.apply(parsed)["tokens"].tolist() == [[1], [1]]


def test_the_vocabulary_holds_what_is_in_most_documents() -> None:
    made, _ = fit("text", ["b a", "b a c c c", "b d"], ngrams=(1, 1), vocabulary=2)
    assert made.texts[0].terms == ("b", "a")


def test_the_heaviest_tokens_stay_where_there_are_too_many() -> None:
    documents = ["rare word", "rare thing", *["the word is the thing"] * 8]
    made, _ = fit("text", documents, ngrams=(1, 1), max_tokens=1)
    inputs = made.apply(one("text", "the rare"))
    rare = made.texts[0].terms.index("rare") + 1
    assert inputs["tokens"].tolist() == [[rare]]
    assert inputs["weights"].tolist() == [[1.0]]


def test_parts_of_words_are_tokens_too() -> None:
    made, _ = fit("text", ["running", "runner"], analyzer="char_wb", ngrams=(3, 3))
    assert "run" in made.texts[0].terms


def test_text_without_a_known_word_is_padding_alone() -> None:
    made, _ = fit("text", ["a b", "a c"])
    inputs = made.apply(one("text", "???"))
    assert inputs["tokens"].tolist() == [[0]]
    assert inputs["weights"].tolist() == [[0.0]]


def test_images_are_scaled_by_mean_and_deviation_and_a_missing_one_is_the_mean() -> None:
    made, parsed = fit("image", [[[0, 2], [4, 6]], None])
    encoded = made.apply(parsed)["image"]
    assert encoded[0].ravel() == pytest.approx((np.array([0, 2, 4, 6]) - 3) / math.sqrt(5))
    assert not encoded[1].any()


def test_image_columns_of_two_sizes_are_refused() -> None:
    pair = tuple(
        schema.Column(name=n, type="image", image_shape=(1, 2, w)) for n, w in ("a2", "b3")
    )
    known = schema.Schema(columns=pair, target=TARGET)
    with pytest.raises(errors.DataError, match=r"one height and width, but got a \(1, 2, 2\)"):
        features.Transforms.fit(
            known, {}, {"a": np.zeros((1, 1, 2, 2)), "b": np.zeros((1, 1, 2, 3))}
        )


def test_columns_without_a_value_in_the_training_part_are_harmless() -> None:
    for kind in ("numeric", "boolean", "datetime", "categorical", "text", "image"):
        made, parsed = fit(kind, [None, None])
        inputs = made.apply(parsed)
        assert all(np.isfinite(array).all() for array in inputs.values())


def test_an_empty_batch_gives_empty_inputs(fitted: features.Transforms) -> None:
    inputs = fitted.apply({name: array[:0] for name, array in columns(TRAINING).items()})
    assert {len(array) for array in inputs.values()} == {0}


def test_reference_statistics_hold_shares_that_sum_to_one() -> None:
    described = json.loads(json.dumps(features.reference.describe(KNOWN, columns(TRAINING))))
    assert described["age"]["missing"] == pytest.approx(0.2)
    assert described["town"]["names"] == ["bonn", "ulm", "kiel"]
    for statistics in described.values():
        assert sum(statistics["shares"]) == pytest.approx(1)


def test_reference_statistics_tell_how_other_rows_fall(fitted: features.Transforms) -> None:
    known = schema.Schema(columns=(schema.Column(name="x", type="numeric"),), target=TARGET)
    measure = features.reference.describe(known, {"x": np.arange(1000.0)})["x"]
    assert measure["shares"] == pytest.approx([0.1] * 10)
    moved = known.columns[0].kind.shares(measure, np.arange(500.0, 1500.0))
    assert moved[0] == 0
    assert moved[-1] == pytest.approx(0.6)


def test_one_row_is_encoded_in_well_under_a_millisecond() -> None:
    """The serving path; docs/data.md has the measured times, a tenth of this."""
    numbers = tuple(schema.Column(name=f"n{n}", type="numeric") for n in range(30))
    words = tuple(schema.Column(name=f"c{n}", type="categorical") for n in range(8))
    known = schema.Schema(columns=numbers + words, target=TARGET)
    raw = {column.name: [1, 2, 3] for column in known.columns}
    made = features.Transforms.fit(known, {}, schema.parse(known, raw))
    row = {name: array[:1] for name, array in schema.parse(known, raw).items()}
    assert min(timeit.repeat(lambda: made.apply(row), number=20, repeat=20)) / 20 < 1e-3


@given(
    raw=st.lists(st.floats(), min_size=1, max_size=8),
    value=st.floats(),
    scale=st.sampled_from(["standard", "quantile", "none"]),
)
@LAW
def test_any_number_is_finite_after_any_training(
    raw: list[float], value: float, scale: str
) -> None:
    made, parsed = fit("numeric", raw, scale=scale)
    assert np.isfinite(made.apply(parsed)["numeric"]).all()
    assert np.isfinite(made.apply(one("numeric", value))["numeric"]).all()
