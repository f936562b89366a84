"""What was watched of the layers of a trial while it trained, as a table in Parquet."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

from eagleray import errors

BINS = 20
"""Bins of a histogram by size: below 1e-7, halves of decades up to 1e2, and what is above."""
LOWEST, PER_DECADE = -7, 2


class Row(NamedTuple):
    """One layer in one epoch, measured at one batch; not finite where training breaks."""

    epoch: int
    layer: str
    gradient: float  # norm of the gradient, before it is clipped
    weight: float  # norm of the weights
    update: float  # norm of the step, divided by that of the weights
    dead: float | None  # part of the units behind it whose ReLU gives no row anything but zero
    weights: list[int]  # histogram of the sizes of some weights
    updates: list[int]  # histogram of their changes, each divided by its weight


def edges() -> list[float]:
    """The inner edges of the bins, one fewer than there are bins."""
    return [float(10 ** (LOWEST + place / PER_DECADE)) for place in range(BINS - 1)]


def encode(rows: Sequence[Row]) -> bytes:
    """A Parquet file of these rows, with a column for each of their fields."""
    import pyarrow as pa
    import pyarrow.parquet

    number, counts = pa.float64(), pa.list_(pa.int32())
    kinds = (pa.int32(), pa.string(), number, number, number, number, counts, counts)
    schema = pa.schema(list(zip(Row._fields, kinds, strict=True)))
    packed = io.BytesIO()
    table = pa.Table.from_pylist([row._asdict() for row in rows], schema)
    pyarrow.parquet.write_table(table, packed)
    return packed.getvalue()


def decode(data: bytes, where: str) -> list[Row]:
    """The rows of a file; CorruptObjectError, naming where it is, if it has others."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(data), columns=list(Row._fields))
        return [Row(**row) for row in table.to_pylist()]
    except (pa.ArrowException, TypeError) as cause:
        law = f"{where}: must be a table of {', '.join(Row._fields)}"
        raise errors.CorruptObjectError(f"{law}, but {cause}") from cause
