"""Models made elsewhere: what becomes of file and example, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from onnx import TensorProto, numpy_helper

from eagleray import bundle, cli, compatibility, errors, imported, storage
from eagleray.api import models
from eagleray.state.models import Registry
from tests import bundles, elsewhere

CANCER, CLIENTS, DIABETES = elsewhere.cancer(), elsewhere.clients(), elsewhere.diabetes()
DIAGNOSIS = imported.Options(target="diagnosis")
LEFT = imported.Options(target="left")
PAIR = pd.DataFrame({"a": np.linspace(0, 1, 40), "b": np.linspace(1, 3, 40)})


def make(
    content: bytes,
    frame: pd.DataFrame,
    options: imported.Options | None = None,
    engine: str = "onnx",
) -> bundle.Bundle:
    made = imported.make(engine, content, frame, options or imported.Options())
    return bundle.unpack(made.files)


def predicted(made: bundle.Bundle, frame: pd.DataFrame) -> np.ndarray:
    names = [column.name for column in made.schema.columns]
    return made.predict({name: frame[name].tolist() for name in names}).outputs


def test_a_pipeline_of_scikit_learn_answers_as_scikit_learn_does() -> None:
    made = make(elsewhere.classifier_file(), CANCER, DIAGNOSIS)
    expected = elsewhere.classifier().predict_proba(CANCER.iloc[:, :30].to_numpy(np.float32))
    np.testing.assert_allclose(predicted(made, CANCER), expected, atol=1e-5)
    assert made.schema.target.classes == ("benign", "malignant")  # as the pipeline has them


def test_probabilities_in_one_tensor_have_the_classes_that_the_model_predicts() -> None:
    made = make(elsewhere.classifier_file(zipmap=False), CANCER, DIAGNOSIS)
    assert made.schema.target.classes == ("benign", "malignant")
    assert made.schema.target.task == "binary"


def test_columns_of_several_kinds_are_inputs_by_name() -> None:
    made = make(elsewhere.mixed_file(), CLIENTS, LEFT)
    expected = elsewhere.mixed().predict_proba(CLIENTS.drop(columns="left"))
    np.testing.assert_allclose(predicted(made, CLIENTS), expected, atol=1e-5)
    kinds = {column.name: column.type for column in made.schema.columns}
    assert kinds == {"age": "numeric", "pay": "numeric", "city": "text"}  # `?` is a city, no gap


def test_a_regression_gives_values_and_has_metrics_of_the_example() -> None:
    options = imported.Options(target="target")
    made = imported.make("onnx", elsewhere.regressor_file(), DIABETES, options)
    loaded = bundle.unpack(made.files)
    assert loaded.schema.target.task == "regression"
    assert made.manifest["metrics"]["example"]["r2"] == pytest.approx(0.5177, abs=1e-3)


def test_a_booster_answers_as_lightgbm_does_and_its_classes_follow_from_the_truth() -> None:
    made = make(elsewhere.booster_text(), CANCER, DIAGNOSIS, "lightgbm")
    expected = elsewhere.booster().predict(CANCER.drop(columns="diagnosis"), num_threads=1)
    np.testing.assert_allclose(predicted(made, CANCER)[:, 1], expected, atol=1e-9)
    assert made.schema.target.classes == ("malignant", "benign")


def test_columns_of_a_booster_are_found_by_name_in_any_order() -> None:
    turned = CANCER[[*reversed(CANCER.columns)]]
    made = make(elsewhere.booster_text(), turned, DIAGNOSIS, "lightgbm")
    straight = make(elsewhere.booster_text(), CANCER, DIAGNOSIS, "lightgbm")
    np.testing.assert_array_equal(predicted(made, turned), predicted(straight, CANCER))


@pytest.mark.parametrize("logits", [True, False])
def test_logits_become_probabilities_and_are_refused_unless_they_are_declared(
    logits: bool,
) -> None:
    options = imported.Options(labels=("no", "yes"), logits=logits)
    content = elsewhere.graph(elsewhere.node("Identity"))
    if not logits:
        with pytest.raises(errors.UserError, match=r"probabilities, .* --logits"):
            make(content, PAIR, options)
        return
    raw = np.exp(PAIR.to_numpy())
    np.testing.assert_allclose(
        predicted(make(content, PAIR, options), PAIR), raw / raw.sum(1, keepdims=True), atol=1e-6
    )


def test_a_version_warns_of_what_the_example_has_not() -> None:
    frame = CLIENTS.assign(city=CLIENTS["city"].replace("?", "Rome"))
    made = make(elsewhere.mixed_file(), frame, LEFT)
    answer = made.predict({"age": [30.0], "pay": [900.0], "city": ["Berne"]})
    assert "city: 'Berne' was not seen in training" in answer.warnings[0]
    assert "pay: 900 is far outside" in answer.warnings[0][1]


def test_a_fraction_for_a_whole_number_is_refused_and_no_other_row_with_it() -> None:
    made = make(elsewhere.mixed_file(), CLIENTS, LEFT)
    with pytest.raises(errors.RequestError, match=r"age: .* whole numbers .* but got 30.5"):
        made.predict({"age": [30.5], "pay": [1.0], "city": ["Bern"]})


SMALL = np.ones((2, 1), np.float32)


def refused(content: bytes, frame: pd.DataFrame = PAIR, **options: Any) -> str:
    with pytest.raises(errors.UserError) as caught:
        make(content, frame, imported.Options(**options))
    return str(caught.value)


def external(location: str) -> bytes:
    weights = numpy_helper.from_array(SMALL, "w")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", location
    return elsewhere.graph(elsewhere.node("MatMul", "x", "w"), weights=(weights,))


@pytest.mark.parametrize(
    ("content", "law"),
    [
        (b"", "the file is empty"),
        (
            elsewhere.graph(elsewhere.node("Fold", domain="com.acme"), domains=("com.acme",)),
            "operators that ONNX Runtime .* com.acme:Fold",
        ),
        (elsewhere.graph(elsewhere.node("Identity"), opset=99), "but .*[Oo]pset"),
        (elsewhere.graph(elsewhere.node("Identity"), rows=1), "any number of rows, but takes 1"),
        (
            elsewhere.graph(elsewhere.node("Identity"), width=3),
            "must have 3 columns, but has 2: a, b",
        ),
        (
            elsewhere.graph(
                elsewhere.node("Cast", to=TensorProto.STRING), output=TensorProto.STRING
            ),
            r"must give numbers in one output, but gives y tensor\(string\)",
        ),
        (elsewhere.graph(elsewhere.node("Sqrt", "z")), "operators that ONNX Runtime"),
        (
            elsewhere.graph(elsewhere.node("ReduceMax", axes=[0], keepdims=1)),
            "numbers for each of 40 rows, but gave 1 x 2",
        ),
        (
            elsewhere.graph(elsewhere.node("Log"), width=2),
            "finite numbers, but gave -inf, 0 for row 1 of the example",
        ),
        (
            elsewhere.graph(
                elsewhere.node("Identity"), dtype=TensorProto.STRING, output=TensorProto.STRING
            ),
            "must give numbers in one output",
        ),
        (
            elsewhere.graph(elsewhere.node("Cast", to=TensorProto.FLOAT), dtype=TensorProto.UINT64),
            r"must be of one of float32, .* but is tensor\(uint64\)",
        ),
    ],
    ids=range(11),
)
def test_a_model_that_cannot_be_served_is_refused_with_the_reason(content: bytes, law: str) -> None:
    with pytest.raises(errors.UserError, match=law):
        make(content, PAIR)


def test_a_model_whose_rows_depend_on_each_other_is_refused() -> None:
    content = elsewhere.graph(elsewhere.node("Softmax", axis=0))
    assert "a row alike alone and among others" in refused(
        content, labels=("no", "yes"), logits=True
    )


@pytest.mark.parametrize("location", ["weights.bin", "{here}/weights.bin", "../weights.bin"])
def test_weights_outside_the_file_are_not_read(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    for folder in (tmp_path, tmp_path / "below"):
        (folder / "weights.bin").write_bytes(SMALL.tobytes())
    monkeypatch.chdir(tmp_path / "below")
    assert "in one file" in refused(external(location.format(here=tmp_path / "below")))


@pytest.mark.parametrize(
    ("frame", "law"),
    [
        (CLIENTS[:0], "rows of input columns are needed, but got 0 rows"),
        (CLIENTS.assign(zip=1), "must know each column, but not 'zip'; leave it out"),
        (CLIENTS.drop(columns="pay"), "the model needs 'pay', but the columns are age, city"),
        (CLIENTS.rename(columns={"pay": "pays"}), "needs 'pay'.*; did you mean 'pays'"),
        (
            CLIENTS.assign(pay="much"),
            r"pay: the model takes numbers \(float32\), but .* is categor",
        ),
        (CLIENTS.assign(age=None), "age: at least one value is needed"),
        (
            CLIENTS.assign(age=[None, *CLIENTS["age"][1:]]),
            r"age: the model takes a whole number \(int64\) in every row",
        ),
        (
            CLIENTS.assign(city=[None, *CLIENTS["city"][1:]]),
            "city: the model takes a text in every",
        ),
        (CLIENTS.assign(left="maybe"), "one of the target's classes is needed, but got 'maybe'"),
    ],
)
def test_an_example_that_does_not_fit_is_refused_with_the_column(
    frame: pd.DataFrame, law: str
) -> None:
    with pytest.raises(errors.UserError, match=law):
        make(elsewhere.mixed_file(), frame, LEFT)


@pytest.mark.parametrize(
    ("options", "law"),
    [
        ({}, "labels: the 2 classes must have names"),
        ({"labels": ("a", "b", "c")}, "labels: must be 2 different names, but got 'a', 'b', 'c'"),
        ({"labels": ("a", "a")}, "labels: must be 2 different names"),
        ({"labels": ("a", "b"), "task": "multiclass"}, "task: must be binary for"),
        ({"task": "ordering"}, "task: must be one of binary, multiclass, regression"),
    ],
)
def test_options_that_do_not_fit_the_outputs_are_refused(options: dict[str, Any], law: str) -> None:
    frame = CANCER.drop(columns="diagnosis")
    with pytest.raises(errors.EagleRayError, match=law):
        make(elsewhere.booster_text(), frame, imported.Options(**options), "lightgbm")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    CANCER.to_csv(tmp_path / "rows.csv", index=False)
    CANCER[:0].to_csv(tmp_path / "empty.csv", index=False)
    (tmp_path / "model.onnx").write_bytes(elsewhere.classifier_file())
    (tmp_path / "model.txt").write_bytes(elsewhere.booster_text())
    text = elsewhere.booster_text()
    (tmp_path / "cut.txt").write_bytes(text[: len(text) // 2])
    (tmp_path / "registry").mkdir()
    return tmp_path


def run(folder: Path, *options: str) -> int:
    store = (folder / "registry").as_uri()
    paths = [str(folder / one) if "." in one else one for one in options]
    return cli.main(["models", "add", "cancer", *paths, "--storage", store])


def test_the_command_adds_a_version_once_and_moves_no_alias(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--onnx", "model.onnx", "--example", "rows.csv", "--target", "diagnosis")
    for _ in range(2):
        assert run(folder, *options) == 0
        said = capsys.readouterr().out
        assert said.startswith("cancer: version 1; binary, benign, malignant; on the example acc")
    model = models.models((folder / "registry").as_uri())["cancer"]
    assert (len(model.versions()), model.aliases) == (1, {})
    assert model.version(1).manifest["lineage"]["engine"] == "onnx"
    answers = model.predict(CANCER, 1)
    expected = elsewhere.classifier().predict(CANCER.iloc[:, :30].to_numpy(np.float32))
    assert (answers["label"] == expected).all()


@pytest.mark.parametrize(
    ("options", "law"),
    [
        (("--lightgbm", "cut.txt", "--example", "rows.csv"), "the text is cut"),
        (("--onnx", "rows.csv", "--example", "rows.csv"), "a model in ONNX"),
        (("--onnx", "model.onnx", "--example", "empty.csv"), "got 0 rows"),
        (("--onnx", "model.onnx", "--example", "rows.csv"), "must have 30 columns, but has 31"),
        (("--onnx", "models.onnx", "--example", "rows.csv"), "did you mean 'model.onnx'"),
        (("--example", "rows.csv"), "one of --onnx or --lightgbm or --export, but got 0 of them"),
        (
            ("--onnx", "model.onnx", "--lightgbm", "model.txt", "--example", "rows.csv"),
            "but got 2 of them",
        ),
    ],
)
def test_what_is_refused_leaves_nothing_behind(
    folder: Path, options: tuple[str, ...], law: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, *options) == 2
    assert law in capsys.readouterr().err
    assert not list((folder / "registry").rglob("*.*"))


def test_a_dry_run_adds_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--lightgbm", "model.txt", "--example", "rows.csv", "--target", "diagnosis")
    assert run(folder, *options, "--dry-run") == 0
    assert "a version would be added; binary, malignant, benign" in capsys.readouterr().out
    assert not list((folder / "registry").rglob("*.*"))


def test_a_promotion_from_a_trained_version_to_an_added_one_says_what_clients_notice(
    tmp_path: Path,
) -> None:
    registry = Registry(storage.open(tmp_path.as_uri()))
    registry.register("left", bundles.files(), {})
    registry.promote("left", 1)
    made = imported.make("onnx", elsewhere.mixed_file(), CLIENTS, LEFT)
    registry.register("left", made.files, made.manifest)
    with pytest.raises(errors.UserError, match="--allow-schema-change") as caught:
        models.models(tmp_path.as_uri())["left"].promote(2)
    assert "column pay: none → numeric: requests that lack it are refused" in str(caught.value)
    assert "column note: text, may be missing → none: requests that have it" in str(caught.value)
    assert registry.aliases("left").values == {"champion": 1}
    models.models(tmp_path.as_uri())["left"].promote(2, allow_schema_change=True)
    with pytest.raises(
        errors.UserError, match=r"column income \$: none|column pay: numeric → none"
    ):
        models.models(tmp_path.as_uri())["left"].promote(1)
    assert compatibility.schema(registry, registry.version("left", 2)) is not None


def test_an_added_version_with_the_columns_of_a_trained_one_needs_no_change_of_clients(
    tmp_path: Path,
) -> None:
    registry = Registry(storage.open(tmp_path.as_uri()))
    for content, engine in (
        (elsewhere.classifier_file(), "onnx"),
        (elsewhere.booster_text(), "lightgbm"),
    ):
        made = imported.make(engine, content, CANCER, DIAGNOSIS)
        registry.register("cancer", made.files, made.manifest)
    model = models.models(tmp_path.as_uri())["cancer"]
    model.promote(1)
    assert model.promote(2).previous == 1


def test_a_replica_of_an_older_release_refuses_the_bundle_by_its_format() -> None:
    made = imported.make("onnx", elsewhere.classifier_file(), CANCER, DIAGNOSIS)
    assert json.loads(made.files["bundle.json"])["format"] == bundle.OTHER_ENGINES
    assert json.loads(bundles.files()["bundle.json"])["format"] == bundle.FORMAT
