"""The columns of a file of a source and the size of its rows, read of its beginning or its end."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet

from eagleray import errors, storage
from eagleray.storage import streams
from eagleray.tabular import delimited, files, sources
from eagleray.tabular.delimited import Source

HEAD = 1 << 20
"""Bytes of text that are read."""
PARQUET = (".parquet", ".pq")
"""Suffixes of its files."""


class Header(NamedTuple):
    """What is known of a file before its rows are read."""

    columns: list[str]
    row_bytes: float  # of a row, about; 0 where there is none


def read(file: sources.File) -> Header:
    """The header of a file of a format that is streamed, see `files.stream`.

    Raises:
        DataError: it is empty, of another format, or cannot be read.
        StorageError: the object cannot be read.
    """
    path = Path(file.name)
    if not file.size:
        raise errors.DataError(f"{file.name}: a table is needed, but the file is empty")
    if not files.is_streamed(path):
        law = f"only {', '.join(files.STREAMED)} are streamed"
        raise errors.DataError(f"{file.name}: {law}, but got {path.suffix!r}")
    with files.named(Source(path, file.name, settable=False)):
        return _parquet(file) if path.suffix.lower() in PARQUET else _text(file)


def _parquet(file: sources.File) -> Header:
    with pyarrow.parquet.ParquetFile(_stream(file)) as table:
        about, names = table.metadata, table.schema_arrow.names
        groups = (about.row_group(number) for number in range(about.num_row_groups))
        size = sum(group.total_byte_size for group in groups)
        return Header(list(names), size / about.num_rows if about.num_rows else 0.0)


def _text(file: sources.File) -> Header:
    with _head(file) as path:
        data = path.read_bytes()
        names = delimited.header(Source(path, file.name, settable=False))
    return Header(names, min(HEAD, file.size) / (data.count(b"\n") or 1))


@contextlib.contextmanager
def _head(file: sources.File) -> Iterator[Path]:
    """A file of the first lines."""
    with tempfile.TemporaryDirectory(prefix="eagleray-header-") as folder, _stream(file) as stream:
        path, data = Path(folder, Path(file.name).name), stream.read(min(HEAD, file.size)) or b""
        if file.size > HEAD and b"\n" in data:  # no half of a letter
            data = data[: data.rindex(b"\n") + 1]
        path.write_bytes(data)
        yield path


def _stream(file: sources.File) -> io.RawIOBase | io.BufferedReader:
    if file.is_local:
        return Path(file.name).open("rb")
    bucket, key = sources.address(file.name)
    return streams.Ranges(storage.open(f"{sources.SCHEME}{bucket}"), key, file.size)
