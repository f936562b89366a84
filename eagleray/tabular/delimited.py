"""Delimited text (CSV and its like) as a table of texts, and what is wrong with a file, by line."""

from __future__ import annotations

import codecs
import csv
import functools
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv

from eagleray import errors
from eagleray.tabular.names import values_for_names

DELIMITERS = ",;\t|"
COMMENT = "#"
BLOCK = 8 << 20
"""Bytes parsed at once; a file with a larger cell is parsed in one piece."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Source:
    """A file, how messages name it, and what the user has said of its text."""

    path: Path
    name: str
    encoding: str | None = None
    delimiter: str | None = None

    @functools.cached_property
    def codec(self) -> str:
        """The encoding that the user has said, that of the byte order mark, or UTF-8."""
        if self.encoding is not None:
            known = codecs.lookup(self.encoding).name
            return "utf-8-sig" if known == "utf-8" else self.encoding
        with self.path.open("rb") as file:
            start = file.read(4)
        return next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")

    def fault(self, line: int, message: str) -> errors.DataError:
        """What is wrong in a line."""
        return errors.DataError(f"{self.name}:{line}: {message}")


@dataclass(frozen=True)
class Layout:
    """How a file is written.

    Attributes:
        skipped: lines above the header.
        names: the header's cells as they are written.
    """

    delimiter: str
    skipped: int
    names: list[str]


def read(source: Source) -> pd.DataFrame:
    """The table, each column as Arrow's text.

    Lines that start with `#` are left out above the header and, where they have another number of
    cells than the header, below it.

    Raises:
        DataError: a line that is not in the encoding, or has more or fewer cells than the header.
        ValueError: no text, or a column name that stands twice.
    """
    layout = _layout(source)
    names = [name.strip() or f"Unnamed: {place}" for place, name in enumerate(layout.names)]
    check_names(names, hint=values_for_names(names))
    try:
        table = _parsed(source, layout)
    except (pa.ArrowException, UnicodeDecodeError) as cause:
        _check_encoding(source)
        _check_rows(source, layout)
        raise ValueError(str(cause)) from cause
    return frame(table.rename_columns(names))


def frame(table: pa.Table) -> pd.DataFrame:
    """The table as pandas has it; text stays in Arrow's memory."""
    texts = {kind: pd.ArrowDtype(kind) for kind in (pa.string(), pa.large_string())}
    made: pd.DataFrame = table.to_pandas(ignore_metadata=True, types_mapper=texts.get)
    return made


def check_names(names: Sequence[str], *, hint: str = "") -> None:
    """Raises ValueError where a column name stands twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"the column name {twice[0]!r} stands twice{hint}")


def _layout(source: Source) -> Layout:
    try:
        with source.path.open(encoding=source.codec, newline="") as file:
            head = file.read(1 << 20).removeprefix("\ufeff")
    except UnicodeError:
        _check_encoding(source)
        raise
    if "\0" in head:
        raise ValueError(
            "it holds NUL bytes: this is no text, or in UTF-16; set data.encoding: utf-16-le then"
        )
    found = [Layout(one, *_header(head, one)) for one in source.delimiter or DELIMITERS]
    return max(found, key=lambda layout: len(layout.names))


def _header(head: str, delimiter: str) -> tuple[int, list[str]]:
    """How many lines stand above the header, and its cells.

    A last comment such as `#id,name` is the header where it has as many cells as what follows.
    """
    above, rows = 0, csv.reader(io.StringIO(head), delimiter=delimiter)
    comment: tuple[int, list[str]] | None = None
    for row in rows:
        if row and row[0].startswith(COMMENT):
            comment = above, row
        elif row:
            return comment if comment and _heads(comment[1], row) else (above, row)
        above = rows.line_num
    return comment or (0, [])


def _heads(comment: list[str], row: list[str]) -> bool:
    return len(comment) == len(row) and not comment[0][len(COMMENT) :].startswith(" ")


def _parsed(source: Source, layout: Layout) -> pa.Table:
    size = source.path.stat().st_size + 1
    try:
        return _parsed_by(source, layout, min(size, BLOCK))
    except pa.ArrowInvalid as cause:
        if size <= BLOCK or not any(word in str(cause) for word in ("straddl", "out of sync")):
            raise
    return _parsed_by(source, layout, min(size, (1 << 31) - 1))


def _parsed_by(source: Source, layout: Layout, block: int) -> pa.Table:
    encoding = source.codec.removesuffix("-sig")  # Arrow passes over a mark of UTF-8 by itself
    return pyarrow.csv.read_csv(
        source.path,
        read_options=pyarrow.csv.ReadOptions(
            block_size=block, encoding=encoding, skip_rows=layout.skipped
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=layout.delimiter, newlines_in_values=True, invalid_row_handler=_ragged
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(layout.names, pa.string()), strings_can_be_null=False
        ),
    )


def _ragged(row: Any) -> str:
    return "skip" if row.text.startswith(COMMENT) else "error"


def _check_encoding(source: Source) -> None:
    """Raises DataError at the first line that is not in the encoding."""
    decoder = codecs.getincrementaldecoder(source.codec)()
    with source.path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                decoder.decode(line, final=not line.endswith(b"\n"))
            except UnicodeError as cause:
                raise source.fault(number, _undecodable(line, source.codec)) from cause


def _undecodable(line: bytes, codec: str) -> str:
    law = f"text must be in {codec.removesuffix('-sig')}"
    try:
        line.decode(codec)
    except UnicodeDecodeError as cause:
        around = line[max(0, cause.start - 15) : cause.start + 15].decode("latin-1").strip()
        return (
            f"{law}, but got the byte 0x{line[cause.start]:02x};"
            f" set data.encoding, such as latin-1, which reads {around!r}"
        )
    return f"{law}; set data.encoding"


def _check_rows(source: Source, layout: Layout) -> None:
    """Raises DataError at the first row with more or fewer cells than the header has."""
    faults = _ragged_rows(source, layout)
    line, row = next(faults, (0, []))
    if not line:
        return
    others = [number for number, _ in faults]
    needed, shown = len(layout.names), layout.delimiter.join(row)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    listed = ", ".join(map(str, others[:5]))
    also = f" (so in {len(others) + 1} lines, also in {listed})" if others else ""
    fix = f"quote cells that hold {layout.delimiter!r}" if len(row) > needed else "fill the row up"
    raise source.fault(
        line,
        f"a row needs as many cells as the header, {needed}, but got {len(row)}: {shown!r}{also};"
        f" {fix}, or say what parts the cells by data.delimiter",
    )


def _ragged_rows(source: Source, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Rows with too many or too few cells, and the lines that they begin in."""
    with source.path.open(encoding=source.codec, newline="") as file:
        for _ in itertools.islice(file, layout.skipped):
            pass
        rows, line = csv.reader(file, delimiter=layout.delimiter), layout.skipped + 1
        try:
            for row in rows:
                if row and len(row) != len(layout.names) and not row[0].startswith(COMMENT):
                    yield line, row
                line = layout.skipped + rows.line_num + 1
        except csv.Error as cause:
            raise source.fault(line, f"a readable row is needed, but {cause}") from cause
