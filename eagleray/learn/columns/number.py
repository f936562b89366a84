"""Kinds whose canonical values are numbers: f64, NaN where missing."""

import math
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from eagleray.learn import features
from eagleray.learn.columns import fields, values
from eagleray.learn.columns.column import Column, Raw, Tolerance, read_each
from eagleray.learn.columns.kind import ColumnKind


def finite(numbers: np.ndarray) -> np.ndarray:
    """The numbers, infinities as the largest float64."""
    clipped: np.ndarray = np.clip(numbers, -sys.float_info.max, sys.float_info.max)
    return clipped


class NumberKind(ColumnKind):
    """One number for each value; a request may send it as a number or as text."""

    parsed_dtype: ClassVar[type[np.generic] | None] = np.float64
    encoded = features.Number()
    json_types: ClassVar[Any] = float | str
    json_schema: ClassVar = {"anyOf": [{"type": "number"}, {"type": "string"}]}

    def read(self, column: Column, value: Any) -> float:
        """The number of one raw value, or ValueError."""
        raise NotImplementedError

    def write(self, value: float) -> Any:
        """The JSON value of a number, from which `read` gives it again."""
        whole = value.is_integer() and abs(value) < 2**53
        return int(value) if whole and (value or math.copysign(1, value) > 0) else value

    def parse(self, column: Column, raw: Raw, tolerance: Tolerance | None = None) -> np.ndarray:
        numbers = read_each(column, raw, lambda one: self.read(column, one), math.nan, tolerance)
        return np.array(numbers, np.float64)

    def traits(self, array: np.ndarray) -> np.ndarray:
        return array[:, None]

    def blurred(self, array: np.ndarray) -> np.ndarray:
        """Three significant digits."""
        size = np.floor(np.log10(np.abs(array), where=array != 0, out=np.zeros(len(array))))
        unit = 10.0 ** np.clip(size - 2, -300, 300)
        rounded: np.ndarray = np.round(array / unit) * unit + 0.0  # no -0.0
        return rounded

    def openapi(self, column: Column) -> dict[str, Any]:
        """`json_schema`, or a mark for a missing value."""
        if not column.nullable:
            return self.json_schema
        return {"anyOf": [self.json_schema, values.pattern(column.markers)]}

    def to_json(self, array: np.ndarray) -> list[Any]:
        write = self.write
        return [None if math.isnan(value) else write(value) for value in array.tolist()]

    def field(
        self, column: Column, examples: Sequence[Any], extremes: fields.Range | None
    ) -> fields.Field:
        hint = ", ".join(filter(None, (self.need, fields.between(extremes))))
        return fields.Field(hint=hint, value=fields.written(examples[0]), typed=True)
