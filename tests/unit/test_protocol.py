import base64
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from eagleray import errors
from eagleray.bundle import Prediction
from eagleray.learn import schema
from eagleray.learn.columns import pictures
from serving import openapi, problems, protocol
from tests import bundles

KNOWN = bundles.make().schema
CODEC = protocol.Codec(KNOWN)
ROW: dict[str, Any] = bundles.instances(bundles.rows(2, seed=3))[1]


def body(*rows: object) -> bytes:
    return json.dumps({"instances": rows}).encode()


def refused(content: bytes, codec: protocol.Codec = CODEC) -> errors.RequestError:
    with pytest.raises(errors.RequestError) as caught:
        codec.parse(codec.rows(content))
    return caught.value


def read(content: bytes, codec: protocol.Codec = CODEC) -> dict[str, Any]:
    """Canonical columns of a request, as a batch has them."""
    return codec.columns(codec.parse(codec.rows(content)))


def test_a_request_gives_the_columns_that_a_table_of_its_values_gives() -> None:
    raw = bundles.rows(20)
    columns, expected = read(body(*bundles.instances(raw))), schema.parse(KNOWN, raw)
    assert list(columns) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(columns[name], array)


def test_a_nullable_column_may_be_null_or_absent() -> None:
    absent = {name: value for name, value in ROW.items() if name != "note"}
    first, second = read(body(absent, ROW | {"note": None}))["note"]
    assert first is None
    assert second is None


@pytest.mark.parametrize("mark", ["?", "", " ", " ? ", "n/A", None])
def test_the_training_files_marks_for_missing_are_taken_as_docs_say(mark: object) -> None:
    (column,) = (one for one in KNOWN.columns if one.name == "income $")
    known = KNOWN.model_copy(
        update={"columns": (column.model_copy(update={"missing": ("?", "N/A")}),)}
    )
    assert np.isnan(read(body({"income $": mark}), protocol.Codec(known))["income $"]).all()


@pytest.mark.parametrize("last", [-5.5, None, "?"])
def test_a_number_that_means_missing_does_so_in_its_own_columns_alone(last: object) -> None:
    marks = {"a": ("?", "-999"), "b": ("?", "-5,5"), "c": ("?",)}
    numbers = [
        schema.Column(name=name, type="numeric", nullable=True, missing=texts, decimal_comma=True)
        for name, texts in marks.items()
    ]
    known = KNOWN.model_copy(update={"columns": tuple(numbers)})
    rows = [dict.fromkeys(marks, value) for value in (-999, -999.0, 4, last)]
    number = last if isinstance(last, float) else math.nan
    expected = {
        "a": [math.nan, math.nan, 4, number],
        "b": [-999, -999, 4, math.nan],
        "c": [-999, -999, 4, number],
    }
    for name, array in read(body(*rows), protocol.Codec(known)).items():
        np.testing.assert_array_equal(array, expected[name])


def test_a_mark_for_missing_is_refused_where_training_had_every_value() -> None:
    assert refused(body(ROW | {"age": ""})).field == "instances[0].age"


BROKEN = {
    "wrong type": (ROW | {"age": "old"}, "instances[1].age", "a number is needed, but got text"),
    "boolean as number": (ROW | {"age": True}, "instances[1].age", "got true or false"),
    "null where required": (ROW | {"age": None}, "instances[1].age", "got null"),
    "number as text": (ROW | {"age": "41"}, "instances[1].age", "a number is needed"),
    "unknown mark": (ROW | {"income $": "x"}, "instances[1].income $", "but got 'x'"),
    "extra": (ROW | {"ages": 1}, "instances[1].ages", "did you mean 'age'"),
    "not a date": (ROW | {"joined": "soon"}, "instances[1].joined", "ISO 8601"),
    "not a boolean": (ROW | {"member": "maybe"}, "instances[1].member", "true or false"),
    "no object": ([1, 2], "instances[1]", "an object is needed, but got a list"),
    "missing": (
        {name: value for name, value in ROW.items() if name != "age"},
        "instances[1].age",
        "this field is needed",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_refused_with_its_field(name: str) -> None:
    row, field, message = BROKEN[name]
    error = refused(body(ROW, row))
    assert (error.status, error.field) == (422, field)
    assert message in str(error)


UNWRAPPED = {
    "one row": (ROW, "a bare row"),
    "a list of rows": ([ROW, ROW], "a bare list"),
    "another key": ({"inputs": [ROW]}, "got only inputs"),
    "nothing": ({}, "no field at all"),
    "a number": (3, "a whole number"),
    "one row in place of a list": ({"instances": ROW}, "a list of rows is needed"),
}


@pytest.mark.parametrize("name", UNWRAPPED)
def test_a_body_that_is_not_wrapped_is_told_how_to(name: str) -> None:
    sent, message = UNWRAPPED[name]
    error = refused(json.dumps(sent).encode())
    assert (error.status, error.field) == (422, "instances")
    assert message in str(error)
    assert '{"instances": [{' in str(error)


def test_all_faults_are_named_at_once() -> None:
    absent = {name: value for name, value in ROW.items() if name != "city"}
    rows = [ROW, absent | {"age": "old", "joined": "soon", "shoe": 1}, [], ROW | {"member": "so"}]
    error = refused(body(*rows))
    assert [field for field, _ in error.details] == [
        "instances[1].age",
        "instances[1].city",
        "instances[1].shoe",
        "instances[1].joined",
        "instances[2]",
        "instances[3].member",
    ]
    assert error.field == "instances[1].age"
    assert all(f"{field}: {message}" in str(error) for field, message in error.details)


def test_faults_that_only_values_have_are_named_at_once_as_well() -> None:
    error = refused(body(ROW | {"joined": "soon", "member": "so"}, ROW | {"joined": "later"}))
    assert {field for field, _ in error.details} == {
        "instances[0].joined",
        "instances[0].member",
        "instances[1].joined",
    }


def test_an_error_names_no_more_faults_than_people_read() -> None:
    error = refused(body(*[ROW | {"age": "old"}] * protocol.MOST_ROWS))
    assert len(error.details) == problems.MOST
    assert f"more than these {problems.MOST}" in str(error)


def test_extra_fields_are_ignored_where_the_model_says_so() -> None:
    codec = protocol.Codec(KNOWN, extra_fields="ignore")
    assert read(body(ROW | {"id": 7, "left": "yes", "more": {"a": [1]}}), codec)["age"].size == 1
    error = refused(body(ROW | {"id": 7, "age": "old"}), codec)
    assert [field for field, _ in error.details] == ["instances[0].age"]


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_not_finite_is_refused_with_its_field(word: str) -> None:
    error = refused(body(ROW, ROW | {"age": math.inf}).replace(b"Infinity", word.encode()))
    assert (error.status, error.field) == (422, "instances[1].age")


def test_a_number_beyond_double_precision_is_refused_with_its_field() -> None:
    error = refused(body(ROW | {"age": 77777}).replace(b"77777", b"1e999"))
    assert (error.status, error.field) == (422, "instances[0].age")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"instances": [',
        b"\xff",
        b'{"instances": [{"city": "\xff"}]}',
        b'{"instances": [{"age": "old", "city": "\xff"}]}',
        b'{"instances": [{"age": "old"}, {',
        b"no",
    ],
)
def test_what_is_not_json_is_refused_as_such(content: bytes) -> None:
    error = refused(content)
    assert error.status == 400
    assert str(error).startswith("the body must be JSON, but ")


def test_rows_are_between_one_and_the_limit() -> None:
    assert refused(body()).field == "instances"
    assert refused(body()).status == 422
    assert len(CODEC.rows(body(*[ROW] * protocol.MOST_ROWS))) == protocol.MOST_ROWS
    assert refused(body(*[ROW] * (protocol.MOST_ROWS + 1))).status == 413


def test_an_error_repeats_no_more_than_a_little_of_what_was_sent() -> None:
    for value in (1, math.nan):
        assert len(refused(body(ROW | {"x" * 1_000_000: value})).field or "") < 200
    assert len(str(refused(body(ROW | {"income $": "x" * 1_000_000})))) < 300


@pytest.mark.parametrize("field", ["joined", "more"])
def test_json_that_is_nested_too_deeply_is_refused_as_such(field: str) -> None:
    deep = b"[" * 5000 + b"]" * 5000
    content = body(ROW | {field: "deep"}).replace(b'"deep"', deep)
    for codec in (CODEC, protocol.Codec(KNOWN, extra_fields="ignore")):
        assert codec.valid_rows(content) is None
        assert refused(content, codec).status == 400


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_body_breaks_the_reader(content: bytes) -> None:
    assert refused(content).status in (400, 422)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_any_json_in_a_field_is_taken_or_refused_with_its_field(value: object) -> None:
    field, status = "instances[0].joined", 422
    try:
        read(body(ROW | {"joined": value}))
    except errors.RequestError as error:
        field, status = error.field or "", error.status
    assert (field[:19], status) == ("instances[0].joined", 422)


def test_columns_may_have_any_name() -> None:
    names = ("class", "f0", "a b", "ü", "", "x.y", "`")
    known = schema.Schema(
        columns=tuple(schema.Column(name=name, type="numeric") for name in names),
        target=schema.Target(name="y", task="regression"),
    )
    codec = protocol.Codec(known)
    assert read(body(dict.fromkeys(names, 1.0)), codec) == {name: [1.0] for name in names}
    assert (
        refused(body(dict.fromkeys(names, 1.0) | {"x.y": "a"}), codec).field == "instances[0].x.y"
    )


def test_pictures_come_as_numbers_or_base64() -> None:
    known = schema.Schema(
        columns=(schema.Column(name="image", type="image", image_shape=(1, 2, 2)),),
        target=schema.Target(name="y", task="regression"),
    )
    codec = protocol.Codec(known)
    assert read(body({"image": [[0, 1.5], [2, 3]]}), codec)["image"].shape == (1, 1, 2, 2)
    assert refused(body({"image": [[0, 1], [2]]}), codec).field == "instances[0].image"
    assert refused(body({"image": [[0, 1], [2, "3"]]}), codec).field == "instances[0].image[1][1]"
    assert refused(body({"image": "none"}), codec).field == "instances[0].image"


def encoded(picture: Image.Image, kind: str = "PNG") -> str:
    file = io.BytesIO()
    picture.save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def image_codec(*shape: int) -> protocol.Codec:
    known = schema.Schema(
        columns=(schema.Column(name="image", type="image", image_shape=shape),),
        target=schema.Target(name="y", task="regression"),
    )
    return protocol.Codec(known)


def test_a_picture_far_larger_than_the_models_is_refused_by_its_header(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unpacked(self: Image.Image) -> None:
        raise AssertionError("it was unpacked")

    bomb = encoded(Image.new("L", (7000, 7000)))
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", unpacked)
    error = refused(body({"image": bomb}), image_codec(1, 8, 8))
    assert error.field == "instances[0].image"
    assert "at most 1,048,576 pixels are taken, but got 7000 x 7000" in str(error)


def test_the_limit_follows_the_size_of_the_models_pictures() -> None:
    picture = body({"image": encoded(Image.new("L", (1500, 1500)))})
    assert read(picture, image_codec(1, 64, 64))["image"].shape == (1, 1, 64, 64)
    assert refused(picture, image_codec(1, 32, 32)).field == "instances[0].image"


def test_a_large_photograph_is_unpacked_at_a_smaller_size() -> None:
    photograph = Image.linear_gradient("L").resize((4000, 3000)).convert("RGB")
    codec = image_codec(3, 12, 16)
    small = read(body({"image": encoded(photograph.resize((1000, 750)), "JPEG")}), codec)
    large = read(body({"image": encoded(photograph, "JPEG")}), codec)
    assert np.abs(small["image"] - large["image"]).max() < 2


def test_the_pictures_of_a_request_are_bounded_together() -> None:
    picture = encoded(Image.new("L", (1024, 1024)))
    error = refused(body(*[{"image": picture + " " * n} for n in range(60)]), image_codec(1, 8, 8))
    assert "pixels are taken in one request" in str(error)


def test_each_value_is_read_once_also_beside_a_bad_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    fit = pictures.fit

    def counted(value: object, *rest: Any) -> np.ndarray:
        seen.append(value)
        return fit(value, *rest)

    monkeypatch.setattr(pictures, "fit", counted)
    good = [encoded(Image.new("L", (8, 8), shade)) for shade in range(3)]
    read(body(*[{"image": one} for one in good]), image_codec(1, 8, 8))
    assert seen == good
    seen.clear()
    sent = [*good, "rubbish"]
    refused(body(*[{"image": one} for one in sent]), image_codec(1, 8, 8))
    assert seen == sent


def test_answers_name_the_likeliest_class_and_what_was_odd() -> None:
    prediction = Prediction(np.array([[0.25, 0.75], [0.5, 0.5]]), [["odd"], []])
    assert CODEC.answers(prediction) == [
        {
            "label": "yes",
            "probability": 0.75,
            "probabilities": {"no": 0.25, "yes": 0.75},
            "warnings": ["odd"],
        },
        {"label": "no", "probability": 0.5, "probabilities": {"no": 0.5, "yes": 0.5}},
    ]


def test_a_regression_answers_with_values() -> None:
    target = schema.Target(name="y", task="regression")
    codec = protocol.Codec(KNOWN.model_copy(update={"target": target}))
    assert codec.answers(Prediction(np.array([1.5, 2.0]), [[], []])) == [
        {"value": 1.5},
        {"value": 2.0},
    ]


def test_outputs_that_are_no_numbers_are_not_sent() -> None:
    with pytest.raises(errors.ServingError, match="finite"):
        CODEC.answers(Prediction(np.array([[math.nan, 1.0]]), [[]]))


def test_the_document_describes_each_column_and_gives_a_row_that_is_taken() -> None:
    made = bundles.make()
    made.name, made.golden = "left", bundles.golden(made)
    document = openapi.document(made)
    row = document["components"]["schemas"]["Row"]
    assert list(row["properties"]) == [column.name for column in KNOWN.columns]
    assert row["required"] == ["age", "city"]
    content = document["paths"]["/v1/models/left:predict"]["post"]["requestBody"]["content"]
    assert CODEC.rows(json.dumps(content[openapi.JSON]["example"]).encode())
