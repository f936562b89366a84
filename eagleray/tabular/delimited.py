"""Delimited text (CSV and its like) as a table of texts, and its faults by line."""

import codecs
import contextlib
import csv
import functools
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.csv

from eagleray import errors, messages
from eagleray.learn.columns import values

DELIMITERS = ",;\t|"
COMMENT = "#"
BLOCK = 8 << 20  # bytes that are parsed at once; a file with a larger cell is parsed in one piece


@dataclass(frozen=True)
class Source:
    """A file, its name in messages, and the user's settings of its text."""

    path: Path
    name: str
    encoding: str | None = None
    delimiter: str | None = None
    settable: bool = True  # in an experiment file; messages name its keys then

    @functools.cached_property
    def codec(self) -> str:
        """The user's encoding, else that of the byte order mark, else UTF-8."""
        if self.encoding is not None:
            return "utf-8-sig" if codecs.lookup(self.encoding).name == "utf-8" else self.encoding
        with self.path.open("rb") as file:
            is_utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        return "utf-16" if is_utf16 else "utf-8-sig"

    def fault(self, line: int, message: str) -> errors.DataError:
        return errors.DataError(f"{self.name}:{line}: {message}")


class Layout(NamedTuple):
    """Format of a file: lines `skipped` above the header, whose unstripped cells are `names`."""

    delimiter: str
    skipped: int
    names: list[str]

    @property
    def columns(self) -> list[str]:
        return [name.strip() or f"Unnamed: {place}" for place, name in enumerate(self.names)]


def read(source: Source) -> pd.DataFrame:
    """Read a table of Arrow's texts; skip comments unless they have as many cells as the header.

    DataError for a line that is not in the encoding, or is longer or shorter than the header.
    """
    with _explained(source) as layouts:
        layouts.append(_layout(source))
        table = _parsed(source, layouts[0])
    return frame(table.rename_columns(layouts[0].columns))


def stream(source: Source, block: int) -> Iterator[pa.Table]:
    """Yield the table in pieces of about `block` bytes of the file; see `read`.

    DataError also for a row of more than `block` bytes.
    """
    with _explained(source) as layouts:
        layout = _layout(source)
        layouts.append(layout)
        options = _options(source, layout, block)
        try:
            for piece in pyarrow.csv.open_csv(source.path, **options):
                yield pa.Table.from_batches([piece]).rename_columns(layout.columns)
        except pa.ArrowInvalid as cause:
            if "straddl" not in str(cause):
                raise
            law = f"a row of a streamed file has at most {block:,} bytes, but one has more"
            raise errors.DataError(f"{source.name}: {law}") from cause


def header(source: Source) -> list[str]:
    """The names of the columns; raises as `read`, but for lines below the header."""
    with _explained(source):
        return _layout(source).columns


def frame(table: pa.Table) -> pd.DataFrame:
    """The table in pandas; text stays in Arrow's memory."""
    texts = {kind: pd.ArrowDtype(kind) for kind in (pa.string(), pa.large_string())}
    converted: pd.DataFrame = table.to_pandas(ignore_metadata=True, types_mapper=texts.get)
    return converted


def header_hint(names: Sequence[str]) -> str:
    """Hint at a missing header, to end a message; empty unless a name is a number."""
    if not any(map(values.is_number, names)):
        return ""
    return "; if line 1 holds values, put a line of names above it"


@contextlib.contextmanager
def _explained(source: Source) -> Iterator[list[Layout]]:
    """Find the faulty line if Arrow fails in the block, which gives the layout once it is known."""
    layouts: list[Layout] = []
    try:
        yield layouts
    except (pa.ArrowException, UnicodeError):
        _check_encoding(source)
        for layout in layouts:
            _check_rows(source, layout)
        raise


def _layout(source: Source) -> Layout:
    with source.path.open(encoding=source.codec, newline="") as file:
        head = file.read(1 << 20).removeprefix("\ufeff")
    if "\0" in head:
        fix = "set data.encoding: utf-16-le then" if source.settable else "write it in UTF-8"
        raise ValueError(f"it holds NUL bytes: this is no text, or in UTF-16; {fix}")
    layouts = [Layout(one, *_header(head, one)) for one in source.delimiter or DELIMITERS]
    return max(layouts, key=lambda layout: len(layout.names))


def _header(head: str, delimiter: str) -> tuple[int, list[str]]:
    """The number of lines above the header, and its cells.

    The last comment, such as `#id,name`, is the header if it has as many cells as the row below.
    """
    above, rows = 0, csv.reader(io.StringIO(head), delimiter=delimiter)
    comment: tuple[int, list[str]] | None = None
    for row in rows:
        if row and row[0].startswith(COMMENT):
            comment = above, row
        elif row:
            is_header = comment and len(comment[1]) == len(row) and comment[1][0][1:2] != " "
            return comment if comment and is_header else (above, row)
        above = rows.line_num
    return comment or (0, [])


def _parsed(source: Source, layout: Layout) -> pa.Table:
    size = source.path.stat().st_size + 1
    try:
        return _parsed_by(source, layout, min(size, BLOCK))
    except pa.ArrowInvalid as cause:
        if size <= BLOCK or not any(word in str(cause) for word in ("straddl", "out of sync")):
            raise
    return _parsed_by(source, layout, min(size, (1 << 31) - 1))


def _parsed_by(source: Source, layout: Layout, block: int) -> pa.Table:
    return pyarrow.csv.read_csv(source.path, **_options(source, layout, block))


def _options(source: Source, layout: Layout, block: int) -> dict[str, Any]:
    encoding = source.codec.removesuffix("-sig")  # Arrow skips UTF-8's byte order mark by itself
    return {
        "read_options": pyarrow.csv.ReadOptions(
            block_size=block, encoding=encoding, skip_rows=layout.skipped
        ),
        "parse_options": pyarrow.csv.ParseOptions(
            delimiter=layout.delimiter,
            newlines_in_values=True,
            invalid_row_handler=lambda row: "skip" if row.text.startswith(COMMENT) else "error",
        ),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(layout.names, pa.string()), strings_can_be_null=False
        ),
    }


def _check_encoding(source: Source) -> None:
    law = f"text must be in {source.codec.removesuffix('-sig')}"
    fix = "set data.encoding" if source.settable else "write it in UTF-8"
    decoder = codecs.getincrementaldecoder(source.codec)()
    with source.path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                decoder.decode(line, final=not line.endswith(b"\n"))
            except UnicodeDecodeError as cause:
                text, at = cause.object, cause.start
                around = text[max(0, at - 15) : at + 15].decode("latin-1").strip()
                raise source.fault(
                    number,
                    f"{law}, but got the byte 0x{text[at]:02x}; {fix}"
                    + (f", such as latin-1, which reads {around!r}" if source.settable else ""),
                ) from cause
            except UnicodeError as cause:  # UTF-16 without a byte order mark
                raise source.fault(number, f"{law}; {fix}") from cause


def _check_rows(source: Source, layout: Layout) -> None:
    faults = _ragged_rows(source, layout)
    line, row = next(faults, (0, []))
    if not line:
        return
    others = [number for number, _ in faults]
    needed, shown = len(layout.names), messages.shortened(layout.delimiter.join(row))
    listed = messages.listed([str(number) for number in others], 5)
    also = f" ({len(others) + 1} such lines, also {listed})" if others else ""
    fix = f"quote cells that hold {layout.delimiter!r}" if len(row) > needed else "fill the row up"
    fix += ", or set data.delimiter" if source.settable else ""
    raise source.fault(
        line,
        f"a row needs as many cells as the header, {needed}, but got {len(row)}: {shown!r}{also};"
        f" {fix}",
    )


def _ragged_rows(source: Source, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """First line number and cells of each row with too many or too few cells."""
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
