"""Columns that are made of others: ratios, differences and crosses."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safe_numpy

from eagleray import errors, spec
from eagleray.learn import features
from eagleray.learn.features.made import cross, ratio
from eagleray.spec import reference
from eagleray.tabular import load
from ray_jobs.data import prepare

RNG = np.random.default_rng(0)
ROWS = "income,age,city,job,since,y\n" + "".join(
    f"{income},{age},{city},{job},2024-01-{1 + place % 28:02},{place % 2}\n"
    for place, (income, age, city, job) in enumerate(
        zip(
            RNG.integers(100, 9000, 200).tolist(),
            RNG.integers(0, 4, 200).tolist(),
            RNG.choice(["ulm", "bonn", ""], 200).tolist(),
            RNG.choice(["cook", "smith"], 200).tolist(),
            strict=True,
        )
    )
)
MADE = "{income_per_age: {ratio: [income, age], scale: none}, place: {cross: [city, job]}}"


def experiment(tmp_path: Path, chosen: str = MADE) -> spec.Experiment:
    (tmp_path / "rows.csv").write_text(ROWS)
    file = tmp_path / "one.yaml"
    file.write_text(
        f"name: one\ndata: {{source: rows.csv, target: y, drop: [since]}}\nfeatures: {chosen}\n"
    )
    return spec.load(file)


def prepared(tmp_path: Path, chosen: str = MADE) -> tuple[prepare.Dataset, features.Transforms]:
    made = experiment(tmp_path, chosen)
    dataset = prepare.dataset(made)
    return dataset, dataset.fit(made.default().features)


def test_a_ratio_by_zero_or_of_a_gap_is_a_gap_and_one_too_large_is_finite() -> None:
    above = np.array([6.0, 1.0, 0.0, math.nan, 1.0, 1e300, -1e300])
    below = np.array([3.0, 0.0, 0.0, 2.0, math.nan, 1e-300, 1e-300])
    given = ratio(above, below)
    assert given[0] == 2
    assert np.isnan(given[1:5]).all()
    assert np.isfinite(given[5:]).all()
    assert (given[5:] == [np.finfo(float).max, -np.finfo(float).max]).all()


def test_a_difference_of_times_is_seconds_and_of_times_and_numbers_is_refused(
    tmp_path: Path,
) -> None:
    lines = [
        f"2024-01-01,2024-01-{2 + place % 9:02},{place % 5},{place % 2}" for place in range(90)
    ]
    text = "\n".join(["ordered,sent,size,y", *lines]) + "\n2024-01-01,,3,1\n"
    (tmp_path / "times.csv").write_text(text)
    file = tmp_path / "times.yaml"
    start = "name: times\ndata: {source: times.csv, target: y}\nfeatures: "
    file.write_text(start + "{wait: {difference: [sent, ordered], scale: none}}\n")
    made = spec.load(file)
    dataset = prepare.dataset(made)
    fitted = dataset.fit(made.default().features)
    columns = {"ordered": np.array([0.0, 0.0]), "sent": np.array([86400.0, math.nan])}
    encoded = fitted.apply({**columns, "size": np.array([1.0, 1.0])})["numeric"]
    place = fitted.numbers.names.index("wait")
    assert encoded[0, place] == 86400
    waits = dataset.columns["sent"][dataset.split.train] - dataset.columns["ordered"][0]
    assert encoded[1, place] == pytest.approx(np.nanmedian(waits))
    file.write_text(start + "{wait: {difference: [sent, size]}}\n")
    with pytest.raises(errors.DataError, match="but sent is datetime, size is numeric"):
        prepare.dataset(spec.load(file))


def test_a_cross_tells_pairs_apart_and_is_missing_where_one_is() -> None:
    one = np.array(["a", "ab", "a", None, "a"], object)
    two = np.array(["bc", "c", "bc", "c", None], object)
    given = cross(one, two).tolist()
    assert given[0] == given[2] != given[1]
    assert given[3:] == [None, None]
    assert cross(one[:0], two[:0]).shape == (0,)


def test_they_enter_the_model_beside_the_columns_of_the_data(tmp_path: Path) -> None:
    dataset, made = prepared(tmp_path)
    train = dataset.take(dataset.split.train)
    inputs = made.apply(train)
    place = made.numbers.names.index("income_per_age")
    known = train["age"] > 0
    expected = train["income"][known] / train["age"][known]
    assert inputs["numeric"][known, place] == pytest.approx(expected)
    assert made.numbers.indicators == (place,)
    assert (inputs["numeric"][:, len(made.numbers.names)] == ~known).all()
    pairs = made.categories.frequent[made.categories.names.index("place")]
    assert len(pairs) == 4
    assert made.shape.categories == 3


def test_what_requests_are_asked_for_stays_as_it_is(tmp_path: Path) -> None:
    dataset, made = prepared(tmp_path)
    assert [one.name for one in dataset.schema.columns] == ["income", "age", "city", "job"]
    assert [one.name for one in made.with_categories(dataset.schema).columns] == [
        "income",
        "age",
        "city",
        "job",
    ]


def test_rows_are_encoded_alike_alone_in_a_batch_and_by_a_stored_bundle(tmp_path: Path) -> None:
    dataset, made = prepared(tmp_path)
    state, tensors = made.state()
    again = features.Transforms.from_state(
        json.loads(json.dumps(state)), safe_numpy.load(safe_numpy.save(tensors))
    )
    assert again.made == made.made
    rows = dataset.take(dataset.split.test)
    batch = made.apply(rows)
    for place in range(len(dataset.split.test)):
        alone = again.apply({name: array[[place]] for name, array in rows.items()})
        for name, array in alone.items():
            assert array[0].tobytes() == batch[name][place].tobytes()


def test_statistics_are_those_of_the_training_part(tmp_path: Path) -> None:
    chosen = "{income_per_age: {ratio: [income, age], scale: minmax, impute: mean}}"
    dataset, made = prepared(tmp_path, chosen)
    train = dataset.take(dataset.split.train)
    place = made.numbers.names.index("income_per_age")
    values = ratio(train["income"], train["age"])
    fill, _, _, center, divisor = made.numbers.affine[:, place, 0]
    assert fill == pytest.approx(np.nanmean(values))
    assert (center, center + divisor) == pytest.approx((np.nanmin(values), np.nanmax(values)))


def test_a_ratio_far_out_of_range_is_flagged_and_a_new_cross_is_not(tmp_path: Path) -> None:
    _, made = prepared(tmp_path)
    row: dict[str, Any] = {"city": ["ulm"], "job": ["cook"], "income": [9000.0], "age": [0.1]}
    known = {
        name: np.array(values, object if isinstance(values[0], str) else float)
        for name, values in row.items()
    }
    ((flag,),) = made.flags(known)
    assert flag.startswith("income_per_age: 90000 is far outside the training rows' range")
    _, few = prepared(tmp_path, "{place: {cross: [city, job], max_categories: 1}}")
    assert few.categories.rare[few.categories.names.index("place")] == ()
    assert few.flags({**known, "age": np.array([1.0])}) == [[]]


def test_a_bundle_of_before_makes_no_columns(tmp_path: Path) -> None:
    dataset, made = prepared(tmp_path, "{}")
    state, tensors = made.state()
    del state["made"]
    rows = dataset.take(dataset.split.test)
    old = features.Transforms.from_state(state, tensors).apply(rows)
    assert all(old[name].tobytes() == array.tobytes() for name, array in made.apply(rows).items())


@pytest.mark.parametrize(
    ("chosen", "law"),
    [
        ("{x: {ratio: [income, agee]}}", r"features.x.ratio: a column .* but got 'agee'; did you"),
        (
            "{x: {ratio: [income, city]}}",
            "all numbers are needed, but income is numeric, city is cat",
        ),
        ("{x: {ratio: [income, y]}}", "inputs that are all numbers are needed, but y is no input"),
        ("{x: {ratio: [income, since]}}", "but since is no input"),
        ("{x: {cross: [city, age]}}", "all categories are needed, but city is .*, age is numeric"),
        (
            "{x: {difference: [city, job]}}",
            "x.difference: inputs that are all numbers or all times",
        ),
        ("{age: {ratio: [income, age]}}", "features.age: a new name is needed beside ratio, but"),
        (
            "{x: {ratio: [income, z]}, z: {ratio: [age, income]}}",
            "x.ratio: a column .* but got 'z'",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(tmp_path: Path, chosen: str, law: str) -> None:
    with pytest.raises(errors.DataError, match=law):
        prepared(tmp_path, chosen)


@pytest.mark.parametrize(
    ("chosen", "law"),
    [
        ("{x: {ratio: [income]}}", "features.x.ratio"),
        ("{x: {ratio: [income, age, y]}}", "features.x.ratio"),
        ("{x: {ratio: income}}", "features.x.ratio: must be a list"),
        ("{x: {ratio: [income, 3]}}", r"features.x.ratio\[1\]: must be text"),
        ("{x: {cross: [city]}}", "must name at least two columns, each once"),
        ("{x: {cross: [city, city]}}", "must name at least two columns, each once"),
        ("{x: {type: text, ratio: [income, age]}}", "needs type: numeric beside it"),
        ("{x: {ratio: [income, age], cross: [city, job]}}", "must be made in one way"),
        ("{x: {ratio: {choice: [[income, age], [age, income]]}}}", "is the same for all trials"),
        ("{y: {ratio: [income, age]}}", "the target has no options but type"),
    ],
)
def test_lines_that_make_no_sense_are_refused(tmp_path: Path, chosen: str, law: str) -> None:
    with pytest.raises(errors.SpecError, match=law):
        experiment(tmp_path, chosen)


def test_editors_are_told_that_makers_are_not_searched() -> None:
    options = reference.json_schema()["$defs"]["FeatureOptions"]["properties"]
    assert "choice" in json.dumps(options["bins"])
    assert "choice" not in json.dumps([options["ratio"], options["cross"]])


def test_their_other_options_may_be_searched_and_the_file_comes_back_as_it_was(
    tmp_path: Path,
) -> None:
    made = experiment(tmp_path, "{x: {ratio: [income, age], scale: {choice: [log, quantile]}}}")
    assert list(made.space) == ["features.x.scale"]
    resolved = made.resolved()["features"]["x"]
    assert resolved["type"] == "numeric"
    assert list(resolved["ratio"]) == ["income", "age"]
    assert prepare.dataset(made, load.read(made.data, tmp_path)).counts["train"] > 0
