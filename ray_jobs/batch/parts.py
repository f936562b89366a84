"""Parts of a batch: rows of the input in, a table with answers out. No Ray here."""

from __future__ import annotations

import io
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from eagleray import bundle, errors, predictions, storage
from eagleray.state import batches
from eagleray.state.models import Registry
from eagleray.storage import cache
from eagleray.tabular import delimited, files, headers, sources
from eagleray.tabular.delimited import Source

BLOCK = 4 << 20  # bytes of text that are parsed at once


@dataclass(frozen=True)
class Job:
    """What a task knows: the plan, and the URIs of the model's storage and of the output."""

    plan: batches.Plan
    storage: str
    output: str

    def files(self) -> list[sources.File]:
        return [sources.File(one.name, one.size, one.version) for one in self.plan.inputs]


@dataclass(frozen=True)
class Rows:
    """The rows of a part."""

    file: int
    number: int
    last: bool
    table: pa.Table

    def pack(self) -> pa.Table:
        """One row of a table, which Ray moves as a whole."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.table.schema) as writer:
            writer.write_table(self.table)
        made = {
            "file": [self.file],
            "number": [self.number],
            "last": [self.last],
            "rows": pa.array([sink.getvalue().to_pybytes()], pa.large_binary()),
        }
        return pa.table(made)

    @classmethod
    def unpack(cls, table: pa.Table) -> Rows:
        """The opposite of `pack`."""
        file, number, last = (table[name][0].as_py() for name in ("file", "number", "last"))
        return cls(file, number, last, pa.ipc.open_stream(table["rows"][0].as_buffer()).read_all())


def read(job: Job, file: int, done: Container[int]) -> Iterator[Rows]:
    """Yield the parts of a file that are not done; a file without rows is one part.

    Raises:
        DataError: it cannot be read, or has changed.
        StorageError: it cannot be fetched.
    """
    found = job.files()[file]
    with found.opened(key="--input") as path:
        source = Source(path, found.name, settable=False)
        pieces = files.stream(source, job.plan.rows_per_part, BLOCK)
        number = -1
        for number, (table, last) in enumerate(_cut(pieces, job.plan.rows_per_part)):
            if number not in done:
                yield Rows(file, number, last, table)
        if number < 0 and 0 not in done:
            yield Rows(file, 0, True, _empty(source))


class Writer:
    """Predicts parts and writes them; one in each process."""

    def __init__(self, job: Job) -> None:
        self._job, self._batch = job, batches.Batch(storage.open(job.output))
        registry = Registry(storage.open(job.storage), local=cache.default())
        version = registry.resolve(job.plan.model, str(job.plan.version))
        self._model = bundle.load(registry, version)
        self._types = _types(self._model)

    def write(self, rows: Rows) -> batches.Part:
        """Predict a part, and write it and then its record; another driver may have done both.

        Raises:
            DataError: a kept column is absent, which its header had.
            ServingError, CodeError: the model fails.
            StorageError: it cannot be written.
        """
        plan, place = self._job.plan, (rows.file, rows.number)
        if (finished := self._batch.part(place)) is not None:
            return finished
        first = rows.number * plan.rows_per_part + 1
        frame = delimited.frame(rows.table)
        answers = predictions.predict(self._model, frame, first=first)
        made = self._table(rows.table.select(list(plan.keep)), answers)
        part = batches.Part(
            file=rows.file,
            number=rows.number,
            last=rows.last,
            rows=len(frame),
            errors=len(answers.faults),
            warnings=sum(bool(one["warnings"]) for one in answers.rows),
            error=next(iter(answers.faults), ""),
            etag=self._batch.put_part(plan, place, _encoded(made, plan.output_format)),
        )
        self._batch.record(part)
        return part

    def _table(self, kept: pa.Table, answers: predictions.Answers) -> pa.Table:
        """Kept columns as the input has them, then answers, always of the same types."""
        heading = self._types.names
        names = [predictions.renamed(name, heading) for name in kept.column_names]
        made, cells = kept.rename_columns(names), answers.table()
        for field in self._types:
            column = cells[field.name].astype(object).where(cells[field.name].notna(), None)
            made = made.append_column(field, pa.array(column.tolist(), field.type))
        return made.replace_schema_metadata()  # pandas would read the input's index there


def is_local(job: Job) -> bool:
    """Whether only this machine has the input, the output or the model."""
    uris = [job.storage, job.output, *(one.name for one in job.plan.inputs)]
    return not all(one.startswith(sources.SCHEME) for one in uris)


def _cut(pieces: Iterator[pa.Table], rows: int) -> Iterator[tuple[pa.Table, bool]]:
    """Tables of so many rows, and whether one is the last; of no piece nothing."""
    held: list[pa.Table] = []
    count = 0
    for piece in pieces:
        while True:
            if count == rows and piece.num_rows:
                yield pa.concat_tables(held), False
                held, count = [], 0
            taken = piece.slice(0, rows - count)
            held.append(taken)
            count += taken.num_rows
            piece = piece.slice(taken.num_rows)
            if not piece.num_rows:
                break
    if held:
        yield pa.concat_tables(held), True


def _empty(source: Source) -> pa.Table:
    """The table of a file without rows."""
    if source.path.suffix.lower() in headers.PARQUET:
        return pyarrow.parquet.read_schema(source.path).empty_table()
    return pa.table({name: pa.array([], pa.string()) for name in delimited.header(source)})


def _types(model: bundle.Bundle) -> pa.Schema:
    """The columns of answers; those of the golden rows, whose cells are of all types."""
    import pandas as pd

    assert model.golden is not None
    cells = predictions.predict(model, pd.DataFrame(model.golden.rows, dtype=object)).table()
    fields = [pa.field(name, _type(cells[name].tolist())) for name in cells.columns]
    return pa.schema(fields)


def _type(cells: list[Any]) -> pa.DataType:
    """Numbers, true and false, or text; of no cell text."""
    known = [cell for cell in cells if cell is not None and cell == cell]
    if known and all(isinstance(cell, bool) for cell in known):
        return pa.bool_()
    numbers = known and all(isinstance(cell, int | float) for cell in known)
    return pa.float64() if numbers else pa.string()


def _encoded(table: pa.Table, output_format: batches.Format) -> bytes:
    sink = io.BytesIO()
    if output_format == "parquet":
        pyarrow.parquet.write_table(table, sink)
        return sink.getvalue()
    try:
        pyarrow.csv.write_csv(table, sink)
    except pa.ArrowException as cause:
        law = "CSV holds texts, numbers and dates; --format parquet holds all"
        raise errors.DataError(f"--format: {law}, but {cause}") from cause
    return sink.getvalue()
