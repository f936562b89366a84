"""One input column, and how its raw values are read one by one."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import numpy as np
import pydantic

from eagleray import errors, messages
from eagleray.learn.columns import pictures, values
from eagleray.learn.columns.kind import REGISTRY, ColumnKind

Raw = Sequence[Any] | np.ndarray
Columns = dict[str, np.ndarray]

T = TypeVar("T")

PRIME = np.uint64(0x9E3779B97F4A7C15)
HASHED_CELLS = 1 << 24
"""Cells of pictures that are hashed at once."""


def _registered(name: str) -> str:
    REGISTRY[name]
    return name


class Column(pydantic.BaseModel, frozen=True):
    """One input column."""

    name: str
    type: Annotated[str, pydantic.AfterValidator(_registered)]
    nullable: bool = False  # whether values are missing in the training file
    integer: bool = False  # whether all numbers are whole; of names, whether they are such numbers
    decimal_comma: bool = False  # whether numbers written as text have a decimal comma
    missing: tuple[str, ...] = ()  # markers, from the training file and from `data.missing`
    written: str | None = None  # `strptime` format of dates that are not in ISO 8601
    image_shape: tuple[int, ...] | None = None  # (C, H, W)
    categories: tuple[str, ...] | None = None  # in the training file, sorted; None: too many

    @property
    def kind(self) -> ColumnKind:
        return REGISTRY[self.type]

    @property
    def markers(self) -> frozenset[str]:
        """Texts, in lower case, that stand for a missing value."""
        return values.markers(self.kind.markers, self.missing)


@dataclass
class Tolerance:
    """Collects faults by index in place of a DataError; `pixels` is None outside requests."""

    failures: dict[int, str] = field(default_factory=dict)
    pixels: pictures.PixelBudget | None = None


def missing_rows(array: np.ndarray) -> np.ndarray:
    """Which rows of a canonical column are missing, as booleans (B)."""
    if array.dtype == object:
        is_none: np.ndarray = array == None  # noqa: E711 (each value, not the array)
        return is_none
    missing_B: np.ndarray = np.isnan(array.reshape(len(array), -1)).any(axis=1)
    return missing_B


def hashed(array: np.ndarray) -> np.ndarray:
    """A hash of each row of an array (B), u64: equal for equal rows, missing ones too."""
    import pandas as pd

    if array.ndim == 1:
        plain = array if array.dtype == object else array + 0.0  # no -0.0
        hashes_B: np.ndarray = pd.util.hash_array(plain)
        return hashes_B
    cells = np.ascontiguousarray(array.reshape(len(array), -1), np.float32).view(np.uint32)
    factors = np.random.default_rng(0).integers(1, 2**63, cells.shape[1], np.uint64) * 2 + 1
    parts = np.array_split(cells, max(1, cells.size // HASHED_CELLS))
    return np.concatenate([(part * factors).sum(axis=1, dtype=np.uint64) for part in parts])


def hashed_rows(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """A hash of each row of several arrays (B), u64."""
    return joined(map(hashed, arrays))


def joined(hashes: Iterable[np.ndarray]) -> np.ndarray:
    """One hash of each row (B), u64, of several hashes of it."""
    return functools.reduce(_joined, hashes)


def first_of_each(hash_B: np.ndarray) -> np.ndarray:
    """Whether each row (B) is the first with its hash."""
    import pandas as pd

    first_B: np.ndarray = ~pd.Series(hash_B).duplicated().to_numpy()
    return first_B


def _joined(first_B: np.ndarray, second_B: np.ndarray) -> np.ndarray:
    joined_B: np.ndarray = (first_B * PRIME) ^ (second_B + (first_B >> np.uint64(29)))
    return joined_B


def read_each(
    column: Column,
    raw: Raw,
    read: Callable[[Any], T],
    missing: T,
    tolerance: Tolerance | None = None,
) -> list[T]:
    """Read each value, equal texts once; markers and None give `missing`.

    Without `tolerance`, a value that `read` refuses raises DataError.
    """
    markers, need = column.markers, column.kind.need
    known: dict[str, T] = {}
    parsed = []
    for index, value in enumerate(raw.tolist() if isinstance(raw, np.ndarray) else raw):
        try:
            if isinstance(value, str):
                if value not in known:
                    text = value.strip().casefold()
                    is_marker = text in markers or values.category(text) in markers
                    known[value] = missing if is_marker else _read(column.name, need, value, read)
                parsed.append(known[value])
            elif value is None or (isinstance(value, float) and value != value):
                parsed.append(missing)
            else:
                parsed.append(_read(column.name, need, value, read))
        except errors.DataError as cause:
            if tolerance is None:
                raise
            tolerance.failures[index] = str(cause).removeprefix(f"{column.name}: ")
            parsed.append(missing)
    return parsed


def _read(name: str, need: str, value: Any, read: Callable[[Any], T]) -> T:
    try:
        return read(value)
    except errors.DataError as cause:
        raise errors.DataError(f"{name}: {cause}") from cause
    except (ValueError, KeyError, OverflowError) as cause:
        shown = messages.shortened(repr(value))
        raise errors.DataError(f"{name}: {need} is needed, but got {shown}") from cause
