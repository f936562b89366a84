"""Tables from wherever they come, as they are."""

import bz2
import datetime
import gzip
import lzma
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from eagleray import errors, spec
from eagleray.learn import schema
from eagleray.learn.columns.arrow import Texts
from eagleray.tabular import delimited, load

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


def table(source: str, base: Path, **more: Any) -> dict[str, Any]:
    raw = load.table(read(source, base, **more))
    return {name: list(one) if isinstance(one, Texts) else one for name, one in raw.items()}


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


ACCENTS = "name,y\ncafé,a\nnaïve,b\n"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-8"])
def test_text_is_read_in_the_encoding_that_the_user_says(tmp_path: Path, encoding: str) -> None:
    name = write(tmp_path, "rows.csv", ACCENTS.encode(encoding))
    assert table(name, tmp_path, encoding=encoding)["name"] == ["café", "naïve"]


@pytest.mark.parametrize(("given", "mark"), [("utf-8", "utf-8-sig"), ("UTF8", "utf-8-sig")])
def test_a_byte_order_mark_is_no_part_of_the_first_name(
    tmp_path: Path, given: str, mark: str
) -> None:
    name = write(tmp_path, "rows.csv", ACCENTS.encode(mark))
    assert list(table(name, tmp_path, encoding=given)) == ["name", "y"]
    content = ("\ufeff" + ACCENTS).encode("utf-16-le")
    name = write(tmp_path, "rows.csv", content)
    assert list(table(name, tmp_path, encoding="utf-16-le")) == ["name", "y"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, encoding: str) -> None:
    name = write(tmp_path, "rows.csv", ACCENTS.encode(encoding))
    assert table(name, tmp_path) == {"name": ["café", "naïve"], "y": ["a", "b"]}
    name = write(tmp_path, "rows.jsonl", '{"y": "é"}'.encode(encoding))
    assert table(name, tmp_path) == {"y": ["é"]}


@pytest.mark.parametrize("count", [0, 60_000])  # the sniffed head, and far behind it
def test_a_byte_of_another_encoding_is_named_with_its_line_and_the_fix(
    tmp_path: Path, count: int
) -> None:
    rows = b"name,y\n" + b"a long enough name,a\n" * count + b"caf\xe9,b\n"
    with pytest.raises(errors.DataError) as raised:
        read(write(tmp_path, "rows.csv", rows), tmp_path)
    assert str(raised.value) == (
        f"{tmp_path}/rows.csv:{count + 2}: text must be in utf-8, but got the byte 0xe9;"
        " set data.encoding, such as latin-1, which reads 'café,b'"
    )


def test_utf_16_without_a_mark_is_refused_with_the_fix(tmp_path: Path) -> None:
    name = write(tmp_path, "rows.csv", "a,y\n1,2\n".encode("utf-16-le"))
    with pytest.raises(errors.DataError, match=r"set data.encoding: utf-16-le then"):
        read(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv.gz", gzip.compress(b"a,y\n1,2\n", mtime=0)),
        ("ROWS.CSV.GZ", gzip.compress(b"a,y\n1,2\n", mtime=0)),
        ("rows.data.bz2", bz2.compress(b"a,y\n1,2\n")),
        ("rows.tsv.xz", lzma.compress(b"a\ty\n1\t2\n")),
        ("rows.jsonl.gz", gzip.compress(b'{"a": "1", "y": "2"}', mtime=0)),
        ("rows.data", b"a;y\n1;2\n"),
    ],
)
def test_compressed_files_and_other_suffixes_are_read(
    tmp_path: Path, name: str, content: bytes
) -> None:
    assert table(write(tmp_path, name, content), tmp_path) == {"a": ["1"], "y": ["2"]}


def test_a_zip_file_holds_one_table(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        archive.writestr("deep/rows.csv", "a,y\n1,2\n")
        archive.writestr("__MACOSX/deep/._rows.csv", "x")
    assert table("rows.zip", tmp_path) == {"a": ["1"], "y": ["2"]}
    with zipfile.ZipFile(tmp_path / "rows.zip", "a") as archive:
        archive.writestr("README", "x")
    with pytest.raises(errors.DataError, match=r"one table, but holds deep/rows.csv, REA"):
        read("rows.zip", tmp_path)


def test_a_delimiter_may_be_said(tmp_path: Path) -> None:
    name = write(tmp_path, "rows.csv", "a:y,z\n1:2,3\n")
    assert table(name, tmp_path, delimiter=":") == {"a": ["1"], "y,z": ["2,3"]}


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("rows.parquet", {"encoding": "latin-1"}),
        ("rows.jsonl", {"delimiter": ";"}),
        ("dataset:iris", {"delimiter": ";"}),
    ],
)
def test_options_of_text_are_refused_where_they_would_do_nothing(
    tmp_path: Path, name: str, option: dict[str, str]
) -> None:
    write(tmp_path, "rows.jsonl", '{"y": 1}')
    pd.DataFrame({"y": [1]}).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(errors.DataError, match=f"data.{next(iter(option))}: "):
        read(name, tmp_path, **option)


@pytest.mark.parametrize(
    "content",
    [
        "# made by hand\n\n# in 2024, maybe\na,y\n1,2\n# no row\n3,4\n",
        "#made by hand\na,y\n1,2\n3,4\n#\n",
        "# one, two\na,y\n1,2\n3,4\n",
    ],
)
def test_lines_of_comment_are_left_out(tmp_path: Path, content: str) -> None:
    assert table(write(tmp_path, "rows.csv", content), tmp_path) == {
        "a": ["1", "3"],
        "y": ["2", "4"],
    }


def test_a_header_may_start_like_a_comment(tmp_path: Path) -> None:
    name = write(tmp_path, "rows.tsv", "## version 4\n#a\ty\n1\t2\n")
    assert table(name, tmp_path) == {"#a": ["1"], "y": ["2"]}


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (
            "1,2\n1,2,3\n",
            "3: a row needs as many cells as the header, 2, but got 3: '1,2,3'; quote",
        ),
        ("1,2\n7\n1,2\n8\n", r"3: .* but got 1: '7' \(2 such lines, also 5\); fill the row"),
        ('"two\nlines",2\n\n1,2,3\n', "5: .* but got 3: '1,2,3'"),
        ('1,2\n"open,2\n3,4\n', "3: .* but got 1: 'open,2"),
    ],
)
def test_rows_with_more_or_fewer_cells_are_named_by_line_with_the_fix(
    tmp_path: Path, rows: str, fault: str
) -> None:
    with pytest.raises(errors.DataError, match=f"rows.csv:{fault}") as raised:
        read(write(tmp_path, "rows.csv", "a,y\n" + rows), tmp_path)
    assert "data.delimiter" in str(raised.value)


def test_a_file_without_a_header_is_told_so(tmp_path: Path) -> None:
    name = write(tmp_path, "iris.data", "5.1,3.5,3.5,Iris-setosa\n4.9,3.0,1.4,Iris-setosa\n")
    with pytest.raises(errors.DataError, match=r"got '3.5' twice; if line 1 holds values, put"):
        read(name, tmp_path)


def test_a_cell_may_be_larger_than_what_is_parsed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "BLOCK", 100)
    cell = "line\n" * 200
    name = write(tmp_path, "rows.csv", f'a,y\n1,2\n"{cell}",4\n' + "5,6\n" * 100)
    found = table(name, tmp_path)
    assert found["a"][:3] == ["1", cell, "5"]
    assert len(found["y"]) == 102


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


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_texts_of_parquet_stay_in_arrow(tmp_path: Path, kind: pa.DataType) -> None:
    cells = pa.array(["1.5", "-1", None, "?"], kind)
    pyarrow.parquet.write_table(pa.table({"y": cells}), tmp_path / "rows.parquet")
    raw = load.table(read("rows.parquet", tmp_path))["y"]
    assert isinstance(raw, Texts)
    assert list(raw) == ["1.5", "-1", None, "?"]
    number = schema.Column(name="y", type="numeric", missing=("-1",))
    parsed = schema.parse_column(number, raw)
    np.testing.assert_array_equal(parsed, [1.5, np.nan, np.nan, np.nan])


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
        ("binary.csv", b"\x89PNG\0\0", "text must be in utf-8, but got the byte 0x89"),
        ("zeros.csv", b"a\0b,y\n", "NUL bytes: this is no text"),
        ("end.csv", b"a,y\n1,caf\xe9", r"end.csv:2: text must be in utf-8, but got the byte 0xe9"),
        ("quote.csv", '"' + "a" * 200_000, "a readable table is needed, but field larger"),
        ("twice.csv", "a,a,y\n1,2,3\n", "column names must be different, but got 'a' twice"),
        ("spaces.csv", "a, a,y\n1,2,3\n", "column names must be different, but got 'a' twice"),
        ("rows.parquet", "no parquet", "a readable table is needed, but"),
        ("rows.jsonl", '{"y": 1}\n{"y": \n', r"rows.jsonl:2: JSON is needed, but"),
        ("list.jsonl", "[1]\n", r"list.jsonl:1: an object is needed, but got \[1\]"),
        ("rows.dat", "x", "must end in one of .csv, .tsv"),
        ("rows.XLSX", "x", "a spreadsheet must be saved as CSV in UTF-8, but got '.xlsx'"),
        ("rows.csv.gz", "a,y\n1,2\n", "a readable table is needed, but Not a gzipped file"),
        ("rows.zip", "a,y\n1,2\n", "a readable table is needed, but File is not a zip file"),
        ("rows.gz", gzip.compress(b"a,y\n1,2\n", mtime=0), "must end in one of .csv, .tsv"),
        (
            "cut.csv.gz",
            gzip.compress(b"a,y\n1,2\n", mtime=0)[:-9],
            "a readable table is needed, but Comp",
        ),
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
