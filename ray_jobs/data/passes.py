"""Passes of Ray Data over the files of a source, whose rows are too many for memory.

A task reads some files and yields tables, which stay in Ray's object store; Ray spills it to disk.
Tasks take no CPU of Ray's, so that a block that is lost with its node is made anew while trials
hold all CPUs. Legend: B rows.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import itertools
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data

from eagleray import errors, ray_compat, spec
from eagleray.learn import columns, features, schema, tasks
from eagleray.learn.schema import Column, Raw, Schema
from eagleray.tabular import delimited, files, load, sources, tables
from eagleray.tabular.delimited import Source
from ray_jobs import cluster
from ray_jobs.data import blocks, encoded, extent, sample

ROOM, LEAST, MOST = 256, 1 << 18, 1 << 22
"""Blocks that `data.memory` has room for; least and most bytes of one. Ray copies what is smaller
than 100 KB to the memory of the driver."""
TASK = 16
"""Blocks that a task reads at least; small files share one."""

Place = Any
"""Where a block is: a reference to an object of Ray."""


@dataclass(frozen=True)
class Job:
    """What a task knows to read a file."""

    size: extent.Extent
    data: spec.Data
    ranges: sample.Ranges

    @property
    def block(self) -> int:
        """Bytes of a block, about."""
        return min(MOST, max(LEAST, self.size.memory // ROOM))

    def tasks(self) -> list[tuple[int, int]]:
        """The first file of each task and that of the next; small files share one."""
        found, held = [0], 0
        for number, file in enumerate(self.size.files):
            held += file.size
            if held >= TASK * self.block or number == len(self.size.files) - 1:
                found.append(number + 1)
                held = 0
        return list(itertools.pairwise(found))

    def read(self, number: int, path: Path) -> Iterator[tuple[int, pa.Table]]:
        """Yield a file's rows, each time with the number of rows before them."""
        file, first, before = self.size.files[number], self.size.files[0].name, 0
        source = Source(path, file.name, self.data.encoding, self.data.delimiter)
        rows = max(1, int(self.block / self.size.row_bytes))
        for table in files.stream(source, rows, self.block):
            if not before:
                sources.check_columns(file.name, table.column_names, first, self.size.names)
            yield before, table
            before += len(table)

    def parts(self, number: int, before: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The lots and the parts of rows of a file (B)."""
        lot_B = sample.lots(self.data.seed, number, before, count)
        return lot_B, self.ranges.parts(lot_B)


@dataclass(frozen=True)
class Encoding:
    """What a task knows to encode rows."""

    job: Job
    schema: Schema
    label: Column
    transforms: features.Transforms

    def part(self, raw: Mapping[str, Raw]) -> encoded.Part:
        """Encode the rows to train on; DataError for a value that its column cannot hold."""
        task, name = tasks.of(self.schema.target), self.label.name
        known_B = ~columns.missing_rows(schema.parse_column(self.label, raw[name]))
        raw = {one: tables.only(values, known_B) for one, values in raw.items()}
        parsed, targets = schema.parse(self.schema, raw), task.encode(raw[name])
        if self.transforms.bounds:
            kept_B = self.transforms.is_trained_on(parsed)
            parsed, targets = {k: one[kept_B] for k, one in parsed.items()}, targets[kept_B]
        return encoded.Part(self.transforms.apply(parsed), targets)

    def fault(self, raw: Mapping[str, Raw]) -> tuple[int, str]:
        """The first row that cannot be encoded, from 0, and why; `raw` has such a row."""
        first, end = 0, len(next(iter(raw.values())))
        while end - first > 1:
            middle = (first + end) // 2
            if self._why(raw, slice(first, middle)):
                end = middle
            else:
                first = middle
        return first, self._why(raw, slice(first, end))

    def _why(self, raw: Mapping[str, Raw], rows: slice) -> str:
        """Why rows cannot be encoded; empty if they can."""
        try:
            self.part({name: values[rows] for name, values in raw.items()})
        except errors.DataError as cause:
            return str(cause)
        return ""


@dataclass(frozen=True)
class Scanned:
    """What the first pass keeps of a file."""

    rows: int  # of the whole file
    digest: str  # of its bytes
    held: pa.Table | None  # rows in the ranges; None without any row
    row_B: np.ndarray  # their numbers in the file, from 0
    lot_B: np.ndarray


def scan(job: Job) -> list[Scanned]:
    """Read all files, and keep the rows in the ranges of a job; raises as `streamed.dataset`."""
    with raised(job.data.source):
        places = [place for place, _ in _run(job, functools.partial(_scanned, job))]
        made = pa.concat_tables(map(ray.get, places))
    return [
        Scanned(
            rows=made["rows"][place].as_py(),
            digest=made["digest"][place].as_py(),
            held=_table(made["held"][place].as_buffer()),
            row_B=made["row"][place].values.to_numpy(),
            lot_B=made["lot"][place].values.to_numpy(),
        )
        for place in range(len(made))
    ]


def encode(encoding: Encoding) -> list[tuple[Place, int]]:
    """Encode all rows to train on; return the place of each block and its number of rows.

    Raises as `streamed.dataset`, and DataError for a value that its column cannot hold.
    """
    with raised(encoding.job.data.source):
        made = _run(encoding.job, functools.partial(_encoded, encoding))
        return [(place, rows) for place, rows in made if rows]


def fetch(place: ray.ObjectRef[pa.Table]) -> pa.Table:
    """A block, from Ray's object store; StorageError if it is lost and cannot be made anew."""
    try:
        return ray.get(place)
    except ray.exceptions.RayError as cause:
        law = "encoded rows must stay in Ray's object store"
        raise errors.StorageError(f"{law}, but {_first_line(cause)}") from cause


@contextlib.contextmanager
def quiet(block: int) -> Iterator[None]:
    """Settings of Ray Data in the block: small blocks in their order, and no words of its own."""
    logger, level = logging.getLogger("ray.data"), logging.getLogger("ray.data").level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Ray's own settings
        context = ray.data.DataContext.get_current()
        ordered = copy.copy(context.execution_options)
        ordered.preserve_order = True
        wanted = {
            "target_max_block_size": block,
            "target_min_block_size": 1,
            "enable_progress_bars": False,
            "print_on_execution_start": False,
            "raise_original_map_exception": True,
            "execution_options": ordered,
        }
        before = {name: getattr(context, name) for name in wanted}
        try:
            for name, value in wanted.items():
                setattr(context, name, value)
            logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for name, value in before.items():
                setattr(context, name, value)
            logger.setLevel(level)


@contextlib.contextmanager
def raised(what: str, address: str | None = None) -> Iterator[None]:
    """Connect to a cluster, and raise what a task raised, or ClusterError, which names `what`."""
    try:
        with cluster.connected(address):
            yield
    except ray.exceptions.RayError as failure:
        if (cause := ray_compat.task_error(failure)) is not None:
            raise cause from failure
        law = f"{what}: Ray Data must read all rows, but {_first_line(failure)}"
        raise errors.ClusterError(law) from failure


def _run(job: Job, function: Callable[..., Any]) -> Iterator[tuple[Place, int]]:
    """Yield place and rows of each block that the tasks give, in the order of the files."""
    spans = [{"first": first, "stop": stop} for first, stop in job.tasks()]
    slots = max(1, int(ray.cluster_resources().get("CPU", 1)))
    with quiet(job.block):
        made = ray.data.from_items(spans, override_num_blocks=len(spans)).map_batches(
            function,
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=0,
            compute=ray.data.TaskPoolStrategy(size=min(slots, len(spans))),
            label_selector=cluster.own_node() if job.size.files[0].is_local else None,
        )
        for bundle in made.iter_internal_ref_bundles():
            for entry in bundle.blocks:
                yield entry.ref, entry.metadata.num_rows or 0


def _scanned(job: Job, span: pa.Table) -> Iterator[pa.Table]:
    """A task of the first pass: what is kept of each file."""
    for number in range(span["first"][0].as_py(), span["stop"][0].as_py()):
        with job.size.files[number].opened() as path:
            yield _scan(job, number, path)


def _scan(job: Job, number: int, path: Path) -> pa.Table:
    held, row_B, lots_B, rows = [], [np.empty(0, np.int64)], [np.empty(0)], 0
    for before, table in job.read(number, path):
        lot_B, part_B = job.parts(number, before, len(table))
        (kept_B,) = np.nonzero(part_B != sample.TRAIN)
        held.append(table.take(pa.array(kept_B)))
        row_B.append(before + kept_B)
        lots_B.append(lot_B[kept_B])
        rows = before + len(table)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    found = {
        "rows": pa.array([rows]),
        "digest": pa.array([digest]),
        "held": pa.array([_bytes(held)], pa.large_binary()),
        "row": pa.array([np.concatenate(row_B)], pa.large_list(pa.int64())),
        "lot": pa.array([np.concatenate(lots_B)], pa.large_list(pa.float64())),
    }
    return pa.table(found)


def _bytes(held: list[pa.Table]) -> bytes:
    if not held:
        return b""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, held[0].schema) as writer:
        for table in held:
            writer.write_table(table)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


def _table(stream: pa.Buffer) -> pa.Table | None:
    return pa.ipc.open_stream(stream).read_all() if stream.size else None


def _encoded(encoding: Encoding, span: pa.Table) -> Iterator[pa.Table]:
    """A task of the second pass: blocks of rows to train on."""
    job = encoding.job
    for number in range(span["first"][0].as_py(), span["stop"][0].as_py()):
        with job.size.files[number].opened() as path:
            for before, table in job.read(number, path):
                _, part_B = job.parts(number, before, len(table))
                train_B = (part_B == sample.TRAIN) | (part_B == sample.SAMPLE)
                raw = load.table(delimited.frame(table.filter(pa.array(train_B))))
                try:
                    yield blocks.pack(encoding.part(raw))
                except errors.DataError:
                    row, why = encoding.fault(raw)
                    place = before + int(np.flatnonzero(train_B)[row]) + 1
                    raise errors.DataError(
                        f"{job.size.files[number].name}: row {place:,}: {why}; columns are typed by"
                        " a sample of the rows: set the column's type in features, or data.missing"
                    ) from None


def _first_line(failure: BaseException) -> str:
    if isinstance(failure, ray.exceptions.RayTaskError):
        failure = failure.cause
        return f"{type(failure).__name__}: {failure}".splitlines()[0]
    return (str(failure).splitlines() or [repr(failure)])[0]
