"""All transforms of a schema, for training, bundles and serving.

Legend: B rows, F numeric features, K categorical columns, T tokens, (C, H, W) image.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from eagleray import code, errors
from eagleray.learn.features import coded, made, outliers, texts, vectors
from eagleray.learn.features.categories import Categories, Category, listed
from eagleray.learn.features.coded import UNMARKED, Coded, Codes, Marks, Truth
from eagleray.learn.features.images import Image, Images
from eagleray.learn.features.made import Made
from eagleray.learn.features.numbers import Number, Numbers
from eagleray.learn.features.texts import Text, Vocabulary
from eagleray.learn.features.vectors import Encoder, Vector

if TYPE_CHECKING:
    from eagleray import spec
    from eagleray.learn import schema
    from eagleray.learn.features import Encoding

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
    codes: tuple[Codes, ...] = ()  # categories that enter as numbers
    vectors: tuple[Encoder, ...] = ()  # texts that enter as numbers
    bounds: outliers.Bounds = field(default_factory=dict)  # of the rows that are trained on

    @classmethod
    def fit(
        cls,
        known: schema.Schema,
        options: Mapping[str, spec.FeatureOptions],
        columns: schema.Columns,
        *,
        targets: np.ndarray | None = None,
        marks: Marks = UNMARKED,
        functions: Mapping[str, code.Code] | None = None,
    ) -> Transforms:
        """Fit on the training part; `functions` are the user's own, by their names.

        Raises:
            DataError: image columns have different heights or widths, or no row of a class is left.
            CodeError: a function of the user's does not give what it must.
        """
        own_columns = made.find(options, functions or {})
        encodings = _encodings(known, options, own_columns)
        if user := known.target.user:
            del encodings[user]
            encodings[user] = Category(sys.maxsize)
        columns, truth = _with(own_columns, columns), _truth(targets, marks, known)
        for one in own_columns:
            one.check(columns)
        bounds = outliers.fit(encodings, columns)
        if bounds:
            columns, truth = _within(bounds, columns, truth, known)
            encodings = outliers.unclipped(encodings)
        codes = coded.fit(_of(encodings, Coded), columns, truth)
        encodings |= {name: Number() for one in codes for name in one.columns}
        trained = columns | _trained(codes, columns, truth)
        blocks: dict[str, Any] = {
            block: fit(_of(encodings, encoding), trained) for block, (encoding, fit) in _FIT.items()
        }
        encoders = vectors.fit(_of(encodings, Vector), columns, functions or {})
        return cls(
            **blocks, made=own_columns, codes=codes, vectors=encoders, bounds=bounds, user=user
        )

    @property
    def shape(self) -> Shape:
        return Shape(
            numeric=self.numbers.width + sum(one.width for one in self.vectors),
            categories=len(self.categories.names),
            table=self.categories.table_rows,
            tokens=texts.table_rows(self.texts),
            image=self.images.shape,
            users=self.categories.table_rows - self.categories.starts[-1] if self.user else 0,
            items=self.items.shape if self.items else None,
        )

    def apply(self, columns: schema.Columns) -> Inputs:
        """Encode B rows of canonical columns; every number is finite."""
        columns = _with(self.made, columns)
        return self._encode(columns | self._numbered(columns))

    def training(
        self, columns: schema.Columns, targets: np.ndarray, marks: Marks = UNMARKED
    ) -> Inputs:
        """Encode the rows that are trained on, in their order.

        A mean of the target is that of other rows, of other groups or of earlier times: of its own,
        a row would give its target away.
        """
        columns = _with(self.made, columns)
        coded = (one.training(columns[one.name], targets, marks) for one in self.codes)
        return self._encode(columns | _merged(coded))

    def is_trained_on(self, columns: schema.Columns) -> np.ndarray:
        """Which rows (B) of the training part are trained on: not those with an outlier."""
        return outliers.within(self.bounds, _with(self.made, columns))

    def flags(self, columns: schema.Columns) -> list[list[str]]:
        """Warnings of unknown categories and of numbers far out of range, for each row.

        A cross that is new is no warning: most pairs of rare categories are.
        """
        flags = self.categories.flags(columns, len(next(iter(columns.values()))))
        for one in self.codes:
            one.flag(columns, flags)
        columns = _with(self.made, columns)
        self.numbers.flag(columns | self._numbered(columns), flags)
        return flags

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The smallest and the largest number of the training part, where they are on record."""
        return self.numbers.ranges()

    def with_categories(self, known: schema.Schema) -> schema.Schema:
        """The schema with the categories of the training part in place of the whole file's."""
        categories = self.categories.known()
        categories |= {one.name: listed(one.names) for one in self.codes}
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

    def files(self) -> dict[str, bytes]:
        """The sources of the user's functions by their paths in a bundle, for `from_state`."""
        functions = [one.function for one in self.made] + [one.function for one in self.vectors]
        return {one.path: one.source.encode() for one in functions if one is not None}

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Any],
        tensors: Mapping[str, np.ndarray],
        files: Mapping[str, bytes] | None = None,
    ) -> Transforms:
        tree = copy.deepcopy(dict(state))
        for path, array in tensors.items():
            *parents, last = path.split(".")
            part: Any = tree
            for key in parents:
                part = part[int(key)] if isinstance(part, list) else part.setdefault(key, {})
            part[last] = array
        for one in (*tree.get("made", ()), *tree.get("vectors", ())):
            if function := one.get("function"):
                own = code.from_files(function["name"], files or {})
                one["function"] = dataclasses.asdict(own)
        return msgspec.convert(tree, cls, strict=False)

    def _numbered(self, columns: schema.Columns) -> schema.Columns:
        """The numbers of categories that enter as such."""
        return _merged(one.apply(columns[one.name]) for one in self.codes)

    def _encode(self, columns: schema.Columns) -> Inputs:
        inputs = Inputs()
        numeric = [self.numbers.apply(columns)] if self.numbers.names else []
        numeric += [one.apply(columns) for one in self.vectors]
        if numeric:
            inputs["numeric"] = numeric[0] if len(numeric) == 1 else np.concatenate(numeric, axis=1)
        if self.categories.names:
            inputs["categories"] = self.categories.apply(columns)
        if self.texts:
            inputs["tokens"], inputs["weights"] = texts.apply(self.texts, columns)
        if self.images.names:
            inputs["image"] = self.images.apply(columns)
        return inputs


def _encodings(
    known: schema.Schema, options: Mapping[str, spec.FeatureOptions], made: tuple[Made, ...]
) -> dict[str, Encoding]:
    """How each column enters a model, those that are made last."""
    of_data = {
        column.name: column.kind.encoding(options.get(column.name) or column.kind.options())
        for column in known.columns
    }
    return of_data | {one.name: one.encoding(options[one.name]) for one in made}


def _of(encodings: Mapping[str, Encoding], encoding: type) -> dict[str, Any]:
    return {name: one for name, one in encodings.items() if isinstance(one, encoding)}


def _truth(targets: np.ndarray | None, marks: Marks, known: schema.Schema) -> Truth | None:
    return None if targets is None else Truth(targets, len(known.target.classes), marks)


def _within(
    bounds: outliers.Bounds, columns: schema.Columns, truth: Truth | None, known: schema.Schema
) -> tuple[schema.Columns, Truth | None]:
    """The rows without outliers; DataError where there is none, or none of a class."""
    kept_B = outliers.within(bounds, columns)
    law = f"{', '.join(bounds)}: outliers: drop must leave training rows"
    if not kept_B.any():
        raise errors.DataError(f"{law}, but leaves none of {len(kept_B):,}")
    columns = {name: array[kept_B] for name, array in columns.items()}
    if truth is None:
        return columns, None
    left = truth._replace(targets=truth.targets[kept_B], marks=truth.marks.take(kept_B))
    if truth.classes and (gone := set(truth.targets.tolist()) - set(left.targets.tolist())):
        lost = known.target.classes[min(gone)]
        raise errors.DataError(f"{law} of each class, but leaves none of {lost!r}")
    return columns, left


def _trained(
    codes: tuple[Codes, ...], columns: schema.Columns, truth: Truth | None
) -> schema.Columns:
    """The numbers of categories of the training rows."""
    if truth is None:
        return _merged(one.apply(columns[one.name]) for one in codes)
    return _merged(one.training(columns[one.name], truth.targets, truth.marks) for one in codes)


def _merged(parts: Iterable[schema.Columns]) -> schema.Columns:
    return {name: array for part in parts for name, array in part.items()}


def _with(made: tuple[Made, ...], columns: schema.Columns) -> schema.Columns:
    """The columns, and those that are made of them."""
    return {**columns, **{one.name: one.apply(columns) for one in made}} if made else columns


def _split(value: Any, path: str, tensors: dict[str, np.ndarray]) -> Any:
    """The value for JSON; its arrays move to `tensors` by path, sources to `files`."""
    if isinstance(value, np.ndarray):
        tensors[path] = value
        return {}
    if isinstance(value, code.Code):
        return {"name": value.name}
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        parts = {key: _split(part, f"{path}.{key}", tensors) for key, part in value.items()}
        return {key: part for key, part in parts.items() if part != {}}
    if isinstance(value, tuple):
        return [_split(part, f"{path}.{place}", tensors) for place, part in enumerate(value)]
    return value
