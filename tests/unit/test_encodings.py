"""Categories by their order, by hashes and by means of the target."""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors import numpy as safe_numpy
from sklearn.feature_extraction import FeatureHasher
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.preprocessing import TargetEncoder

from eagleray import errors, spec
from eagleray.learn import features, schema
from eagleray.learn.features.categories import bucket
from ray_jobs.data import encoded, extent, prepare, streamed

ENCODINGS = ["embedding", "hashing", "ordinal", "target"]
CLASSES = {"classes": ("no", "yes")}
RNG = np.random.default_rng(0)


def fit(
    names: list[Any], targets: Any = None, *, target: dict[str, Any] | None = None, **options: Any
) -> tuple[features.Transforms, schema.Columns]:
    """Transforms of one column, and that column."""
    known = schema.Schema(
        columns=(schema.Column(name="x", type="categorical", nullable=True),),
        target=schema.Target(name="y", task="any", **(target or {})),
    )
    columns = schema.parse(known, {"x": names})
    given = {"x": spec.FeatureOptions(type="categorical", **options)}
    truth = None if targets is None else np.asarray(targets)
    return features.Transforms.fit(known, given, columns, targets=truth), columns


def column(values: list[Any]) -> schema.Columns:
    array = np.empty(len(values), object)
    array[:] = values
    return {"x": array}


def numbers(made: features.Transforms, values: np.ndarray) -> np.ndarray:
    """Encoded numbers of one column before they were scaled."""
    center, divisor = made.numbers.affine[3:, :, 0]
    unscaled: np.ndarray = values[:, : len(center)].astype(np.float64) * divisor + center
    return unscaled


def experiment(folder: Path, frame: pd.DataFrame, chosen: str, more: str = "") -> spec.Experiment:
    frame.to_csv(folder / "rows.csv", index=False)
    file = folder / "one.yaml"
    file.write_text(
        f"name: one\ndata: {{source: rows.csv, target: y}}\nfeatures: {chosen}\n{more}\n"
        "storage: file:///tmp/unused\n"
    )
    return spec.load(file)


def encode(made: spec.Experiment) -> tuple[prepare.Dataset, encoded.Encoded]:
    dataset = prepare.dataset(made)
    return dataset, dataset.encode(dataset.fit(made.default().features))


def test_an_order_is_that_of_the_file_or_numbers_by_size_then_names() -> None:
    made, columns = fit(["b", "10", "9", None, "a"], encoding="ordinal")
    places = numbers(made, made.apply(columns)["numeric"])[:, 0]
    assert places.tolist() == pytest.approx([3, 1, 0, 1.5, 2], abs=1e-6)  # a gap is the median
    assert made.apply(columns)["numeric"][:, 1].tolist() == [0, 0, 0, 1, 0]
    sizes = ["small", "large", "medium"]
    made, columns = fit(sizes, encoding="ordinal", order=("small", "medium", "large"))
    assert np.argsort(made.apply(columns)["numeric"][:, 0]).tolist() == [0, 2, 1]
    assert made.shape == features.Shape(numeric=1)


def test_a_bucket_is_that_of_scikit_learn_and_needs_no_vocabulary() -> None:
    names = ["ulm", "bonn", "kiel", "ülm", "", "日本", "x" * 1000]
    hasher = FeatureHasher(64, input_type="string", alternate_sign=False)
    expected = hasher.transform([[name] for name in names]).toarray().argmax(1)
    assert [bucket(name, 64) for name in names] == expected.tolist()
    made, _ = fit(["ulm", None, "bonn"], encoding="hashing", buckets=64)
    rows = made.apply(column(["ulm", None, "never seen"]))["categories"][:, 0]
    assert rows.tolist() == [1 + bucket("ulm", 64), 0, 1 + bucket("never seen", 64)]
    assert made.shape == features.Shape(categories=1, table=65)
    assert made.categories.frequent == ((),)
    assert made.flags(column(["never seen"])) == [[]]


def test_a_name_that_is_no_text_of_unicode_has_a_bucket_too() -> None:
    made, _ = fit(["ulm"], encoding="hashing", buckets=8)
    assert 1 <= made.apply(column(["\ud800"]))["categories"][0, 0] <= 8


@pytest.mark.parametrize("names", [2, 40])
@pytest.mark.parametrize(
    ("task", "kind"), [("binary", "binary"), ("multiclass", "multiclass"), ("plain", "continuous")]
)
def test_means_are_those_of_scikit_learn_for_training_rows_and_for_others(
    task: str, kind: str, names: int
) -> None:
    random = np.random.default_rng(3)
    words = [None if one == 0 else f"name {one}" for one in random.integers(0, names, 300)]
    classes = {"binary": 2, "multiclass": 4, "plain": 0}[task]
    targets = random.integers(0, classes, 300) if classes else random.normal(9, 3, 300)
    target = {"classes": tuple("abcd"[:classes])}
    made, columns = fit(words, targets, target=target, encoding="target")
    folds = (StratifiedKFold if classes else KFold)(5, shuffle=True, random_state=0)
    peer = TargetEncoder(target_type=kind, cv=folds)
    names_B1 = np.array(words, object)[:, None]
    trained = numbers(made, made.training(columns, targets)["numeric"])
    np.testing.assert_allclose(trained, peer.fit_transform(names_B1, targets), atol=1e-5)
    asked = ["name 1", None, "never seen"]
    given = numbers(made, made.apply(column(asked))["numeric"])
    np.testing.assert_allclose(given, peer.transform(np.array(asked, object)[:, None]), atol=1e-5)
    assert made.shape.numeric == (classes if classes > 2 else 1)


def test_a_column_of_chance_does_not_give_the_target_away(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "user": [f"user {one}" for one in random.integers(0, 900, 2000)],
            "y": random.choice(["no", "yes"], 2000),
        }
    )
    chosen = "{user: {type: categorical, encoding: target}}"
    dataset, data = encode(experiment(tmp_path, frame, chosen))
    assert isinstance(data.train, encoded.Part)
    leaky = dataset.part(data.transforms, dataset.split.train)
    assert roc_auc_score(leaky.targets, leaky.inputs["numeric"][:, 0]) > 0.8
    model = LogisticRegression().fit(data.train.inputs["numeric"], data.train.targets)
    for part in (data.train, data.validation):
        score = roc_auc_score(part.targets, model.predict_proba(part.inputs["numeric"])[:, 1])
        assert abs(score - 0.5) < 0.06


@pytest.mark.parametrize("model", ["boosting", "mlp"])
def test_means_of_a_column_that_tells_help_a_model(tmp_path: Path, model: str) -> None:
    from ray_jobs import learner

    random = np.random.default_rng(2)
    user, taste = random.integers(0, 80, 1500), random.random(80)
    frame = pd.DataFrame(
        {
            "user": [f"user {one}" for one in user],
            "y": np.where(random.random(1500) < taste[user], "yes", "no"),
        }
    )
    more = f"model: {{type: {model}}}\ntrain: {{epochs: 5, lr: 0.05}}"
    chosen = "{user: {type: categorical, encoding: target}}"
    made = experiment(tmp_path, frame, chosen, more)
    running = learner.build(made.default(), encode(made)[1], metric="roc_auc")
    while not running.finished:
        running.epoch()
    assert running.progress.best["roc_auc"] > 0.75


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_rows_are_encoded_alike_alone_in_a_batch_and_by_a_stored_bundle(encoding: str) -> None:
    names = [None if one == 0 else f"name {one}" for one in RNG.integers(0, 30, 200)]
    targets = RNG.integers(0, 2, 200)
    made, _ = fit(names, targets, target=CLASSES, encoding=encoding)
    state, tensors = made.state()
    again = features.Transforms.from_state(
        json.loads(json.dumps(state)), safe_numpy.load(safe_numpy.save(tensors))
    )
    assert again.shape == made.shape
    rows = [*names[:5], "never seen", None]
    batch = made.apply(column(rows))
    for place, name in enumerate(rows):
        alone = again.apply(column([name]))
        for key, array in alone.items():
            assert np.isfinite(array).all()
            assert array[0].tobytes() == batch[key][place].tobytes()
    assert made.apply(column([])).keys() == batch.keys()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_category_that_only_the_test_part_has_is_encoded_and_flagged(
    tmp_path: Path, encoding: str
) -> None:
    frame = pd.DataFrame({"town": ["ulm", "bonn"] * 60, "n": range(120), "y": ["a", "b"] * 60})
    chosen = f"{{town: {{type: categorical, encoding: {encoding}}}}}"
    made = experiment(tmp_path, frame, chosen, "model: {hidden: [4]}")
    dataset = prepare.dataset(made)
    dataset.columns["town"][dataset.split.test[0]] = "only here"
    data = dataset.encode(dataset.fit(made.default().features))
    test = dataset.part(data.transforms, dataset.split.test)
    assert all(np.isfinite(array).all() for array in test.inputs.values())
    (flag,) = data.transforms.flags(dataset.take(dataset.split.test[:1]))
    expected = [] if encoding == "hashing" else ["town: 'only here' was not seen in training"]
    assert flag == expected
    seen = data.transforms.with_categories(dataset.schema).columns[0].categories
    assert seen is not None
    assert "only here" not in seen


def test_a_cross_has_each_encoding_too(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "town": RNG.choice(["ulm", "bonn"], 200),
            "job": RNG.choice(["cook", "smith", ""], 200),
            "y": RNG.choice(["a", "b"], 200),
        }
    )
    chosen = "{place: {cross: [town, job], encoding: ENCODING}, town: {type: categorical, "
    chosen += "encoding: ordinal}}"
    for encoding, width in (("hashing", 1), ("target", 2), ("ordinal", 3)):
        made = experiment(tmp_path, frame, chosen.replace("ENCODING", encoding))
        dataset, data = encode(made)
        # a town's place, and what the cross has; of an order with gaps, that it is missing
        assert data.transforms.shape.numeric == width
        assert data.transforms.flags({**dataset.take(dataset.split.test[:1]), **new()}) == [
            ["town: 'new' was not seen in training"]
        ]


def new() -> schema.Columns:
    return {"town": np.array(["new"], object)}


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_means_of_very_few_rows_are_finite(rows: int) -> None:
    names, targets = ["a", "b", "a"][:rows], np.array([0, 1, 1])[:rows]
    made, columns = fit(names, targets, target=CLASSES, encoding="target")
    assert np.isfinite(made.training(columns, targets)["numeric"]).all()
    made, columns = fit([None] * rows, targets, target=CLASSES, encoding="target")
    assert np.isfinite(made.training(columns, targets)["numeric"]).all()


def test_means_need_targets() -> None:
    with pytest.raises(errors.DataError, match="x: targets are needed for means of the target"):
        fit(["a", "b"], encoding="target")


def test_an_order_that_lacks_a_value_of_the_data_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"size": ["s", "m", "xl"] * 30, "y": ["a", "b", "b"] * 30})
    made = experiment(
        tmp_path, frame, "{size: {type: categorical, encoding: ordinal, order: [s, m]}}"
    )
    (problem,) = prepare.misfits(made, prepare.dataset(made))
    assert problem == "features.size.order: must hold all values of size, but lacks 'xl'"


def test_every_option_may_be_searched_and_is_encoded_by_itself(tmp_path: Path) -> None:
    frame = pd.DataFrame({"size": ["s", "m", "xl"] * 30, "y": ["a", "b", "b"] * 30})
    chosen = (
        "{size: {type: categorical, encoding: {choice: [embedding, hashing, target, ordinal]}, "
    )
    chosen += "buckets: {choice: [8, 16]}}}"
    made = experiment(tmp_path, frame, chosen)
    assert set(made.encodings) == {"features.size.encoding", "features.size.buckets"}
    dataset, keys = prepare.dataset(made), set()
    for drawn in made.space["features.size.encoding"].grid():
        values = {"features.size.encoding": drawn, "features.size.buckets": 16}
        configuration = made.configuration(values)
        dataset.encode(dataset.fit(configuration.features))
        keys.add(encoded.key(configuration.features))
    assert len(keys) == 4
    printed = made.resolved()["features"]["size"]
    assert printed["encoding"] == {"choice": ["embedding", "hashing", "target", "ordinal"]}


def test_what_is_printed_with_all_defaults_can_stand_as_a_file(tmp_path: Path) -> None:
    from eagleray.spec import document

    frame = pd.DataFrame({"size": ["s", "m", "xl"] * 30, "y": ["a", "b", "b"] * 30})
    made = experiment(tmp_path, frame, "{size: {type: categorical}, n: {ratio: [a, b]}}")
    (tmp_path / "again.yaml").write_text(document.write(made.resolved()))
    assert spec.load(tmp_path / "again.yaml").resolved() == made.resolved()


def test_streamed_rows_have_no_means_of_the_target(tmp_path: Path) -> None:
    lines = "".join(f"{'abc'[place % 3]},{place % 2}\n" for place in range(300_000))
    (tmp_path / "rows.csv").write_text("x,y\n" + lines)
    file = tmp_path / "one.yaml"
    file.write_text(
        "name: one\ndata: {source: rows.csv, target: y, memory: 1MB}\n"
        "features: {x: {type: categorical, encoding: {choice: [embedding, target]}}}\n"
    )
    made = spec.load(file)
    size = extent.measure(made)
    assert size is not None
    assert size.streamed
    with pytest.raises(errors.DataError, match=r"features.x.encoding: means of the target are of"):
        streamed.dataset(made, size)


def test_ten_thousand_columns_are_fitted_and_encoded(tmp_path: Path) -> None:
    random, count = np.random.default_rng(0), 10_000
    names = [f"c{place}" for place in range(count)]
    known = schema.Schema(
        columns=tuple(
            schema.Column(name=name, type="categorical" if place % 10 == 0 else "numeric")
            for place, name in enumerate(names)
        ),
        target=schema.Target(name="y", task="any", **CLASSES),
    )
    options = {
        name: spec.FeatureOptions(type="categorical", encoding=ENCODINGS[place % 3])
        for place, name in enumerate(names[::10])
    }
    words = np.array(["a", "b", None], object)
    columns = {
        one.name: words[random.integers(0, 3, 60)]
        if one.name in options
        else random.normal(size=60)
        for one in known.columns
    }
    began = time.process_time()
    made = features.Transforms.fit(known, options, columns, targets=np.arange(60) % 2)
    inputs = made.training(columns, np.arange(60) % 2)
    assert inputs["numeric"].shape[1] == made.shape.numeric > 9000
    assert np.isfinite(inputs["numeric"]).all()
    assert time.process_time() - began < 60


def test_a_gap_of_an_order_is_a_gap_for_trees() -> None:
    made, columns = fit(["a", None, "b"], encoding="ordinal")
    matrix = features.Matrix.of(made).apply(made.apply(columns))
    assert [math.isnan(one) for one in matrix[:, 0]] == [False, True, False]


def grouped(visits: int = 400) -> pd.DataFrame:
    """Five rows of each visit, whose target is the visit's; each visit is to a town of its own."""
    target = np.random.default_rng(5).integers(0, 2, visits)
    visit = np.repeat(np.arange(visits), 5)
    return pd.DataFrame(
        {
            "town": [f"town {one}" for one in visit],
            "visit": [f"visit {one}" for one in visit],
            "day": visit,
            "y": np.where(target[visit] == 1, "yes", "no"),
        }
    )


@pytest.mark.parametrize("split", ["group: visit", "time: day"])
def test_rows_of_a_group_or_of_one_time_do_not_tell_each_other_their_target(
    tmp_path: Path, split: str
) -> None:
    chosen = "{town: {type: categorical, encoding: target}}"
    left = "day" if "visit" in split else "visit"
    scores = {}
    for how in (split, "stratify: true"):
        drop = left if how == split else "visit, day"
        experiment(tmp_path, grouped(), chosen)
        overrides = {"data.drop": f"[{drop}]", "data.split": f"{{{how}}}"}
        made = spec.load(tmp_path / "one.yaml", overrides)
        dataset = prepare.dataset(made)
        transforms = dataset.fit(made.default().features)
        rows = dataset.split.train
        mean_B = transforms.codes[0].training(
            dataset.columns["town"][rows], dataset.targets[rows], dataset.marks.take(rows)
        )["town"]
        part = dataset.training(transforms)
        assert np.isfinite(part.inputs["numeric"]).all()
        scores[how] = roc_auc_score(dataset.targets[rows], mean_B)
    assert scores["stratify: true"] > 0.75, "by chance, a row knows the others of its visit"
    assert scores[split] < 0.65


def test_a_mean_is_of_earlier_times_alone_and_of_other_groups_alone() -> None:
    names, targets = ["a", "a", "b", "a", "b"] * 40, np.arange(200) % 2
    made, columns = fit(names, targets, target=CLASSES, encoding="target")
    code, times = made.codes[0], np.repeat(np.arange(20), 10)
    first = code.training(columns["x"], targets, features.Marks(times=times))["x"]
    assert np.unique(first[:20]).tolist() == [0.5], "the first span has no earlier rows"
    later = targets.copy()
    later[100:] = 1
    after = code.training(columns["x"], later, features.Marks(times=times))["x"]
    assert after[:100].tobytes() == first[:100].tobytes(), "what comes later changes nothing"
    groups = np.array(["one", "two"], object)[np.arange(200) // 100]
    other = code.training(columns["x"], later, features.Marks(groups))["x"]
    assert (other[:100] > 0.9).all()
    assert (other[100:] < 0.7).all()
    single = code.training(columns["x"], targets, features.Marks(np.full(200, "one", object)))
    assert np.unique(single["x"]).tolist() == [0.5], "there is no other group"
