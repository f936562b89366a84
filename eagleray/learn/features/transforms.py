"""All transforms of a schema together: the one door for training, bundles and serving.

Legend: B rows, F numeric features, K categorical columns, T tokens, (C, H, W) image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eagleray.learn.features import encodings
from eagleray.learn.features.categories import Categories
from eagleray.learn.features.images import Images
from eagleray.learn.features.numbers import Numbers
from eagleray.learn.features.texts import Texts

if TYPE_CHECKING:
    from eagleray import spec
    from eagleray.learn import schema

Inputs = dict[str, np.ndarray]
"""`numeric` f32 (B, F), `categories` i32 (B, K) as rows of one table, `tokens` i32 (B, T) padded
with 0 beside `weights` f32 (B, T), `image` f32 (B, C, H, W); absent where the data has none."""

_BLOCKS: dict[str, tuple[type[encodings.Encoding], Any]] = {
    "numbers": (encodings.Number, Numbers),
    "categories": (encodings.Category, Categories),
    "texts": (encodings.Text, Texts),
    "images": (encodings.Image, Images),
}
"""Blocks, and the encodings of the columns that each takes."""


@dataclass(frozen=True)
class Shape:
    """What a model has to take.

    Attributes:
        numeric: F.
        categories: K.
        table: rows of the one table that the categories of all columns index.
        tokens: rows of the table that tokens index, the padding's row 0 included; 0 for no text.
        image: (C, H, W).
    """

    numeric: int = 0
    categories: int = 0
    table: int = 0
    tokens: int = 0
    image: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Transforms:
    """Fitted blocks; a block without columns does nothing."""

    numbers: Numbers
    categories: Categories
    texts: Texts
    images: Images

    @classmethod
    def fit(
        cls,
        known: schema.Schema,
        options: Mapping[str, spec.FeatureOptions],
        columns: schema.Columns,
    ) -> Transforms:
        """Learn from the training part.

        Args:
            known: the schema that the columns follow.
            options: the `features` section of one configuration, by column.
            columns: canonical columns of the training part alone.

        Raises:
            DataError: image columns of different heights or widths.
        """
        chosen = {
            column.name: column.kind.encoding(options.get(column.name) or column.kind.options())
            for column in known.columns
        }
        blocks = {}
        for name, (taken, block) in _BLOCKS.items():
            mine = {column: one for column, one in chosen.items() if isinstance(one, taken)}
            blocks[name] = block.fit(mine, columns)
        return cls(**blocks)

    @property
    def shape(self) -> Shape:
        return Shape(
            numeric=self.numbers.width,
            categories=len(self.categories.names),
            table=self.categories.table,
            tokens=self.texts.table,
            image=self.images.shape,
        )

    def apply(self, columns: schema.Columns) -> Inputs:
        """Encode B rows of canonical columns; every number is finite."""
        inputs: Inputs = {}
        if self.numbers.names:
            inputs["numeric"] = self.numbers.apply(columns)
        if self.categories.names:
            inputs["categories"] = self.categories.apply(columns)
        if self.texts.names:
            inputs["tokens"], inputs["weights"] = self.texts.apply(columns)
        if self.images.names:
            inputs["image"] = self.images.apply(columns)
        return inputs

    def flags(self, columns: schema.Columns) -> list[list[str]]:
        """For each row a warning for each unknown category and each number far out of range."""
        flags = self.categories.flags(columns, len(next(iter(columns.values()))))
        self.numbers.flag(columns, flags)
        return flags

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What `from_state` takes: values that JSON holds exactly, and tensors."""
        described, tensors = {}, {}
        for name in _BLOCKS:
            described[name], held = getattr(self, name).state()
            tensors.update({f"{name}.{key}": array for key, array in held.items()})
        return described, tensors

    @classmethod
    def from_state(cls, state: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Transforms:
        """The transforms that gave this state."""
        blocks = {}
        for name, (_, block) in _BLOCKS.items():
            start = f"{name}."
            held = {
                key.removeprefix(start): tensors[key] for key in tensors if key.startswith(start)
            }
            blocks[name] = block.from_state(state[name], held)
        return cls(**blocks)


def seen(known: schema.Schema, transforms: Transforms) -> schema.Schema:
    """The schema with the categories that the training part had, in place of the whole file's."""
    categories = dict(zip(transforms.categories.names, transforms.categories.seen(), strict=True))
    columns = tuple(
        column.model_copy(update={"categories": categories.get(column.name, column.categories)})
        for column in known.columns
    )
    return known.model_copy(update={"columns": columns})
