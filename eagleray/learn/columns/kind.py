"""What a column kind does, and all kinds by name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import pydantic

from eagleray import plugins
from eagleray.learn.columns import values
from eagleray.learn.features import reference

if TYPE_CHECKING:
    from eagleray.learn.columns.column import Column, Raw, Tolerance
    from eagleray.learn.columns.distinct import Distinct
    from eagleray.learn.features.encodings import Encoding


class NoOptions(pydantic.BaseModel):
    """For kinds that have no options in `features`."""


@dataclass(frozen=True)
class Guess:
    """What a kind makes of a column of texts.

    Attributes:
        fields: of the column, such as `decimal_comma`.
        missing: texts that are no value of the kind and are taken as missing.
        note: what people should know, without the column's name.
        fits: whether the column is of this kind; a note may say why it is not.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    note: str = ""
    fits: bool = True


class ColumnKind(Protocol):
    """One kind of column: all that is done differently for its values.

    `NumberKind` and `WordKind` do most of it for kinds whose values are numbers or names.

    Attributes:
        name: in the experiment file and in a bundle's schema.
        need: what a value must be, in messages.
        options: what `features.COLUMN` takes for it beside `type`.
        markers: texts, in lower case, that stand for a missing value.
        is_input: whether the column is learned from.
        is_fallback: whether it takes columns that no other kind takes; it is asked last.
        target: the name of the kind that a target of this kind is read as; None where it cannot be
            predicted.
        is_ordered: whether rows can be sorted by it, for `data.split.time`.
        holds_paths: whether values in a text file may be paths of other files.
        takes_any_text: whether no text is refused.
        parsed_dtype: of canonical values that are parsed before a request is queued, because JSON's
            types do not settle them; None where they do.
        is_slow: whether parsing a text takes long, so that it is done beside the event loop.
    """

    name: ClassVar[str]
    need: ClassVar[str]
    options: ClassVar[type[pydantic.BaseModel]] = NoOptions
    markers: ClassVar[frozenset[str]] = values.PLACEHOLDERS
    is_input: ClassVar[bool] = True
    is_fallback: ClassVar[bool] = False
    target: ClassVar[str | None] = None
    is_ordered: ClassVar[bool] = False
    holds_paths: ClassVar[bool] = False
    takes_any_text: ClassVar[bool] = False
    parsed_dtype: ClassVar[type[np.generic] | None] = None
    is_slow: ClassVar[bool] = False

    def holds(self, types: Collection[type]) -> bool:
        """Whether a column of values of these Python or numpy types is of this kind."""
        return False

    def infer(self, texts: Distinct, *, named: bool) -> Guess | None:
        """How texts, at least one, are written as values of this kind; None where they are not.

        More oddities are let pass where the kind is `named` by the experiment.
        """
        return None

    def plain(self, column: Column) -> str:
        """Which texts Arrow reads at once, a key of `arrow.PLAIN`; empty for none."""
        return ""

    def raw_fields(self, name: str, raw: Raw) -> dict[str, Any]:
        """Fields of the column that parsing needs; DataError for a value of another kind."""
        return {}

    def parsed_fields(
        self, array: np.ndarray, missing_B: np.ndarray, texts: Distinct
    ) -> dict[str, Any]:
        """Fields of the column that its canonical values give; at least one is not missing."""
        return {}

    def is_key(self, column: Column, array: np.ndarray, *, hinted: bool) -> bool:
        """Whether different values may only tell rows apart; `hinted` where the name says so."""
        return False

    def parse(self, column: Column, raw: Raw, tolerance: Tolerance | None = None) -> np.ndarray:
        """Canonical values (B, …) of B raw ones; DataError as `tolerance` says."""
        ...

    def to_json(self, array: np.ndarray) -> list[Any]:
        """Values, as JSON may hold them, that `parse` gives the array for."""
        ...

    def encoding(self, options: Any) -> Encoding:
        """How the column enters a model, from an instance of `options`."""
        ...

    def quantity(self, array: np.ndarray) -> np.ndarray:
        """One number (B) that stands for each value in statistics, NaN where missing."""
        return array

    def statistics(self, array: np.ndarray) -> dict[str, Any]:
        """Statistics of the training part, see `eagleray.learn.features.reference`."""
        return reference.of_numbers(self.quantity(array))

    def shares(self, statistics: Mapping[str, Any], array: np.ndarray) -> list[float]:
        """Shares of other rows in the bins or categories of `statistics`."""
        return reference.shares_of_numbers(statistics, self.quantity(array))

    def remarks(
        self, column: Column, array: np.ndarray, train: np.ndarray, options: Any | None
    ) -> Iterator[str]:
        """What may not be meant so, with the setting that changes it.

        Args:
            column: an input.
            array: its canonical values.
            train: the rows of the training part.
            options: None where the experiment does not name the kind.
        """
        yield from ()

    def wire(self, column: Column) -> Any:
        """The JSON types of a request's values that are not null, as msgspec takes them."""
        ...

    def openapi(self, column: Column) -> dict[str, Any]:
        """The OpenAPI 3.0 schema of a request's values that are not null."""
        ...


REGISTRY: plugins.Registry[ColumnKind] = plugins.Registry("column kind")
"""In the order in which they are asked what a column is; fallbacks are asked last."""


def register(kind: ColumnKind) -> ColumnKind:
    """Add a kind; UserError where another has its name."""
    return REGISTRY.register(kind.name, kind)


def named(name: str) -> ColumnKind:
    """Look a kind up; NotFoundError where none has this name."""
    return REGISTRY[name]


def asked() -> list[ColumnKind]:
    """Kinds in the order in which they are asked what a column is."""
    kinds = [REGISTRY[name] for name in REGISTRY if REGISTRY[name].is_input]
    return sorted(kinds, key=lambda kind: kind.is_fallback)
