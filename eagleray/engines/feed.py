"""Columns as a model that was made elsewhere takes them: as they are, without a transform.

Legend: B rows, F columns of one input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pydantic

from eagleray import errors

if TYPE_CHECKING:
    from eagleray.learn import features, schema


class Block(pydantic.BaseModel, frozen=True):
    """An input of the model, and the columns that it is made of."""

    input: str
    columns: tuple[str, ...]
    dtype: str  # of numpy; `object` for texts
    is_flat: bool = False  # (B) in place of (B, F)

    def apply(self, columns: schema.Columns) -> np.ndarray:
        cast = _CASTS[np.dtype(self.dtype).kind]
        stacked = [cast(name, columns[name], self.dtype) for name in self.columns]
        return stacked[0] if self.is_flat else np.stack(stacked, axis=1)


class Feed(pydantic.BaseModel, frozen=True):
    """All inputs of a model."""

    blocks: tuple[Block, ...]

    def apply(self, columns: schema.Columns) -> features.Inputs:
        """The inputs of B rows by name; RequestError for a value that an input cannot hold."""
        return {block.input: block.apply(columns) for block in self.blocks}


def _floats(_: str, values: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers, the largest of `dtype` in place of larger ones, NaN where missing."""
    most = float(np.finfo(dtype).max)
    numbers: np.ndarray = np.clip(values, -most, most).astype(dtype)
    return numbers


def _wholes(name: str, values: np.ndarray, dtype: str) -> np.ndarray:
    low, high = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    fits_B = (values == np.floor(values)) & (values >= low) & (values <= high)
    if not fits_B.all():
        wrong = values[~fits_B][0]
        raise errors.RequestError(
            f"{name}: the model takes whole numbers ({dtype}), but got {wrong:g}", field=name
        )
    return values.astype(dtype)


def _texts(_: str, values: np.ndarray, _dtype: str) -> np.ndarray:
    return values


_CASTS: dict[str, Callable[[str, np.ndarray, str], np.ndarray]] = {
    "f": _floats,
    "i": _wholes,
    "u": _wholes,
    "b": _wholes,
    "O": _texts,
}
"""By the kind of a dtype of numpy."""
