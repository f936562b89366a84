"""Data in a real S3 server."""

from pathlib import Path

import pytest

from eagleray import errors, spec, storage
from eagleray.tabular import load, sources
from tests.conftest import Bucket


def test_a_table_is_read_from_a_bucket(s3: Bucket, tmp_path: Path) -> None:
    storage.open(s3.uri).put("tables/rows.csv", b"x,y\n1,a\n2,b\n")
    data = spec.Data(source=f"{s3.uri}/tables/rows.csv", target="y")
    table = load.table(load.read(data, tmp_path))
    assert {name: list(raw) for name, raw in table.items()} == {"x": ["1", "2"], "y": ["a", "b"]}


def test_an_object_that_is_not_there_or_no_table_is_named(s3: Bucket, tmp_path: Path) -> None:
    storage.open(s3.uri).put("tables/empty.csv", b"")
    for key in ("tables/none.csv", "tables/empty.csv"):
        data = spec.Data(source=f"{s3.uri}/{key}", target="y")
        with pytest.raises(errors.DataError, match=key):
            load.read(data, tmp_path)


def test_several_objects_are_one_table_and_one_that_changes_or_goes_away_is_named(
    s3: Bucket, tmp_path: Path
) -> None:
    store = storage.open(s3.uri)
    for name in ("a.csv", "b.csv", "_SUCCESS"):
        store.put(f"several/{name}", f"x,y\n1,{name}\n".encode())
    for source in (f"{s3.uri}/several/", f"{s3.uri}/several/*.csv"):
        table = load.table(load.read(spec.Data(source=source, target="y"), tmp_path))
        assert list(table["y"]) == ["a.csv", "b.csv"]
    first, second = sources.find(f"{s3.uri}/several/", tmp_path)
    store.put("several/a.csv", b"x,y\n2,other\n")
    with pytest.raises(errors.DataError, match=r"a\.csv: .*but it has changed"), first.opened():
        pass
    store.delete("several/b.csv")
    with pytest.raises(errors.DataError, match=r"several/b\.csv"), second.opened():
        pass
