"""CSV, Parquet and JSON Lines.

CSV comes as text, untouched: which texts are numbers or missing is decided by `ray_jobs.data.infer`
for whole columns, not by a reader for single cells.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from eagleray import errors

DELIMITERS = ",;\t|"


def read(path: Path, *, shown: str | None = None) -> pd.DataFrame:
    """The table in this file; its suffix says of what kind it is.

    Args:
        path: the file.
        shown: how messages name it, if not by its path.

    Raises:
        DataError: unknown kind, an empty or unreadable file, or a column name that stands twice.
    """
    name = shown or str(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        kinds = ", ".join(READERS)
        raise errors.DataError(
            f"{name}: a file must end in one of {kinds}, but got {path.suffix!r}"
        )
    try:
        if not path.stat().st_size:
            raise errors.DataError(f"{name}: a table is needed, but the file is empty")
        return reader(path)
    except (OSError, ValueError, csv.Error, pa.ArrowException) as cause:
        first = (str(cause).splitlines() or [repr(cause)])[0]
        raise errors.DataError(f"{name}: a readable table is needed, but {first}") from cause


def _csv(path: Path) -> pd.DataFrame:
    delimiter, written = _header(path)
    names = [name.strip() or f"Unnamed: {place}" for place, name in enumerate(written)]
    _check_names(names)
    table = pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(block_size=_block(path)),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(written, pa.string()), strings_can_be_null=False
        ),
    )
    return _frame(table.rename_columns(names))


def _header(path: Path) -> tuple[str, list[str]]:
    """The delimiter that gives the most columns, and their names."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.read(1 << 20)
    if "\0" in head:
        raise ValueError("it holds NUL bytes: this is no text")
    found = []
    for delimiter in DELIMITERS:
        rows = csv.reader(io.StringIO(head), delimiter=delimiter)
        found.append((delimiter, next((row for row in rows if row), [])))
    return max(found, key=lambda pair: len(pair[1]))


def _block(path: Path) -> int:
    """Bytes parsed at once: no cell may be larger."""
    return min(max(1 << 20, path.stat().st_size + 1), (1 << 31) - 1)


def _parquet(path: Path) -> pd.DataFrame:
    table = pyarrow.parquet.read_table(path)
    _check_names(table.column_names)
    return _frame(table)


def _json_lines(path: Path) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as cause:
                raise ValueError(f"line {number} is not JSON: {cause.msg}") from cause
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is no object: {line.strip()[:40]}")
            rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names}
    return pd.DataFrame(columns)


def _frame(table: Any) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    return frame


def _check_names(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"the column name {twice[0]!r} stands twice")


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".txt": _csv,
    ".parquet": _parquet,
    ".pq": _parquet,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
