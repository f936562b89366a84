"""A source of several files, and its extent."""

import io
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from eagleray import errors, machine, spec
from eagleray.client import package
from eagleray.tabular import files, load, sources
from eagleray.tabular.delimited import Source
from ray_jobs.data import extent


def write(folder: Path, **contents: str) -> None:
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("_csv", ".csv").replace("_txt", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def read(folder: Path, source: str) -> pd.DataFrame:
    return load.read(spec.Data(source=source, target="y"), folder)


def experiment(folder: Path, data: str, more: str = "") -> spec.Experiment:
    file = folder / "e.yaml"
    file.write_text(f"name: e\ndata: {{{data}, target: y}}\n{more}\nstorage: file:///tmp/e\n")
    return spec.load(file)


@pytest.mark.parametrize("source", ["rows", "rows/", "rows/*.csv", "row?/?.csv"])
def test_several_files_are_one_table_in_the_order_of_their_names(
    tmp_path: Path, source: str
) -> None:
    write(tmp_path, rows__b_csv="y,x\n3,c\n", rows__a_csv="x,y\na,1\nb,2\n", rows___SUCCESS="")
    table = read(tmp_path, source)
    assert table["x"].tolist() == ["a", "b", "c"]
    assert table["y"].tolist() == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"rows__a_csv": "x,y\n", "rows__b_csv": "x,z\n"}, r"b\.csv: .*lacks 'y' and has 'z'"),
        ({"rows__a_csv": "x,y\n1,2\n", "rows__b_csv": ""}, r"b\.csv: .*the file is empty"),
        ({"rows__a_csv": "x,y\n1,2\n", "rows__b_csv": "x,y\n1\n"}, r"b\.csv:2: a row needs"),
        ({"rows__a_csv": "x,y\n", "rows__b_txt": "x,y\n"}, "one format, but got .*a.csv and .*b"),
        ({"rows__d=1__a_csv": "x,y\n"}, "names of folders are not read"),
        ({"rows___hidden": "x"}, "there is no 'rows'"),
    ],
)
def test_files_that_do_not_fit_together_are_named(
    tmp_path: Path, contents: dict[str, str], message: str
) -> None:
    write(tmp_path, **contents)
    with pytest.raises(errors.DataError, match=message):
        read(tmp_path, "rows")


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    write(tmp_path, a_csv="x,y\n1,2\n")
    (found,) = sources.find("a.csv", tmp_path)
    write(tmp_path, a_csv="x,y\n1,3\n")
    os.utime(tmp_path / "a.csv", ns=(0, 0))
    with pytest.raises(errors.DataError, match="but it has changed"), found.opened():
        pass
    (tmp_path / "a.csv").unlink()
    with pytest.raises(errors.DataError, match="but it is gone"), found.opened():
        pass
    write(tmp_path, a_csv="x,y\n1,2\n")
    (found,) = sources.find("a.csv", tmp_path)

    def written_while_it_is_read(path: Path) -> None:
        path.write_text("x,y\n1,2\n3\n")
        files.read(Source(path, "a.csv"))  # fails for the row that is not whole yet

    with pytest.raises(errors.DataError, match="but it has changed"), found.opened() as path:
        written_while_it_is_read(path)


TEXT = "# made by hand\nx;y\n" + "".join(f'{n};"line\n{n}"\n' for n in range(5000)) + "#end\n"


def test_a_file_is_read_in_pieces_as_it_is_as_a_whole(tmp_path: Path) -> None:
    write(tmp_path, a_csv=TEXT)
    source = Source(tmp_path / "a.csv", "a.csv")
    pieces = list(files.stream(source, 0, 4096))
    assert len(pieces) > 5
    whole = files.read(source)
    assert pa.concat_tables(pieces).to_pydict() == {n: whole[n].tolist() for n in whole}
    table = pa.table({"x": range(1000), "y": ["a"] * 1000})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    pieces = list(files.stream(Source(tmp_path / "a.parquet", "a"), 128, 0))
    assert max(map(len, pieces)) <= 128
    assert pa.concat_tables(pieces).equals(table)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("late.csv", "x,y\n" + "1,2\n" * 9000 + "1,2,3\n", "late.csv:9002: a row needs as many"),
        (
            "late.csv",
            b"x,y\n" + b"1,2\n" * 9000 + b"\xe9,2\n",
            "late.csv:9002: text must be in utf",
        ),
        (
            "wide.csv",
            "x,y\n1," + "a" * 9000 + "\n",
            "wide.csv: a row of a streamed file has at",
        ),
        ("empty.parquet", b"", "empty.parquet: a table is needed, but the file is empty"),
        ("rows.jsonl", "{}\n", r"only \.csv, .* are streamed, but got '.jsonl'"),
    ],
)
def test_a_fault_that_comes_late_in_a_file_is_named(
    tmp_path: Path, name: str, content: Any, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(errors.DataError, match=message):
        list(files.stream(Source(path, name), 100, 4096))


def test_a_parquet_file_that_is_broken_in_the_middle_is_named(tmp_path: Path) -> None:
    packed = io.BytesIO()
    table = pa.table({"x": [str(n * 7919 % 10007) for n in range(10_000)]})
    pyarrow.parquet.write_table(table, packed, row_group_size=1000)
    content = bytearray(packed.getvalue())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    (tmp_path / "rows.parquet").write_bytes(content)
    source = Source(tmp_path / "rows.parquet", "rows.parquet")
    with pytest.raises(errors.DataError, match=r"rows\.parquet: a readable table is needed"):
        list(files.stream(source, 100, 0))


def test_the_bound_is_what_the_file_says_or_an_eighth_of_the_machines_memory(
    tmp_path: Path,
) -> None:
    write(tmp_path, a_csv="x,y\n" + "1.5,a\n" * 200_000, b_csv="x,y\n" + "2.5,b\n" * 200_000)
    small = extent.measure(experiment(tmp_path, "source: '*.csv', memory: 1MB"))
    assert small is not None
    assert small.streamed
    assert small.rows == pytest.approx(400_000, rel=0.02)
    assert str(small) == (
        "data of about 4.8 MB are larger than 1 MB (data.memory): they are streamed"
    )
    large = extent.measure(experiment(tmp_path, "source: '*.csv'"))
    assert large is not None
    assert not large.streamed
    assert large.memory == machine.total_memory() // 8
    assert "are held in memory; above" in str(large)


def test_the_rows_of_parquet_are_counted_and_measured_in_memory(tmp_path: Path) -> None:
    table = pa.table({"x": [1.5] * 100_000, "y": ["a"] * 100_000})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found = extent.measure(experiment(tmp_path, "source: a.parquet, memory: 1MB"))
    assert found is not None
    assert found.files[0].size < 50_000
    assert found.rows == 100_000
    assert found.streamed


@pytest.mark.parametrize("source", ["dataset:wine", "own:rows"])
def test_a_bound_beside_what_is_no_file_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(errors.DataError, match=r"data\.memory: only files are streamed"):
        extent.measure(experiment(tmp_path, f"source: '{source}', memory: 1MB"))


def test_a_large_file_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"x": 1, "y": 2}\n' * 100_000)
    with pytest.raises(errors.DataError, match=r"1 MB \(data.memory\) are streamed, .*1.7 MB"):
        extent.measure(experiment(tmp_path, "source: rows.jsonl, memory: 1MB"))
    assert extent.measure(experiment(tmp_path, "source: rows.jsonl, memory: 10MB")) is not None


def test_the_bound_is_no_part_of_a_search(tmp_path: Path) -> None:
    write(tmp_path, a_csv="x,y\n1,2\n")
    one = experiment(tmp_path, "source: a.csv").search_id("data")
    assert experiment(tmp_path, "source: a.csv, memory: 1GB").search_id("data") == one


def test_several_files_travel_with_their_experiment(tmp_path: Path) -> None:
    write(tmp_path, rows__a_csv="x,y\n1,2\n", rows__b_csv="x,y\n3,4\n")
    packed = package.pack(experiment(tmp_path, "source: rows/*.csv"))
    assert sorted(packed.files) == ["experiment.yaml", "rows/a.csv", "rows/b.csv"]
