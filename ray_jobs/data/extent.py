"""How large an experiment's data are, and whether they are held in memory or streamed.

Data whose rows take more than `data.memory`, as they are read, are streamed (`streamed`). The size
is estimated from the first file, unless the files are so small that it does not matter.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from eagleray import errors, machine, spec
from eagleray.tabular import files, load, sources
from eagleray.tabular.delimited import Source

SHARE = 8
"""The rows take at most one in so many bytes of memory; encoding them takes several times that."""
EXPANSION, EXPANSION_OF_TEXT = 1000, 5
"""Most bytes that a byte of a file becomes in memory; Parquet is compressed, repeats nothing."""
HEAD = 1000, 1 << 20
"""Rows of Parquet, or bytes of text, that the size of a row is measured on."""
_PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Extent:
    """The files of a source, and the size of their rows."""

    files: tuple[sources.File, ...]
    memory: int  # bytes that rows may take in memory
    names: tuple[str, ...] = ()  # of columns; empty where files are too small to look
    rows: float = 0.0  # about
    row_bytes: float = 0.0  # of a row in Arrow's memory, about

    @property
    def bytes(self) -> float:
        """What all rows take in memory, about."""
        return self.rows * self.row_bytes or float(sum(one.size for one in self.files))

    @property
    def streamed(self) -> bool:
        return self.bytes > self.memory and bool(self.rows)

    def __str__(self) -> str:
        size, most = shown(self.bytes), shown(self.memory)
        if self.streamed:
            return f"data of about {size} are larger than {most} (data.memory): they are streamed"
        return (
            f"data of about {size} are held in memory; above {most} (data.memory) they are streamed"
        )


def measure(experiment: spec.Experiment) -> Extent | None:
    """The extent of files; None for other sources, and for an object that cannot be listed.

    Raises:
        DataError: there are no such files, or they are too large and cannot be streamed.
        StorageError: the bucket cannot be read.
    """
    data = experiment.data
    if not load.is_file(data.source):
        if data.memory is not None:
            raise errors.DataError(
                f"data.memory: only files are streamed, but data.source is {data.source!r}"
            )
        return None
    with contextlib.suppress(errors.AccessDeniedError):
        found = tuple(sources.find(data.source, experiment.path.parent))
        return _measured(found, data, data.memory_bytes or machine.total_memory() // SHARE)
    return None


def shown(size: float) -> str:
    """Bytes for people."""
    for unit, least in (("GB", 10**9), ("MB", 10**6)):
        if size >= least:
            return f"{size / least:.3g} {unit}"
    return f"{size / 1000:.3g} kB"


def _measured(found: Sequence[sources.File], data: spec.Data, memory: int) -> Extent:
    first, total = next((one for one in found if one.size), found[0]), sum(f.size for f in found)
    kept = Extent(tuple(found), memory)
    is_parquet = Path(first.name).suffix.lower() in _PARQUET
    if total * (EXPANSION if is_parquet else EXPANSION_OF_TEXT) <= memory:
        return kept
    if not files.is_streamed(Path(first.name)):
        if total <= memory:
            return kept
        raise errors.DataError(
            f"data.source: more than {shown(memory)} (data.memory) are streamed, which only"
            f" {', '.join(files.STREAMED)} are, but got {shown(total)} of {first.name}"
        )
    with first.opened() as path:
        source = Source(path, first.name, data.encoding, data.delimiter)
        head = next(files.stream(source, *HEAD), None)
        if head is None or not head.num_rows:
            return kept
        rows = _rows(path, head) * total / first.size
    return Extent(tuple(found), memory, tuple(head.column_names), rows, head.nbytes / head.num_rows)


def _rows(path: Path, head: pa.Table) -> float:
    """The rows of a file, exactly for Parquet."""
    if path.suffix.lower() in _PARQUET:
        rows: int = pyarrow.parquet.read_metadata(path).num_rows
        return rows
    offsets = 4 - 1  # of each cell: Arrow's, in place of a delimiter
    text = head.nbytes / head.num_rows - offsets * head.num_columns
    return path.stat().st_size / max(1.0, float(text))
