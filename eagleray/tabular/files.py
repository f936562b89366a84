"""Files as tables: delimited text, Parquet and JSON Lines, each also compressed; picture files."""

import bz2
import contextlib
import csv
import dataclasses
import gzip
import json
import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from eagleray import errors, messages
from eagleray.learn.columns import pictures
from eagleray.tabular import delimited
from eagleray.tabular.delimited import Source

SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
PICTURES = (".png", ".jpg", ".jpeg")
ARCHIVE = ".zip"
BUFFER = 1 << 20  # bytes of a column that are read of a Parquet file at once
UNPACKERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_UNREADABLE = (
    EOFError,
    csv.Error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    pa.ArrowException,
)


class Kind(NamedTuple):
    """A file format: its reader, and the keys of the `data` section that it takes."""

    read: Callable[[Source], pd.DataFrame]
    options: tuple[str, ...] = ()
    # pieces of a source, of so many rows or bytes; None where a file is read whole
    stream: Callable[[Source, int, int], Iterator[pa.Table]] | None = None


def read(source: Source) -> pd.DataFrame:
    """Read the table in a file, whose suffix decides the format.

    DataError for an unknown format, an option that it does not take, and an unreadable file.
    """
    with named(source), _unpacked(source.path) as plain:
        unpacked = dataclasses.replace(source, path=plain)
        read_one = _kind(unpacked).read
        _check_filled(unpacked)
        return read_one(unpacked)


def stream(source: Source, rows: int, block: int) -> Iterator[pa.Table]:
    """Yield the table in a file in pieces: of `rows` of Parquet, of `block` bytes of text.

    DataError as in `read`, and for a format that is not streamed (see `is_streamed`).
    """
    with named(source):
        _check_filled(source)
        pieces = _kind(source).stream
        if pieces is None:
            law = f"only {', '.join(STREAMED)} are streamed"
            raise errors.DataError(f"{source.name}: {law}, but got {source.path.suffix!r}")
        yield from pieces(source, rows, block)


def is_streamed(path: Path) -> bool:
    """Whether a file with this suffix can be read in pieces."""
    return path.suffix.lower() in STREAMED


def is_known(path: Path) -> bool:
    """Whether a file with this suffix can be read."""
    return path.suffix.lower() in (*KINDS, *UNPACKERS, ARCHIVE)


def is_delimited(path: Path) -> bool:
    """Whether the suffix is that of delimited text, compressed or not."""
    kinds = [KINDS[one.lower()] for one in path.suffixes[-2:] if one.lower() in KINDS]
    return path.suffix.lower() == ARCHIVE or any("delimiter" in kind.options for kind in kinds)


@contextlib.contextmanager
def named(source: Source) -> Iterator[None]:
    """Turn what readers raise into a DataError that names the file."""
    try:
        yield
    except (OSError, ValueError, *_UNREADABLE) as cause:
        first = (str(cause).splitlines() or [repr(cause)])[0]
        raise errors.DataError(f"{source.name}: a readable table is needed, but {first}") from cause


def read_pictures(frame: pd.DataFrame, base: Path) -> pd.DataFrame:
    """Replace paths of picture files, from `base` or the working directory, with their contents.

    A column holds paths if its first value is one; DataError where a later one names no file.
    """
    for name in frame.columns:
        texts = (value for value in frame[name] if isinstance(value, str) and value.strip())
        first = next(texts, "")
        if first.lower().endswith(PICTURES) and _picture(first, base) is not None:
            contents = [_content(str(name), value, base) for value in frame[name]]
            frame[name] = pd.Series(contents, dtype=object)
    return frame


def _check_filled(source: Source) -> None:
    if not source.path.stat().st_size:
        raise errors.DataError(f"{source.name}: a table is needed, but the file is empty")


def _content(column: str, value: object, base: Path) -> bytes | None:
    if not isinstance(value, str) or not value.strip():
        return None
    path = _picture(value.strip(), base)
    if path is None:
        raise errors.DataError(f"{column}: a picture's file is needed, but there is no {value!r}")
    content = pictures.File(path.read_bytes())
    content.name = value.strip()
    return content


def _picture(value: str, base: Path) -> Path | None:
    return next((path for path in (base / value, Path(value)) if path.is_file()), None)


def _kind(source: Source) -> Kind:
    suffix, name = source.path.suffix.lower(), source.name
    if suffix in SPREADSHEETS:
        law = "a spreadsheet must be saved as CSV in UTF-8"
        raise errors.DataError(f"{name}: {law}, but got {suffix!r}")
    if suffix not in KINDS:
        packed = f"each also compressed ({', '.join([*UNPACKERS, ARCHIVE])})"
        law = f"a file must end in one of {', '.join(KINDS)}, {packed}"
        raise errors.DataError(f"{name}: {law}, but got {suffix!r}")
    kind = KINDS[suffix]
    for key in ("encoding", "delimiter"):
        if (value := getattr(source, key)) is not None and key not in kind.options:
            raise errors.DataError(f"data.{key}: a {suffix} file has none, but got {value!r}")
    return kind


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """The file itself, or a decompressed temporary copy, named without the suffix."""
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
                got = messages.shortened(line.strip())
                raise source.fault(number, f"an object is needed, but got {got}")
            rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names}
    return pd.DataFrame(columns)


def _parquet_pieces(source: Source, rows: int) -> Iterator[pa.Table]:
    with pyarrow.parquet.ParquetFile(source.path, buffer_size=BUFFER) as file:
        for piece in file.iter_batches(batch_size=rows, use_threads=False):
            yield pa.Table.from_batches([piece])


_PARQUET = Kind(
    lambda source: delimited.frame(pyarrow.parquet.read_table(source.path)),
    stream=lambda source, rows, _: _parquet_pieces(source, rows),
)
_LINES = Kind(_json_lines, ("encoding",))
_TEXT = Kind(
    delimited.read,
    ("encoding", "delimiter"),
    lambda source, _, block: delimited.stream(source, block),
)
KINDS = {
    **dict.fromkeys((".csv", ".tsv", ".txt", ".data"), _TEXT),
    ".parquet": _PARQUET,
    ".pq": _PARQUET,
    ".jsonl": _LINES,
    ".ndjson": _LINES,
}
STREAMED = tuple(suffix for suffix, kind in KINDS.items() if kind.stream is not None)
