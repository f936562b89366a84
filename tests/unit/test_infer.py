"""What a column is, from its values; and what a table's target and inputs are."""

import base64
import datetime
import io
import uuid
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eagleray import errors, spec
from eagleray.learn import columns, schema
from eagleray.learn.columns import arrow, pictures
from eagleray.tabular import inference, tables

SENTENCES = [f"this is the sentence number {n} of many" for n in range(60)]


def kind_of(raw: schema.Raw, name: str = "x") -> str:
    found = inference.infer(name, raw)
    assert found is not None
    return found.column.type


def data(**more: Any) -> spec.Data:
    return spec.Data(source="rows.csv", target="y", **more)


def learn(
    table: tables.Table, features: dict[str, spec.FeatureOptions] | None = None, **more: Any
) -> tables.Learnable:
    return tables.infer(table, data(**more), features or {})


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (["1", " 2.5", "1,200", "?", "N/A", "none", "-", ""], "numeric"),
        (["3,14", "2,5", "1.234,5"], "numeric"),
        ([1, 2.5, None], "numeric"),
        (["0", "1", "1"], "numeric"),
        (["yes", "No", "?", "YES"], "boolean"),
        (np.array([True, False]), "boolean"),
        ([True, None], "boolean"),
        (["2024-01-31", "2023-05-01T10:00:00Z", ""], "datetime"),
        (["20141013T000000", "20150225T103000"], "datetime"),
        (["31.12.2023", "01.02.2024"], "datetime"),
        (["Dec 31, 2023", "May 1, 2024"], "datetime"),
        (["12/31/2023 10:30", "01/02/2024 00:00"], "datetime"),
        (["2024-01-31 10:30:00 UTC", "2024-02-01 00:00:00 UTC"], "datetime"),
        (["2024-01-31 10:30:00 +0200", "2024-02-01 00:00:00 -0500"], "datetime"),
        (["2024-01-31", "0000-00-00", "2024-02-01"], "datetime"),
        ([datetime.date(2024, 1, 1), None], "datetime"),
        (["a", "b", "a", "?"], "categorical"),
        (["01067", "80331", "10115"], "categorical"),
        (["yes", "no", "maybe"], "categorical"),
        ([1, "a", 2.5, True], "categorical"),
        (SENTENCES, "text"),
        ([f"昨天收到的第{row}个包裹质量很好非常满意" for row in range(110)] * 3, "text"),
        ([f"第{row}区" for row in range(110)] * 3, "categorical"),
        ([[[0, 1], [2, 3]], [[0, 0], [0, 0]]], "image"),
    ],
)
def test_types_are_inferred_from_the_whole_column(raw: schema.Raw, kind: str) -> None:
    assert kind_of(raw) == kind


WORDS = st.sampled_from(
    [" 12 ", "1,5", "1,234", "01067", "oops", "n.d.", "-999", "-999.0", "", "?", "none"]
)
COLUMNS = (
    st.lists(st.floats(-1e3, 1e3).map(str) | WORDS, min_size=1, max_size=8)
    | st.lists(st.integers(0, 9).map(str) | WORDS, min_size=1, max_size=8)
    | st.lists(st.dates().map(str) | st.sampled_from(["", "01.02.2024"]), min_size=1, max_size=8)
    | st.lists(st.sampled_from(["yes", "no", "Yes", "?", "maybe"]), min_size=1, max_size=8)
)


@given(
    few=COLUMNS,
    times=st.integers(1, 60),
    marks=st.sampled_from([(), ("n.d.",), ("-999",)]),
    kind=st.sampled_from([None, None, "numeric", "datetime", "categorical"]),
)
@settings(max_examples=300)
def test_texts_of_a_file_are_taken_for_the_same_as_texts_of_json(
    few: list[str], times: int, marks: tuple[str, ...], kind: Any
) -> None:
    raw = few[:1] * times * 4 + few  # so that the rest may be a small share
    cells = pa.chunked_array([pa.array(raw[:3], pa.string()), pa.array(raw[3:], pa.string())])
    found, refusals = [], []
    for form in (raw, arrow.Texts(cells)):
        try:
            found.append(inference.infer("x", form, kind and columns.REGISTRY[kind], marks))
        except errors.DataError as error:
            refusals.append(str(error))
    assert len(set(refusals)) < 2
    assert len(found) in (0, 2)
    if found and (one := found[0]) and (other := found[1]):
        assert (one.column, one.notes) == (other.column, other.notes)
        np.testing.assert_array_equal(one.array, other.array)
    elif found:
        assert found == [None, None]


def test_a_lone_surrogate_is_text_like_any_other() -> None:
    found = inference.infer("x", ["\ud800", "b", "\ud800"])
    assert found is not None
    assert found.column.categories == ("b", "\ud800")


def test_markers_that_were_seen_are_kept_with_the_column() -> None:
    found = inference.infer("x", ["1", "?", "n.d.", "NA"], markers=("n.d.",))
    assert found is not None
    assert found.column.nullable
    assert set(found.column.missing) == {"?", "n.d.", "NA"}
    assert np.isnan(found.array).sum() == 3


@pytest.mark.parametrize(
    "raw",
    [["1.5", "-999.00", "2", "-999"], np.array([1.5, -999, 2, -999]), [1.5, -999, 2, -999.0]],
)
def test_a_number_that_stands_for_a_gap_is_one_however_a_file_holds_it(raw: schema.Raw) -> None:
    found = inference.infer("x", raw, markers=("-999",))
    assert found is not None
    assert found.column.nullable
    assert np.isnan(found.array).tolist() == [False, True, False, True]
    commas = inference.infer("x", ["0,5", "1,5", "2,5"] * 100 + ["1.5"])
    assert commas is not None
    assert np.isnan(commas.array).sum() == 1, "1.5 is no number here, and 1,5 stays one"
    (sent,) = schema.parse_column(found.column, [-999])
    assert np.isnan(sent), "a request's number too"


def test_a_few_texts_among_many_numbers_are_missing_with_a_note() -> None:
    found = inference.infer("x", [str(n) for n in range(300)] + ["oops"])
    assert found is not None
    assert found.column.type == "numeric"
    assert found.notes == ("x: 'oops' among numbers is taken as missing",)
    assert kind_of([str(n) for n in range(30)] + ["oops"]) != "numeric"


def test_marks_for_a_gap_in_surveys_and_spreadsheets_leave_numbers_numeric() -> None:
    found = inference.infer("hours", ["38", "40.5", "n.a.", "#DIV/0!", "(null)", "\\N"] * 5)
    assert found is not None
    assert found.column.type == "numeric"
    assert np.isnan(found.array).sum() == 20


def test_a_table_has_one_way_to_write_decimals() -> None:
    count = 40
    written: dict[str, list[str | None]] = {
        "rate": [f"{n % 9},5" for n in range(count)],
        "distance": [f"{n % 9},{n + 100}" for n in range(count)],  # alone: thousands
        "people": ["987", "1.234", "12.345", "456"] * (count // 4),
        "y": [f"{n}.100,50 €" for n in range(1, count + 1)],
    }
    texts: tables.Table = {name: arrow.Texts.from_list(raw) for name, raw in written.items()}
    learned = learn(texts)
    assert learned.columns["distance"][:2].tolist() == [0.1, 1.101]
    assert learned.columns["people"][:4].tolist() == [987, 1234, 12345, 456]
    assert learned.targets[0] == 1100.5
    assert any("'1.234' is read as 1234, since other columns" in one for one in learned.notes)
    texts["price"] = arrow.Texts.from_list([f"{n}.25" for n in range(count)])
    assert learn(texts).columns["people"][1] == 1.234, "where columns differ, each is by itself"
    assert learn(texts, drop=["price"]).columns["people"][1] == 1234
    days = {"price": spec.FeatureOptions(type="categorical")}
    assert learn(texts, days).columns["people"][1] == 1234, "31.12 may be a day"


def test_a_date_that_may_be_read_in_two_ways_is_none_and_is_noted() -> None:
    found = inference.infer("x", ["01/02/2024", "03/04/2024"])
    assert found is not None
    assert found.column.type == "categorical"
    assert "day or month first" in found.notes[0]


def test_pictures_in_base64_are_images_of_their_most_frequent_size() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((256, 512, 3), np.uint8)).save(buffer, "PNG")
    found = inference.infer("x", [base64.b64encode(buffer.getvalue()).decode()])
    assert found is not None
    assert found.column.image_shape == (3, 64, 128)


def test_a_few_pictures_that_do_not_decode_are_missing_and_many_are_refused() -> None:
    sound, torn = pictures.File(encoded()), pictures.File(encoded()[:30])
    torn.name = "pics/torn.png"
    found = inference.infer("x", [*[sound] * 39, torn])
    assert found is not None
    assert found.column.nullable
    assert columns.missing_rows(found.array).tolist() == [False] * 39 + [True]
    assert found.notes == ("x: 1 of 40 cannot be read and are taken as missing: pics/torn.png",)
    with pytest.raises(errors.DataError, match=r"x: .* in all rows but 5 %, but 3 of 40 have none"):
        inference.infer("x", [*[sound] * 37, *[torn] * 3])
    with pytest.raises(errors.DataError, match=r"x: a PNG or JPEG is needed, but pics/torn\.png"):
        inference.infer("x", [torn] * 3)


def encoded() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_column_without_a_value_is_none() -> None:
    assert inference.infer("x", ["", "?", "NA"]) is None
    assert inference.infer("x", np.array([np.nan, np.nan])) is None
    assert inference.infer("x", [None]) is None


@pytest.mark.parametrize(
    ("raw", "kind"),
    [(["1", "2"], "categorical"), ([0, 1], "boolean"), (["a b", "c"], "text"), (["5"], "numeric")],
)
def test_a_given_type_goes_before_the_inferred(raw: schema.Raw, kind: Any) -> None:
    found = inference.infer("x", raw, columns.REGISTRY[kind])
    assert found is not None
    assert found.column.type == kind


@pytest.mark.parametrize("kind", ["numeric", "boolean", "datetime", "image"])
def test_a_given_type_that_the_values_are_not_is_an_error(kind: Any) -> None:
    with pytest.raises(errors.DataError, match=r"x: .* is needed, but (got|value 1 is) 'red'"):
        inference.infer("x", ["red", "green", "blue"], columns.REGISTRY[kind])


def test_columns_that_only_tell_rows_apart_are_left_out_with_a_note() -> None:
    count = 40
    table: tables.Table = {
        "row": np.arange(count),
        "counted": np.arange(100, 100 + count),
        "customer_id": np.random.default_rng(0).permutation(count),
        "token": [str(uuid.UUID(int=n)) for n in range(count)],
        "price": np.linspace(1, 2, count),
        "y": ["a", "b"] * (count // 2),
    }
    learned = learn(table)
    assert [column.name for column in learned.schema.columns] == ["price"]
    assert sum("only identifies rows" in note for note in learned.notes) == 4


def test_an_identifier_that_repeats_is_a_category_and_the_only_column_stays() -> None:
    table: tables.Table = {"shop_id": np.array([1, 2, 3, 1] * 10), "y": ["a", "b"] * 20}
    assert learn(table).schema.columns[0].type == "categorical"
    table = {"n": np.arange(40), "y": np.linspace(0, 1, 40)}
    assert learn(table).schema.columns[0].type == "numeric"


@pytest.mark.parametrize(
    ("raw", "task", "classes"),
    [
        (["b", "a", "b", "a"], "binary", ("a", "b")),
        (["10", "9", "2"] * 5, "multiclass", ("2", "9", "10")),
        (["no", "yes", "no", "yes"], "binary", ("no", "yes")),
        (np.array([True, False]), "binary", ("false", "true")),
        (np.array([0.0, 1.0, 1.0]), "binary", ("0", "1")),
        (np.arange(100) % 3, "multiclass", ("0", "1", "2")),
        (np.arange(100), "regression", ()),
        (np.linspace(0, 1, 50), "regression", ()),
        (["1,5", "2,25", "3,0"], "regression", ()),
    ],
)
def test_the_target_decides_the_task(raw: schema.Raw, task: str, classes: tuple[str, ...]) -> None:
    learned = learn({"x": np.arange(len(raw)) % 7, "y": raw})
    assert learned.schema.target.task == task
    assert learned.schema.target.classes == classes


def test_the_positive_class_is_last_when_it_is_given() -> None:
    table: tables.Table = {"x": [1, 2, 1, 2], "y": ["a", "b", "a", "b"]}
    assert learn(table, positive="a").schema.target.classes == ("b", "a")
    with pytest.raises(errors.DataError, match=r"data.positive: .* got 'bb'; did you mean 'b'"):
        learn(table, positive="bb")
    with pytest.raises(errors.DataError, match="one of two classes, but y has 3"):
        learn({"x": [1, 2, 3], "y": ["a", "b", "c"]}, positive="a")


def test_the_type_given_to_the_target_decides_the_task() -> None:
    table: tables.Table = {"x": np.arange(30) % 7, "y": np.arange(30) % 3}
    learned = learn(table, {"y": spec.FeatureOptions(type="numeric")})
    assert learned.schema.target.task == "regression"
    table["y"] = np.arange(30)
    learned = learn(table, {"y": spec.FeatureOptions(type="categorical")})
    assert len(learned.schema.target.classes) == 30


def test_rows_without_a_target_are_left_out_with_a_note() -> None:
    table: tables.Table = {"x": np.arange(6.0), "y": ["a", "", "b", "?", None, "a"]}
    learned = learn(table)
    assert learned.rows.tolist() == [1, 3, 6]
    assert learned.columns["x"].tolist() == [0, 2, 5]
    assert learned.notes == ("y: 3 of 6 rows have none and are left out",)


def test_columns_without_a_value_are_left_out_with_a_note() -> None:
    learned = learn({"x": [1, 2, 3], "z": ["", "?", None], "y": ["a", "b", "a"]})
    assert [column.name for column in learned.schema.columns] == ["x"]
    assert learned.notes == ("z: all values are missing, so it is left out",)


def test_columns_that_part_the_rows_are_no_inputs_unless_features_name_them() -> None:
    table: tables.Table = {"x": [1, 2, 1], "who": ["u", "v", "u"], "y": ["a", "b", "a"]}
    more: dict[str, Any] = {"split": spec.Split(group="who"), "drop": ("who",)}
    assert [column.name for column in learn(table, **more).schema.columns] == ["x"]
    named = {"who": spec.FeatureOptions(type="categorical")}
    more = {"split": spec.Split(group="who")}
    assert len(learn(table, named, **more).schema.columns) == 2


@pytest.mark.parametrize(
    ("table", "more", "message"),
    [
        ({"x": [1], "Y": [2]}, {}, "data.target: a column of rows.csv is needed, but got 'y'"),
        ({"39": [1], "<=50K": [2]}, {}, "its columns are 39, <=50K; if line 1 holds values, put a"),
        ({"1  2": [1]}, {}, "its only column is '1  2': set data.delimiter to the separator"),
        ({"x": [1], "y": ["a"]}, {"drop": ("xx",)}, "data.drop: .* got 'xx'; did you mean 'x'"),
        (
            {"x": [1, 2], "y": ["a", "a"]},
            {},
            "y: at least two classes are needed, but got only 'a'",
        ),
        ({"x": [1, 2], "y": ["?", ""]}, {}, "y: at least one value is needed, but all are missing"),
        ({"x": ["?", ""], "y": ["a", "b"]}, {}, "an input column is needed, but there is none"),
        ({"y": ["a", "b"]}, {}, "an input column is needed, but there is none"),
        (
            {"x": [{"a": 1}] * 2, "y": ["a", "b"]},
            {},
            r"x: text is needed, but got \{'a': 1\}; `data: \{drop: \[x\]\}` leaves it out",
        ),
        (
            {"x": [np.array(["a", "b"])] * 2, "y": ["a", "b"]},
            {},
            r"x: a picture \(rows of numbers\) is needed, but value 1 is \['a', 'b'\]; `data:",
        ),
        (
            {"x": [None, b"1"], "y": ["a", "b"]},
            {},
            "a PNG or JPEG is needed, but value 2 is b'1'",
        ),
        ({"x": [1], "y": ["2024-01-01"]}, {}, "y: the target is a number or a class, but got date"),
    ],
)
def test_tables_that_cannot_be_learned_from_are_refused(
    table: tables.Table, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.DataError, match=message):
        learn(table, **more)


def test_an_infinite_quantity_cannot_be_learned() -> None:
    with pytest.raises(errors.DataError, match=r"y: numbers up to .* 1 of 3 are larger"):
        learn({"x": np.arange(3), "y": np.array([0.5, np.inf, 1.5])})


def test_a_constant_quantity_cannot_be_learned() -> None:
    with pytest.raises(errors.DataError, match=r"y: different values are needed, but all are 1.5"):
        learn({"x": np.arange(3), "y": np.full(3, 1.5)}, {"y": spec.FeatureOptions(type="numeric")})
