"""Encoded rows in blocks, of which a few are in memory at a time. Legend: B rows, T tokens.

A block is a table of Arrow: a list of fixed size for each row of an array, and lists without their
padding for tokens and their weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ray_jobs.data import encoded

if TYPE_CHECKING:
    from ray_jobs.data import reading

TARGET = "target"
TOKENS, WEIGHTS = "tokens", "weights"
IMAGE = "image"


@dataclass(frozen=True)
class Blocks:
    """The training part as blocks, wherever they are."""

    places: tuple[Any, ...]  # of the blocks, as `get` takes them
    sizes: tuple[int, ...]  # rows of each
    targets: np.ndarray  # of a sample of the rows, for statistics
    image: tuple[int, ...] | None  # (C, H, W)
    get: Callable[[Any], pa.Table]

    def __len__(self) -> int:
        return sum(self.sizes)

    def reader(
        self,
        load: reading.Load,
        *,
        rank: int = 0,
        size: int = 1,
        chance_B: np.ndarray | None = None,
    ) -> reading.Reader:
        from ray_jobs.data import reading

        assert chance_B is None  # a law of the file
        return reading.Stream(self, load, rank=rank, size=size)

    def part(self, block: int) -> encoded.Part:
        return unpack(self.get(self.places[block]), self.image)


def pack(part: encoded.Part) -> pa.Table:
    """Encoded rows as a table."""
    columns, arrays = {TARGET: pa.array(part.targets)}, dict(part.inputs)
    if TOKENS in arrays:
        token_BT, weight_BT = arrays.pop(TOKENS), arrays.pop(WEIGHTS)
        real_BT = token_BT != 0  # row 0 of the table is the padding
        ends = np.concatenate([[0], np.cumsum(real_BT.sum(1))]).astype(np.int32)
        for name, array in ((TOKENS, token_BT), (WEIGHTS, weight_BT)):
            columns[name] = pa.ListArray.from_arrays(ends, pa.array(array[real_BT]))
    for name, array in arrays.items():
        flat = pa.array(np.ascontiguousarray(array).reshape(-1))
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(array.shape[1:])))
    return pa.table(columns)


def unpack(table: pa.Table, image: tuple[int, ...] | None = None) -> encoded.Part:
    """The opposite of `pack`; arrays share the table's memory where they can."""
    columns = {name: _one(table[name]) for name in table.column_names}
    targets = columns.pop(TARGET).to_numpy(zero_copy_only=False)
    inputs = {name: _array(column) for name, column in columns.items()}
    if image is not None:
        inputs[IMAGE] = inputs[IMAGE].reshape(-1, *image)
    return encoded.Part(inputs, targets)


def _array(column: pa.Array) -> np.ndarray:
    if not pa.types.is_fixed_size_list(column.type):
        return _padded(column)
    flat: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1)


def _padded(lists: pa.ListArray) -> np.ndarray:
    """(B, T), padded with 0; T is at least 1."""
    length_B, values = lists.value_lengths().to_numpy(), lists.flatten().to_numpy()
    width = max(1, int(length_B.max(initial=1)))
    padded_BT = np.zeros((len(lists), width), values.dtype)
    padded_BT[np.arange(width) < length_B[:, None]] = values
    return padded_BT


def _one(column: pa.ChunkedArray) -> Any:
    chunks = column.chunks
    return chunks[0] if len(chunks) == 1 else column.combine_chunks()
