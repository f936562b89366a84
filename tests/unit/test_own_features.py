"""Columns and encoders of the user's own code: given, held to their contract, and served."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eagleray import bundle, cli, errors, spec, storage
from eagleray.client import package
from eagleray.engines.torch import Torch
from eagleray.learn import models, schema, tasks
from eagleray.state.models import Registry
from ray_jobs import search
from ray_jobs.data import encoded, prepare
from serving import trust

RNG = np.random.default_rng(0)
MODULE = """import numpy as np

def made(*columns):
    return MADE

def encode(texts):
    return VECTORS
"""
RATIO = "columns[0] / np.where(columns[1] == 0, np.nan, columns[1])"
LENGTHS = "np.array([[len(text), text.count('a')] for text in texts], 'float32')"
CHOSEN = (
    "{share: {made_by: 'my.own:made', of: [income, age], scale: log},"
    " note: {type: text, encoder: 'my.own:encode'}}"
)


def write(folder: Path, made: str = RATIO, vectors: str = LENGTHS) -> None:
    (folder / "my").mkdir(exist_ok=True)
    source = MODULE.replace("MADE", made).replace("VECTORS", vectors)
    (folder / "my" / "own.py").write_text(source)
    rows = 200
    income, age = RNG.integers(1, 99, rows), RNG.integers(0, 9, rows)
    frame = pd.DataFrame(
        {
            "income": income,
            "age": age,
            "town": RNG.choice(["ulm", "bonn"], rows),
            "note": [None if one == 0 else f"a note of {'a' * one} words" for one in age],
            "y": np.where(income > 9 * age, "yes", "no"),
        }
    )
    frame.to_csv(folder / "rows.csv", index=False)


def experiment(folder: Path, chosen: str = CHOSEN, more: str = "") -> spec.Experiment:
    file = folder / "one.yaml"
    file.write_text(
        "name: one\ndata: {source: rows.csv, target: y}\n"
        f"features: {chosen}\n{more or 'model: {hidden: [8]}'}\nstorage: {folder.as_uri()}/store\n"
    )
    return spec.load(file)


def encode(made: spec.Experiment) -> tuple[prepare.Dataset, encoded.Encoded]:
    dataset = prepare.dataset(made)
    return dataset, dataset.encode(dataset.fit(made.default().features))


def packed(folder: Path) -> tuple[prepare.Dataset, dict[str, bytes], bundle.Bundle]:
    """A bundle of an untrained model, and its files."""
    write(folder)
    made = experiment(folder)
    dataset, data = encode(made)
    model, task = made.default().model, tasks.of(dataset.schema.target)
    module = models.build(model, data.transforms.shape, task.width)
    whole = bundle.Bundle(
        schema=dataset.schema,
        transforms=data.transforms,
        engine=Torch(model, module),
        scale=task.scale(dataset.targets),
    )
    golden = schema.to_json(dataset.schema, dataset.take(dataset.split.validation[:8]))
    return dataset, bundle.pack(whole, golden, {}), whole


def test_they_enter_the_model_as_numbers(tmp_path: Path) -> None:
    write(tmp_path)
    dataset, data = encode(experiment(tmp_path))
    transforms, rows = data.transforms, dataset.take(dataset.split.train)
    assert isinstance(data.train, encoded.Part)
    assert [one.name for one in dataset.schema.columns] == ["income", "age", "town", "note"]
    assert transforms.shape.tokens == 0
    place = transforms.numbers.names.index("share")
    assert place in transforms.numbers.indicators
    assert transforms.shape.numeric == transforms.numbers.width + 2
    vector_BD = data.train.inputs["numeric"][:, -2:]
    known = np.array([text is not None for text in rows["note"]])
    lengths = np.array([len(text) for text in rows["note"][known]], float)
    scaled = (lengths - lengths.mean()) / lengths.std()
    np.testing.assert_allclose(vector_BD[known, 0], scaled, rtol=1e-4, atol=1e-4)
    assert not vector_BD[~known].any()


def test_a_bundle_holds_their_source_and_predicts_the_same_once_it_is_loaded(
    tmp_path: Path,
) -> None:
    dataset, files, whole = packed(tmp_path)
    assert files["code/my.own.py"].decode() == (tmp_path / "my" / "own.py").read_text()
    assert "count('a')" not in files["bundle.json"].decode()
    loaded = bundle.unpack(files)
    loaded.verify()
    rows = schema.to_json(dataset.schema, dataset.take(dataset.split.test))
    batch = loaded.predict(rows)
    assert batch.outputs.tobytes() == whole.predict(rows).outputs.tobytes()
    alone = loaded.predict({name: values[:1] for name, values in rows.items()})
    np.testing.assert_allclose(alone.outputs, batch.outputs[:1], rtol=1e-5)


def test_a_bundle_without_its_source_is_refused(tmp_path: Path) -> None:
    _, files, _ = packed(tmp_path)
    del files["code/my.own.py"]
    with pytest.raises(errors.ServingError, match=r"must hold a model, but .*code/my.own.py"):
        bundle.unpack(files)


def test_a_replica_runs_them_only_where_own_code_is_allowed(tmp_path: Path) -> None:
    _, files, _ = packed(tmp_path)
    (tmp_path / "store").mkdir()
    registry = Registry(storage.open((tmp_path / "store").as_uri()))
    version = registry.register("one", files, {})
    trust.Trust(allow_own_code=True).check(version)
    assert bundle.load(registry, version).transforms.made[0].function is not None
    assert bundle.outline(registry, version).transforms.vectors
    with pytest.raises(errors.ServingError, match=r"but has code/my.own.py"):
        trust.Trust(allow_own_code=False).check(version)


def test_a_row_that_makes_them_fail_is_an_error_with_file_and_function(tmp_path: Path) -> None:
    write(tmp_path, vectors=f"{LENGTHS} if 'bad' not in texts else 1 / 0")
    dataset, data = encode(experiment(tmp_path))
    rows = dataset.take(dataset.split.test[:1]) | {"note": np.array(["bad"], object)}
    with pytest.raises(errors.CodeError, match=r"^my/own.py:7: my.own:encode: must give .*Zero"):
        data.transforms.apply(rows)


@pytest.mark.parametrize(
    ("made", "law"),
    [
        ("columns[0][:3]", r"a number for each row, here of shape \(\d+,\), but gave \(3,\) of"),
        ("columns[0][:, None]", r"but gave \(\d+, 1\) of float64"),
        ("3.0", r"but gave \(\) of float64"),
        ("None", r"but gave \(\) of object"),
        ("['one'] * len(columns[0])", r"but gave \(\d+,\) of <U3"),
        ("columns[0] + 1j", r"but gave \(\d+,\) of complex128"),
        ("columns[5]", r"^my/own.py:4: my.own:made: must give a number .* raised IndexError"),
        ("exit(3)", r"^my/own.py:4: my.own:made: .* raised SystemExit: 3"),
        ("columns[0] - columns[0].mean()", r"must not depend on the batch's other rows, but does"),
        (
            "[[1], [2, 3]]",
            r"^my/own.py: my.own:made: must give a number for each row, but gave list",
        ),
    ],
)
def test_a_function_that_gives_no_number_for_each_row_is_refused_by_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made: str, law: str
) -> None:
    write(tmp_path, made=made)
    said = check(tmp_path, capsys)
    assert_law(said, law)


@pytest.mark.parametrize(
    ("vectors", "law"),
    [
        ("[[1.0]]", r"finite numbers of shape \(B, D\), here \(\d+, D\), but gave \(1, 1\) of"),
        ("[1.0] * len(texts)", r"here \(\d+, D\), but gave \(\d+,\) of float64"),
        ("[[]] * len(texts)", r"here \(\d+, D\), but gave \(\d+, 0\) of float64"),
        ("[['a']] * len(texts)", r"but gave \(\d+, 1\) of <U1"),
        ("[[np.nan]] * len(texts)", r"^my/own.py: .* gave NaN or infinity for 'a note of"),
        ("[[1e300]] * len(texts)", r"gave NaN or infinity for 'a note of"),
        ("texts.shape", r"^my/own.py:7: my.own:encode: must give .* AttributeError: 'list' object"),
        ("np.zeros((len(texts), len(texts)))", r"but gave \(1, 1\) of float64"),
        (f"{LENGTHS} * len(texts)", r"must not depend on the batch's other rows, but does in row"),
    ],
)
def test_an_encoder_that_gives_no_vectors_is_refused_by_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], vectors: str, law: str
) -> None:
    write(tmp_path, vectors=vectors)
    said = check(tmp_path, capsys)
    assert_law(said, law)


def check(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    made = experiment(folder)
    assert cli.main(["check", str(made.path)]) == 2
    return capsys.readouterr().err.removeprefix(f"{made.path}: ")


def assert_law(said: str, law: str) -> None:
    assert re.search(law, said), said
    assert said.count("\n") == 1


def test_vectors_of_torch_are_taken_too_and_a_function_may_change_its_arguments(
    tmp_path: Path,
) -> None:
    write(
        tmp_path,
        made="columns[0].__imul__(2)",
        vectors="__import__('torch').tensor([[float(len(text))] for text in texts])",
    )
    dataset, data = encode(experiment(tmp_path))
    dataset.columns["income"].flags.writeable = False
    rows = dataset.take(dataset.split.test)
    before = rows["income"].copy()
    inputs = data.transforms.apply(rows)
    assert (rows["income"] == before).all()
    assert inputs["numeric"].shape[1] == data.transforms.shape.numeric


def test_infinity_becomes_the_largest_number_and_nan_is_a_gap(tmp_path: Path) -> None:
    write(tmp_path, made="np.where(columns[1] == 0, np.nan, np.where(columns[1] > 7, np.inf, 1.0))")
    dataset, data = encode(experiment(tmp_path, CHOSEN.replace("scale: log", "scale: none")))
    rows = dataset.take(dataset.split.train)
    place = data.transforms.numbers.names.index("share")
    given = data.transforms.apply(rows)["numeric"]
    assert np.isfinite(given).all()
    assert (given[rows["age"] > 7, place] > 1e29).all()
    marked = len(data.transforms.numbers.names) + data.transforms.numbers.indicators.index(place)
    assert (given[:, marked] == (rows["age"] == 0)).all()


def test_names_may_be_made_of_columns_of_all_kinds_and_may_be_encoded_as_any(
    tmp_path: Path,
) -> None:
    write(tmp_path, made="[None if note is None else town for town, note in zip(*columns)]")
    chosen = (
        "{place: {type: categorical, made_by: 'my.own:made', of: [town, note], encoding: ordinal},"
        " note: {type: text}}"
    )
    _, data = encode(experiment(tmp_path, chosen))
    (codes,) = data.transforms.codes
    assert codes.names == ("bonn", "ulm")
    assert data.transforms.shape.tokens > 0
    write(tmp_path, made="[3 for _ in columns[0]]")
    with pytest.raises(errors.CodeError, match="a name or None for each row, but gave 3"):
        encode(experiment(tmp_path, chosen))


@pytest.mark.parametrize(
    ("chosen", "law"),
    [
        ("{x: {made_by: 'my.own:made', of: [incom]}}", r"features.x.of: a column .*'incom'; did"),
        ("{x: {made_by: 'my.own:made', of: [y]}}", "x.of: inputs are needed, but y is no input"),
        ("{age: {made_by: 'my.own:made', of: [income]}}", "features.age: a new name is needed"),
    ],
)
def test_columns_that_are_not_there_are_refused(tmp_path: Path, chosen: str, law: str) -> None:
    write(tmp_path)
    with pytest.raises(errors.DataError, match=law):
        encode(experiment(tmp_path, chosen))


@pytest.mark.parametrize(
    ("chosen", "law"),
    [
        ("{x: {made_by: 'my.own:made'}}", "needs made_by and of together"),
        ("{x: {type: numeric, of: [age]}}", "needs made_by and of together"),
        ("{x: {made_by: made, of: [age]}}", "features.x.made_by: must be module:function"),
        ("{x: {made_by: 'my.own:made', of: []}}", "features.x.of: must hold at least 1"),
        ("{x: {made_by: 'my.own:made', of: age}}", "features.x.of: must be a list"),
        ("{x: {made_by: 'my.own:made', of: {choice: [[age]]}}}", "is the same for all trials"),
        ("{x: {made_by: {choice: ['my.own:made']}, of: [age]}}", "is the same for all trials"),
        ("{note: {type: text, encoder: {choice: ['my.own:e']}}}", "is the same for all trials"),
        ("{note: {type: text, encoder: encode}}", "features.note.encoder: must be module:function"),
        ("{age: {type: numeric, encoder: 'my.own:e'}}", "needs type: text beside it"),
        (
            "{note: {type: text, encoder: 'my.own:e', vocabulary: 5}}",
            "note.vocabulary: would do nothing beside encoder",
        ),
        ("{x: {made_by: 'my.own:made', of: [age], ratio: [age, age]}}", "made in one way"),
    ],
)
def test_lines_that_make_no_sense_are_refused(tmp_path: Path, chosen: str, law: str) -> None:
    write(tmp_path)
    with pytest.raises(errors.SpecError, match=law):
        experiment(tmp_path, chosen)


def test_a_function_that_is_not_there_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(errors.CodeError, match=r"no 'mad'; did you mean"):
        encode(experiment(tmp_path, "{x: {made_by: 'my.own:mad', of: [age]}}"))


def test_the_source_travels_with_a_run_and_other_source_is_another_search(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "store").mkdir()
    made = experiment(tmp_path)
    sent = package.pack(made)
    assert "my/own.py" in sent.files
    first = search.Search(made)
    assert set(first.definition.code) == {"my.own:made", "my.own:encode"}
    source = tmp_path / "my" / "own.py"
    source.write_text(source.read_text() + "\n# changed\n")
    assert search.Search(made).id != first.id
    assert package.pack(made).run != sent.run


@pytest.mark.parametrize("model", ["boosting", "text"])
def test_trees_take_vectors_and_a_model_of_words_needs_words(tmp_path: Path, model: str) -> None:
    from ray_jobs import learner

    write(tmp_path)
    made = experiment(tmp_path, more=f"model: {{type: {model}}}\ntrain: {{epochs: 2}}")
    if model == "text":
        with pytest.raises(errors.DataError, match="text needs a column of type text"):
            search.Search(made)
        return
    assert not list(prepare.misfits(made, prepare.dataset(made)))
    running = learner.build(made.default(), encode(made)[1], metric="roc_auc")
    found = running.epoch()
    assert found is not None
    assert found["roc_auc"] > 0.7


def test_transforms_with_them_travel_to_a_worker(tmp_path: Path) -> None:
    write(tmp_path)
    dataset, data = encode(experiment(tmp_path))
    again = pickle.loads(pickle.dumps(data.transforms))
    rows = dataset.take(dataset.split.test)
    expected = data.transforms.apply(rows)["numeric"]
    assert again.apply(rows)["numeric"].tobytes() == expected.tobytes()
    assert json.dumps(again.state()[0])
