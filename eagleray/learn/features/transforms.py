"""All transforms of a schema, for training, bundles and serving.

Legend: B rows, F numeric features, K categorical columns, T tokens, (C, H, W) image.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from eagleray.learn.features import made, texts
from eagleray.learn.features.categories import Categories, Category
from eagleray.learn.features.images import Image, Images
from eagleray.learn.features.made import Made
from eagleray.learn.features.numbers import Number, Numbers
from eagleray.learn.features.texts import Text, Vocabulary

if TYPE_CHECKING:
    from eagleray import spec
    from eagleray.learn import schema

Inputs = dict[str, np.ndarray]
"""`numeric` f32 (B, F), `categories` i32 (B, K) as rows of one table, `tokens` i32 (B, T) padded
with 0 beside `weights` f32 (B, T), `image` f32 (B, C, H, W); absent where the data has none."""

_FIT: dict[str, tuple[type, Callable[..., Any]]] = {
    "numbers": (Number, Numbers.fit),
    "categories": (Category, Categories.fit),
    "texts": (Text, texts.fit),
    "images": (Image, Images.fit),
}
"""For each block of `Transforms`, the encoding of its columns and the function that fits it."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a model's inputs: F, K and (C, H, W), and the rows of two embedding tables.

    `table` is for the categories of all columns; `tokens` is for n-grams, row 0 is the padding.
    Where items are recommended to users, the last column of categories names the user, and its
    `users` rows are the last of the table: for missing, for unknown, then one for each user.
    `items` are the sizes of what describes an item.
    """

    numeric: int = 0
    categories: int = 0
    table: int = 0
    tokens: int = 0
    image: tuple[int, ...] | None = None
    users: int = 0
    items: Shape | None = None


@dataclass(frozen=True)
class Items:
    """What describes each item that can be recommended: `numeric` and `categories` of `Inputs`."""

    inputs: dict[str, np.ndarray]
    table: int  # rows of the table of categories

    @property
    def shape(self) -> Shape:
        widths = {name: array.shape[1] for name, array in self.inputs.items()}
        return Shape(**widths, table=self.table)


@dataclass(frozen=True)
class Transforms:
    """Fitted blocks. Their fields are their state: arrays as tensors, all else as JSON."""

    numbers: Numbers
    categories: Categories
    texts: tuple[Vocabulary, ...]
    images: Images
    made: tuple[Made, ...] = ()  # columns that are encoded beside those of the data
    user: str = ""  # the last of the categories, if it names the user that items are for
    items: Items | None = None

    @classmethod
    def fit(
        cls,
        known: schema.Schema,
        options: Mapping[str, spec.FeatureOptions],
        columns: schema.Columns,
    ) -> Transforms:
        """Fit on the training part; DataError for image columns of different heights or widths."""
        encodings = {
            column.name: column.kind.encoding(options.get(column.name) or column.kind.options())
            for column in known.columns
        }
        own_columns = made.find(options)
        for one in own_columns:
            encodings[one.name] = one.encoding(options[one.name])
        if user := known.target.user:
            del encodings[user]
            encodings[user] = Category(sys.maxsize)
        columns = _with(own_columns, columns)
        blocks = {}
        for block, (encoding, fit) in _FIT.items():
            own = {name: one for name, one in encodings.items() if isinstance(one, encoding)}
            blocks[block] = fit(own, columns)
        return cls(**blocks, made=own_columns, user=user)

    @property
    def shape(self) -> Shape:
        return Shape(
            numeric=self.numbers.width,
            categories=len(self.categories.names),
            table=self.categories.table_rows,
            tokens=texts.table_rows(self.texts),
            image=self.images.shape,
            users=self.categories.table_rows - self.categories.starts[-1] if self.user else 0,
            items=self.items.shape if self.items else None,
        )

    def apply(self, columns: schema.Columns) -> Inputs:
        """Encode B rows of canonical columns; every number is finite."""
        columns, inputs = _with(self.made, columns), Inputs()
        if self.numbers.names:
            inputs["numeric"] = self.numbers.apply(columns)
        if self.categories.names:
            inputs["categories"] = self.categories.apply(columns)
        if self.texts:
            inputs["tokens"], inputs["weights"] = texts.apply(self.texts, columns)
        if self.images.names:
            inputs["image"] = self.images.apply(columns)
        return inputs

    def flags(self, columns: schema.Columns) -> list[list[str]]:
        """Warnings of unknown categories and of numbers far out of range, for each row.

        A cross that is new is no warning: most pairs of rare categories are.
        """
        flags = self.categories.flags(columns, len(next(iter(columns.values()))))
        self.numbers.flag(_with(self.made, columns), flags)
        return flags

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The smallest and the largest number of the training part, where they are on record."""
        return self.numbers.ranges()

    def with_categories(self, known: schema.Schema) -> schema.Schema:
        """The schema with the categories of the training part in place of the whole file's."""
        categories = self.categories.known()
        columns = tuple(
            column.model_copy(update={"categories": categories.get(column.name, column.categories)})
            for column in known.columns
        )
        return known.model_copy(update={"columns": columns})

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Values that JSON stores exactly, and tensors by path, for `from_state`."""
        tensors: dict[str, np.ndarray] = {}
        parts = (field.name for field in dataclasses.fields(self))
        return {name: _split(getattr(self, name), name, tensors) for name in parts}, tensors

    @classmethod
    def from_state(cls, state: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Transforms:
        tree = copy.deepcopy(dict(state))
        for path, array in tensors.items():
            *parents, last = path.split(".")
            part: Any = tree
            for key in parents:
                part = part[int(key)] if isinstance(part, list) else part.setdefault(key, {})
            part[last] = array
        return msgspec.convert(tree, cls, strict=False)


def _with(made: tuple[Made, ...], columns: schema.Columns) -> schema.Columns:
    """The columns, and those that are made of them."""
    return {**columns, **{one.name: one.apply(columns) for one in made}} if made else columns


def _split(value: Any, path: str, tensors: dict[str, np.ndarray]) -> Any:
    """The value for JSON; its arrays move to `tensors` by path."""
    if isinstance(value, np.ndarray):
        tensors[path] = value
        return {}
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        parts = {key: _split(part, f"{path}.{key}", tensors) for key, part in value.items()}
        return {key: part for key, part in parts.items() if part != {}}
    if isinstance(value, tuple):
        return [_split(part, f"{path}.{place}", tensors) for place, part in enumerate(value)]
    return value
