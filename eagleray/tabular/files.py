"""Files as tables: delimited text, Parquet and JSON Lines, each also compressed.

Text comes untouched: which texts are numbers or missing is decided by `eagleray.tabular.infer` for
whole columns, not by a reader for single cells.
"""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import json
import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from eagleray import errors
from eagleray.tabular import delimited
from eagleray.tabular.delimited import Source

SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
ARCHIVE = ".zip"
_UNREADABLE = (
    EOFError,
    csv.Error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    pa.ArrowException,
)
UNPACKERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        read: reads one.
        options: keys of the `data` section that it takes.
    """

    read: Callable[[Source], pd.DataFrame]
    options: tuple[str, ...] = ()


def read(
    path: Path,
    *,
    shown: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
) -> pd.DataFrame:
    """The table in this file; its suffix says of what kind it is.

    Args:
        path: the file.
        shown: how messages name it, if not by its path.
        encoding: that of a text file; None for UTF-8, or what its byte order mark says.
        delimiter: that of a text file; None for the one that gives the header most columns.

    Raises:
        DataError: unknown kind, an empty or unreadable file, or a column name that stands twice.
    """
    name = shown or str(path)
    try:
        with _unpacked(path) as plain:
            source = Source(plain, name, encoding, delimiter)
            read_one = _kind(source).read
            if not plain.stat().st_size:
                raise errors.DataError(f"{name}: a table is needed, but the file is empty")
            return read_one(source)
    except (OSError, ValueError, *_UNREADABLE) as cause:
        first = (str(cause).splitlines() or [repr(cause)])[0]
        raise errors.DataError(f"{name}: a readable table is needed, but {first}") from cause


def is_known(path: Path) -> bool:
    """Whether the name ends like that of a file which can be read."""
    return path.suffix.lower() in (*KINDS, *UNPACKERS, ARCHIVE)


def is_delimited(path: Path) -> bool:
    """Whether the name ends like that of delimited text, compressed or not."""
    kinds = [KINDS[one.lower()] for one in path.suffixes[-2:] if one.lower() in KINDS]
    return path.suffix.lower() == ARCHIVE or any("delimiter" in kind.options for kind in kinds)


def _kind(source: Source) -> Kind:
    suffix, name = source.path.suffix.lower(), source.name
    if suffix in SPREADSHEETS:
        raise errors.DataError(
            f"{name}: a spreadsheet must be saved as CSV in UTF-8, but got {suffix!r}"
        )
    if suffix not in KINDS:
        kinds = ", ".join(KINDS)
        raise errors.DataError(
            f"{name}: a file must end in one of {kinds}, each also compressed"
            f" ({', '.join([*UNPACKERS, ARCHIVE])}), but got {suffix!r}"
        )
    kind = KINDS[suffix]
    for key in ("encoding", "delimiter"):
        if (value := getattr(source, key)) is not None and key not in kind.options:
            raise errors.DataError(f"data.{key}: a {suffix} file has none, but got {value!r}")
    return kind


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """The file itself, or what is compressed in it: named like it, without the last suffix."""
    suffix = path.suffix.lower()
    if suffix != ARCHIVE and suffix not in UNPACKERS:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if suffix == ARCHIVE:
            archive = stack.enter_context(zipfile.ZipFile(path))
            member = _only_member(archive)
            plain, packed = Path(folder, Path(member).name), archive.open(member)
        else:
            plain, packed = Path(folder, path.stem), UNPACKERS[suffix](path)
        with packed, plain.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
        yield plain


def _only_member(archive: zipfile.ZipFile) -> str:
    names = [one for one in archive.namelist() if not one.endswith("/")]
    names = [one for one in names if not one.startswith("__MACOSX/")]
    if len(names) != 1:
        raise ValueError(f"a zip file must hold one table, but holds {', '.join(names) or 'none'}")
    return names[0]


def _parquet(source: Source) -> pd.DataFrame:
    table = pyarrow.parquet.read_table(source.path)
    delimited.check_names(table.column_names)
    return delimited.frame(table)


def _json_lines(source: Source) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    with source.path.open(encoding=source.codec) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as cause:
                raise source.fault(number, f"JSON is needed, but {cause.msg}") from cause
            if not isinstance(row, dict):
                got = line.strip()[:40]
                raise source.fault(number, f"an object is needed, but got {got}")
            rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names}
    return pd.DataFrame(columns)


_TEXT = Kind(delimited.read, ("encoding", "delimiter"))
_LINES = Kind(_json_lines, ("encoding",))
KINDS = {
    ".csv": _TEXT,
    ".tsv": _TEXT,
    ".txt": _TEXT,
    ".data": _TEXT,
    ".parquet": Kind(_parquet),
    ".pq": Kind(_parquet),
    ".jsonl": _LINES,
    ".ndjson": _LINES,
}
