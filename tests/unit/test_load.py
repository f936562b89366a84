"""Tables from wherever they come, as they are."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eagleray import errors, schema, spec
from ray_jobs.data import load

FRAMES = """
import pandas as pd

def frame():
    return pd.DataFrame({"x": [1, 2], "y": ["a", "b"]}, index=[7, 7])

def rows():
    return [{"x": 1}]

def fails():
    raise KeyError("gone")
"""


def read(source: str, base: Path, **more: Any) -> pd.DataFrame:
    return load.read(spec.Data(source=source, target="y", **more), base)


def table(source: str, base: Path) -> dict[str, schema.Raw]:
    return load.table(read(source, base))


def write(base: Path, name: str, content: str | bytes) -> str:
    (base / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def test_csv_comes_as_text_untouched(tmp_path: Path) -> None:
    name = write(tmp_path, "rows.csv", 'a, b ,y\n1,NA,007\n,"two\nlines, ""quoted""", x \n')
    assert table(name, tmp_path) == {
        "a": ["1", ""],
        "b": ["NA", 'two\nlines, "quoted"'],
        "y": ["007", " x "],
    }


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters_and_a_byte_order_mark_are_understood(
    tmp_path: Path, delimiter: str
) -> None:
    content = "\ufeffa+b+y\n1,5+2+3\n".replace("+", delimiter)
    name = write(tmp_path, "rows.csv", content)
    assert table(name, tmp_path) == {"a": ["1,5"], "b": ["2"], "y": ["3"]}


def test_a_column_without_a_name_gets_one(tmp_path: Path) -> None:
    name = write(tmp_path, "rows.csv", ",y\n0,a\n")
    assert list(table(name, tmp_path)) == ["Unnamed: 0", "y"]


def test_json_lines_may_leave_out_fields_and_hold_lists(tmp_path: Path) -> None:
    name = write(tmp_path, "rows.jsonl", '{"a": 1, "y": "x"}\n\n{"y": null, "p": [[1, 2]]}\n')
    assert table(name, tmp_path) == {
        "a": [1, None],
        "y": ["x", None],
        "p": [None, [[1, 2]]],
    }


def test_parquet_gives_pythons_own_values(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "n": [1.5, None],
            "i": pd.array([1, None], dtype="Int64"),
            "t": pd.Series(["2024-01-01T01:00:00+01:00", None], dtype="datetime64[ns, UTC]"),
            "d": [datetime.date(2024, 1, 1), None],
            "e": [Decimal("1.5"), None],
            "c": pd.Categorical(["u", None]),
            "p": [[[1, 2], [3, 4]], None],
            "y": ["a", None],
        }
    )
    frame.to_parquet(tmp_path / "rows.parquet")
    raw = table("rows.parquet", tmp_path)
    assert np.isnan(raw["n"][1])
    assert raw["t"][0] == np.datetime64("2024-01-01")
    assert [raw[name][0] for name in "dec"] == [datetime.date(2024, 1, 1), Decimal("1.5"), "u"]
    assert all(raw[name][1] is None for name in "decpy")
    image = schema.Column(name="p", type="image", image_shape=(1, 2, 2))
    assert schema.parse_column(image, raw["p"])[0].ravel().tolist() == [1, 2, 3, 4]


def test_a_file_is_found_beside_the_experiment_and_then_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, working = tmp_path / "beside", tmp_path / "working"
    beside.mkdir()
    working.mkdir()
    monkeypatch.chdir(working)
    write(working, "rows.csv", "y\nworking\n")
    assert table("rows.csv", beside)["y"] == ["working"]
    write(beside, "rows.csv", "y\nbeside\n")
    assert table("rows.csv", beside)["y"] == ["beside"]


@pytest.mark.parametrize("name", load.BUNDLED)
def test_the_data_sets_of_scikit_learn_are_there(name: str, tmp_path: Path) -> None:
    frame = read(f"dataset:{name}", tmp_path)
    assert "target" in frame.columns
    assert len(frame) > 100


def test_digits_are_pictures_with_names_of_digits(tmp_path: Path) -> None:
    raw = table("dataset:digits", tmp_path)
    assert list(raw) == ["image", "target"]
    assert np.shape(raw["image"][0]) == (8, 8)
    assert raw["target"][:3] == ["0", "1", "2"]


def test_a_function_of_the_users_gives_a_frame(tmp_path: Path) -> None:
    write(tmp_path, "frames.py", FRAMES)
    assert table("frames:frame", tmp_path)["y"] == ["a", "b"]
    with pytest.raises(
        errors.CodeError, match=r"frames:rows: must give a pandas.DataFrame, but gave"
    ):
        read("frames:rows", tmp_path)
    with pytest.raises(
        errors.CodeError,
        match=r"^frames.py:\d+: frames:fails: must give a frame, but raised KeyError",
    ):
        read("frames:fails", tmp_path)


def test_paths_of_pictures_are_replaced_by_what_the_files_hold(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 9, np.uint8)).save(tmp_path / "nine.png")
    name = write(tmp_path, "rows.csv", "photo,y\nnine.png,a\n,b\n")
    photo = table(name, tmp_path)["photo"]
    assert isinstance(photo[0], bytes)
    assert photo[1] is None
    name = write(tmp_path, "rows.csv", "photo,y\nnine.png,a\nten.png,b\n")
    with pytest.raises(errors.DataError, match=r"photo: a picture's file .* no 'ten.png'"):
        read(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", "", "a table is needed, but the file is empty"),
        ("header.csv", "a,y\n", "at least one row is needed, but got none"),
        ("blank.csv", "\n\n", "a readable table is needed, but"),
        ("ragged.csv", "a,y\n1,2\n1,2,3\n", "Expected 2 columns, got 3"),
        ("latin.csv", "a,y\n1,é\n".encode("latin-1"), "a readable table is needed, but"),
        ("binary.csv", b"\x89PNG\0\0", "a readable table is needed, but"),
        ("zeros.csv", b"a\0b,y\n", "NUL bytes: this is no text"),
        ("twice.csv", "a,a,y\n1,2,3\n", "the column name 'a' stands twice"),
        ("spaces.csv", "a, a,y\n1,2,3\n", "the column name 'a' stands twice"),
        ("rows.parquet", "no parquet", "a readable table is needed, but"),
        ("rows.jsonl", '{"y": 1}\n{"y": \n', "line 2 is not JSON"),
        ("list.jsonl", "[1]\n", "line 1 is no object"),
        ("rows.xlsx", "x", "must end in one of .csv, .tsv"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(errors.DataError, match=message) as raised:
        read(write(tmp_path, name, content), tmp_path)
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path, "rows.csv", "y\n1\n")
    with pytest.raises(
        errors.DataError, match=r"there is no 'row.csv' .*; did you mean 'rows.csv'"
    ):
        read("row.csv", tmp_path)
    with pytest.raises(errors.DataError, match="got 'digit'; did you mean 'digits'"):
        read("dataset:digit", tmp_path)
    with pytest.raises(errors.DataError, match="s3://bucket/key is needed, but got 's3://bucket'"):
        read("s3://bucket", tmp_path)


def test_the_schema_alone_can_be_asked_for(tmp_path: Path) -> None:
    name = write(tmp_path, "rows.csv", "n,c,y\n1,u,a\n2,v,b\n")
    data = spec.Data(source=name, target="y")
    known = load.infer(load.read(data, tmp_path), data, {})
    assert [column.type for column in known.columns] == ["numeric", "categorical"]
    assert json.loads(known.model_dump_json())["target"]["classes"] == ["a", "b"]
