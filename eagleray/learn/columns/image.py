"""`image`: pictures, f32 (B, C, H, W), NaN where missing."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import pydantic
from pydantic import Field

from eagleray import errors, messages
from eagleray.learn import features
from eagleray.learn.columns import fields, pictures, values
from eagleray.learn.columns.arrow import Distinct
from eagleray.learn.columns.column import Column, Raw, Tolerance, read_each
from eagleray.learn.columns.kind import ColumnKind, Guess

LONGEST_SIDE = 128  # maximum pixels of a side; larger pictures are scaled down
GRID = 8
"""Sides of the grid of brightness that quick models are given."""
_LAWS: dict[type, str] = {
    bytes: "a PNG or JPEG is needed",
    str: "a PNG or JPEG in base64 is needed",
}
"""What must hold of a value that is taken for a picture, by its type."""
SAMPLED_PICTURES = 1000  # number of pictures from which the shape is inferred


class Augment(pydantic.BaseModel):
    """How a picture is changed at random whenever it is trained on."""

    model_config = pydantic.ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False
    )

    flip: bool = Field(False, description="Mirror every second one, left to right.")
    crop: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Largest part of its sides that is cut off; the rest is enlarged."
    )
    rotate: Annotated[float, Field(ge=0, le=180)] = Field(
        0.0, description="Largest angle in degrees, either way."
    )
    noise: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Deviation of normal noise, where a channel's own deviation is 1."
    )


class Options(pydantic.BaseModel):
    augment: Augment | None = Field(
        None, description="image: random changes of pictures in training, and only there."
    )


class Image(ColumnKind):
    name = "image"
    need = "a picture of the training pictures' shape"
    measured = "brightness of {}"
    is_rich = True
    holds_paths = True
    most_unreadable = 0.05
    parsed_dtype = np.float32
    is_slow = True
    native = (list, tuple, np.ndarray, bytes)
    encoded = features.Image()
    options = Options
    in_training = frozenset({"augment"})

    def infer(self, texts: Distinct, *, named: bool) -> Guess | None:
        if not all(map(pictures.is_encoded, texts.sample)):
            return None
        return Guess() if all(map(pictures.is_encoded, texts.counts)) else None

    def raw_fields(self, name: str, raw: Raw) -> dict[str, Any]:
        """The most channels; the most frequent height and width, at most `LONGEST_SIDE`.

        DataError where no value is a picture.
        """
        shapes: Counter[tuple[int, ...]] = Counter()
        first: errors.DataError | None = None
        present = ((n, value) for n, value in enumerate(raw, 1) if value is not None)
        for place, value in itertools.islice(present, SAMPLED_PICTURES):
            try:
                shapes[pictures.decode(value).shape] += 1
            except (ValueError, errors.DataError):
                first = first or _no_picture(name, place, value)
        if first and not shapes:
            raise first
        _, height, width = max(shapes, key=lambda shape: (shapes[shape], shape), default=(1, 1, 1))
        smaller = max(1.0, max(height, width) / LONGEST_SIDE)
        channels = max((shape[0] for shape in shapes), default=1)
        sides = (max(1, round(side / smaller)) for side in (height, width))
        return {"image_shape": (channels, *sides)}

    def parse(self, column: Column, raw: Raw, tolerance: Tolerance | None = None) -> np.ndarray:
        shape = column.image_shape
        assert shape is not None
        budget = tolerance.pixels if tolerance is not None else None
        empty = np.full(shape, math.nan, np.float32)

        def read(value: object) -> np.ndarray:
            return pictures.fit(value, shape, budget)

        images = read_each(column, raw, read, empty, tolerance)
        return np.stack(images) if images else np.empty((0, *shape), np.float32)

    def to_json(self, array: np.ndarray) -> list[Any]:
        return [None if np.isnan(picture).all() else pictures.nested(picture) for picture in array]

    def quantity(self, array: np.ndarray) -> np.ndarray:
        """Mean brightness."""
        brightness_B: np.ndarray = array.mean(axis=(1, 2, 3), dtype=np.float64)
        return brightness_B

    def traits(self, array: np.ndarray) -> np.ndarray:
        """Brightness on a grid of at most `GRID` by `GRID`."""
        grey = array.mean(axis=1)
        rows, cells = (np.array_split(np.arange(side), min(GRID, side)) for side in grey.shape[1:])
        bands = [grey[:, row].mean(axis=1) for row in rows]
        return np.stack([band[:, cell].mean(axis=1) for band in bands for cell in cells], axis=1)

    def blurred(self, array: np.ndarray) -> np.ndarray:
        """Sixteen levels of brightness on that grid."""
        traits = self.traits(array)
        width = max(float(np.nanmax(traits)) - float(np.nanmin(traits)), 1e-9) / 16
        levels: np.ndarray = np.round(traits / width)
        return levels

    def wire(self, column: Column) -> Any:
        assert column.image_shape is not None
        grey = column.image_shape[0] == 1
        return str | (list[list[float]] if grey else list[list[list[float]]])

    def openapi(self, column: Column) -> dict[str, Any]:
        assert column.image_shape is not None
        channels, height, width = column.image_shape
        number = {"type": "number"}
        numbers = number if channels == 1 else {"type": "array", "items": number}
        rows = {"type": "array", "items": {"type": "array", "items": numbers}}
        text = f"{height} by {width} numbers, or PNG or JPEG as base64."
        marks = [values.pattern(column.markers)] if column.nullable else []
        encoded = {"type": "string", "format": "byte", "minLength": 4}
        return {"description": text, "anyOf": [rows, encoded, *marks]}

    def field(
        self, column: Column, examples: Sequence[Any], extremes: fields.Range | None
    ) -> fields.Field:
        assert column.image_shape is not None
        _, height, width = column.image_shape
        hint = f"PNG or JPEG, scaled to {width} by {height} pixels"
        return fields.picture(examples[0], hint)


IMAGE = Image()


def _no_picture(name: str, place: int, value: object) -> errors.DataError:
    laws = (law for kind, law in _LAWS.items() if isinstance(value, kind))
    law = next(laws, "a picture (rows of numbers) is needed")
    if isinstance(value, pictures.File):
        return errors.DataError(f"{name}: {law}, but {value.name} is none")
    plain = value.tolist() if isinstance(value, np.ndarray) else value
    got = messages.shortened(repr(plain))
    return errors.DataError(f"{name}: {law}, but value {place:,} is {got}")
