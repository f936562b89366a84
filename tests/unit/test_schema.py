"""Raw values to canonical columns, the same from a table and from JSON."""

import base64
import datetime
import io
import json
import math
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from eagleray import errors
from eagleray.learn import columns, schema, tasks
from eagleray.learn.columns import arrow
from eagleray.tabular import inference

LAW = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
TARGET = schema.Target(name="y", task="regression")

WORDS = st.text(max_size=8) | st.sampled_from(["?", "NA", "none", "", " x ", "3.0", "1,234", "nan"])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "numeric": st.floats(allow_infinity=False) | st.integers(-(10**20), 10**20),
    "boolean": st.booleans(),
    "datetime": st.datetimes(datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 30)),
    "categorical": WORDS | st.integers() | st.booleans(),
    "text": WORDS,
    "image": st.lists(
        st.lists(st.integers(0, 255), min_size=3, max_size=3), min_size=2, max_size=2
    ),
}


def column(kind: str, **more: Any) -> schema.Schema:
    one = schema.Column(name="x", type=kind, **more)
    return schema.Schema(columns=(one,), target=TARGET)


def parsed(kind: str, raw: schema.Raw, **more: Any) -> np.ndarray:
    return schema.parse(column(kind, **more), {"x": raw})["x"]


def as_json(values: list[Any]) -> list[Any]:
    """Through JSON and back, as a client would write these values."""
    plain = [None if value != value else value for value in values]
    return json.loads(json.dumps(plain, default=lambda value: value.isoformat()))  # type: ignore[no-any-return]


def same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype == object:
        return bool(one.tolist() == other.tolist())
    signs = (np.copysign(1, array[~np.isnan(array)]) for array in (one, other))
    equal = np.array_equal(one, other, equal_nan=True) and np.array_equal(*signs)
    return bool(equal and one.dtype == other.dtype)


@pytest.mark.parametrize("kind", list(VALUES))
@given(data=st.data())
@LAW
def test_values_of_a_table_mean_the_same_as_json(kind: str, data: st.DataObject) -> None:
    raw = data.draw(st.lists(st.none() | VALUES[kind], min_size=1, max_size=12))
    found = inference.infer("x", raw, columns.REGISTRY[kind])
    if found is None:
        return
    known = schema.Schema(columns=(found.column,), target=TARGET)
    assert same(schema.parse(known, {"x": as_json(raw)})["x"], found.array)
    kept = json.loads(json.dumps(schema.to_json(known, {"x": found.array}), allow_nan=False))
    assert same(schema.parse(known, kept)["x"], found.array)


WRITTEN = (
    st.sampled_from(["", " ", "?", "NA", "none", "nan", "inf", "-999", "-999.0", "1e400", "nan(1)"])
    | st.sampled_from(
        ["007", "-0", "+7", ".5", "5.", "1,234", "1.234,5", "$5", "\u0663", "yes", "No"]
    )
    | st.sampled_from(["2024-02-30", "0000-01-01", "2024-01-01T10:00:00Z", "9999-12-31 23:59"])
    | st.floats().map(str)
    | st.integers().map(str)
    | st.decimals(allow_nan=False, allow_infinity=False, places=2).map(
        lambda d: f"{d:f}".replace(".", ",")
    )
    | st.datetimes().map(lambda time: time.isoformat(" "))
    | st.dates().map(str)
    | st.text(max_size=3)
)


@given(
    raw=st.lists(st.none() | WRITTEN, max_size=20),
    cut=st.integers(0, 20),
    kind=st.sampled_from(["numeric", "datetime", "boolean", "categorical", "text"]),
    comma=st.booleans(),
    missing=st.lists(WRITTEN, max_size=2).map(tuple),
)
@settings(max_examples=400)
def test_texts_of_a_file_mean_the_same_as_texts_of_json(
    raw: list[str | None], cut: int, kind: str, comma: bool, missing: tuple[str, ...]
) -> None:
    more: dict[str, Any] = {"missing": missing, "decimal_comma": comma}
    good = [text for text in raw if readable(kind, text, more)]
    cells = pa.chunked_array([pa.array(part, pa.string()) for part in (good[:cut], good[cut:])])
    assert same(parsed(kind, arrow.Texts(cells), **more), parsed(kind, good, **more))
    if len(good) < len(raw):
        cells = pa.chunked_array([pa.array(raw, pa.string())])
        assert refusal(kind, arrow.Texts(cells), more) == refusal(kind, raw, more)


def readable(kind: str, text: str | None, more: dict[str, Any]) -> bool:
    return refusal(kind, [text], more) is None


def refusal(kind: str, raw: schema.Raw, more: dict[str, Any]) -> str | None:
    try:
        parsed(kind, raw, **more)
    except errors.DataError as error:
        return str(error)
    return None


@given(
    raw=st.lists(
        st.none()
        | st.booleans()
        | st.floats()
        | st.integers()
        | st.text()
        | st.lists(st.floats())
        | st.dictionaries(st.text(), st.integers())
        | st.binary()
        | st.dates(),
        max_size=6,
    ),
    kind=st.sampled_from(list(VALUES)),
)
@LAW
def test_odd_values_are_missing_or_refused_by_name_and_never_crash(
    raw: list[Any], kind: str
) -> None:
    more = {"image_shape": (1, 2, 2)} if kind == "image" else {}
    refused, array = "", np.zeros(len(raw))
    try:
        array = parsed(kind, raw, **more)
    except errors.DataError as error:
        refused = str(error)
    assert not refused or refused.startswith("x: ")
    assert len(array) == len(raw)
    if kind != "image" and array.dtype != object:
        assert not np.isinf(array).any()


def test_markers_are_missing_where_numbers_are_expected() -> None:
    array = parsed("numeric", ["1", " ? ", "N/A", "none", "", None, "-", math.nan, "2"])
    assert np.isnan(array[1:8]).all()
    assert array[[0, 8]].tolist() == [1.0, 2.0]


def test_a_category_may_be_called_none_and_text_a_question_mark() -> None:
    assert parsed("categorical", ["none", "?", "a"]).tolist() == ["none", None, "a"]
    assert parsed("text", ["none", "?", "  "]).tolist() == ["none", "?", None]


def test_markers_of_the_user_hold_in_every_column() -> None:
    assert parsed("categorical", ["n.d.", "a"], missing=("N.D.",)).tolist() == [None, "a"]
    assert np.isnan(parsed("numeric", ["n.d.", 1], missing=("n.d.",))[0])


def test_infinite_and_too_large_numbers_become_the_largest() -> None:
    largest = sys.float_info.max
    array = parsed("numeric", [math.inf, -math.inf, 10**400, "1e999"])
    assert array.tolist() == [largest, -largest, largest, largest]
    assert parsed("numeric", np.array([np.inf])).tolist() == [largest]


def test_a_value_of_another_kind_is_refused_with_column_and_value() -> None:
    with pytest.raises(errors.DataError, match="x: a number is needed, but got 'old'"):
        parsed("numeric", [1, "old"])
    with pytest.raises(errors.DataError, match=r"x: text is needed, but got \{'a': 1\}"):
        parsed("text", [{"a": 1}])


def test_a_column_that_is_absent_is_refused_by_name() -> None:
    with pytest.raises(errors.DataError, match="x: every input column is needed"):
        schema.parse(column("numeric"), {"y": [1]})


def test_times_of_arrays_and_of_texts_are_the_same_also_before_1970() -> None:
    texts = ["1969-12-31T23:59:59.999", "2024-02-29T12:00:00", None]
    times = np.array(["1969-12-31T23:59:59.999999", "2024-02-29T12:00:00", "NaT"], "datetime64[ns]")
    assert same(parsed("datetime", texts), parsed("datetime", times))


def test_dates_are_read_as_the_training_file_wrote_them_or_in_iso() -> None:
    array = parsed("datetime", ["31.12.2023", "2023-12-31"], written="%d.%m.%Y")
    assert array[0] == array[1]


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_pictures_are_the_same_nested_in_bytes_and_in_base64() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    png = encoded(pixels)
    text = base64.b64encode(png).decode()
    forms = [pixels.tolist(), png, text, f"data:image/png;base64,{text}"]
    array = parsed("image", forms, image_shape=(3, 2, 4))
    assert (array == array[0]).all()
    assert (array[0] == pixels.transpose(2, 0, 1)).all()


def test_pictures_take_the_size_and_the_channels_of_training() -> None:
    grey, colour = np.full((8, 8), 100, np.uint8), np.full((4, 4, 3), 100, np.uint8)
    array = parsed("image", [encoded(grey), encoded(colour, "JPEG"), None], image_shape=(3, 4, 4))
    assert array.shape == (3, 3, 4, 4)
    assert np.abs(array[:2] - 100).max() <= 1
    assert np.isnan(array[2]).all()


@pytest.mark.parametrize(
    "odd", ["not base64!", "aGVsbG8=", b"GIF89a", [[1, None]], [[1, 2], [3]], [1, 2], [[1e300]], []]
)
def test_what_is_no_picture_is_refused(odd: object) -> None:
    with pytest.raises(errors.DataError, match="x: a picture of the training pictures' shape"):
        parsed("image", [odd], image_shape=(1, 2, 2))


def test_labels_are_class_indices_or_float32_values() -> None:
    target = schema.Target(name="y", task="binary", classes=("no", "yes"))
    labels = tasks.of(target).encode(["yes", "no", " yes "])
    assert labels.dtype == np.int64
    assert labels.tolist() == [1, 0, 1]
    numbers = tasks.of(TARGET).encode(["1.5", 2, 1e300])
    assert numbers.dtype == np.float32
    assert np.isfinite(numbers).all()
    with pytest.raises(errors.DataError, match="but got 'maybe'"):
        tasks.of(target).encode(["maybe"])


def test_a_schema_comes_back_from_json() -> None:
    known = column("categorical", categories=("a", "b"), missing=("?",), nullable=True)
    assert schema.Schema.model_validate_json(known.model_dump_json()) == known


def test_whole_numbers_are_written_without_a_point_and_zeros_keep_their_sign() -> None:
    known = schema.Schema(
        columns=(schema.Column(name="x", type="numeric"),),
        target=schema.Target(name="y", task="regression"),
    )
    written = schema.to_json(known, {"x": np.array([0.0, -0.0, 2.0, 0.5])})["x"]
    assert list(map(str, written)) == ["0", "-0.0", "2", "0.5"]
