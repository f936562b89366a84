"""One input column, and how its raw values are read one by one."""

from collections.abc import Callable, Sequence
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


def _registered(name: str) -> str:
    REGISTRY[name]
    return name


class Column(pydantic.BaseModel, frozen=True):
    """One input column."""

    name: str
    type: Annotated[str, pydantic.AfterValidator(_registered)]
    nullable: bool = False  # whether values are missing in the training file
    integer: bool = False  # whether all numbers are whole
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
                    is_marker = value.strip().casefold() in markers
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
