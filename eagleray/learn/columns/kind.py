"""The protocol of a column kind, and all kinds by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import pydantic

from eagleray import plugins
from eagleray.learn.columns import fields, values
from eagleray.learn.features import reference
from eagleray.learn.needs import Need

if TYPE_CHECKING:
    from eagleray.learn.columns.arrow import Distinct
    from eagleray.learn.columns.column import Column, Raw, Tolerance
    from eagleray.learn.features import Encoding


Parser = Callable[[Sequence[Sequence[Any]]], Sequence[np.ndarray]]
"""A function that turns the raw values of several columns, B each, into canonical arrays."""


class NoOptions(pydantic.BaseModel):
    """For kinds that have no options in `features`."""


@dataclass(frozen=True)
class Guess:
    """How the texts of a column are read as values of a kind."""

    fields: Mapping[str, Any] = field(default_factory=dict)  # of `Column`, such as `decimal_comma`
    missing: tuple[str, ...] = ()  # texts that are no value of the kind, and count as missing
    note: str = ""  # a remark for people, without the column's name
    fits: bool = True  # whether the column is of this kind; if not, the note says why


class ColumnKind(Protocol):
    """The kind of a column's values, and all code that depends on it.

    Canonical values are B rows of float64 (NaN where missing), of objects (str, or None where
    missing), or of float32 arrays. `NumberKind` and `WordKind` implement most of the first two.
    """

    name: ClassVar[str]  # in the experiment file and in a bundle's schema
    need: ClassVar[str]  # what a value must be, in messages
    native: ClassVar[tuple[type, ...]] = ()  # Python's and numpy's types of its values
    options: ClassVar[type[pydantic.BaseModel]] = NoOptions  # in `features.COLUMN`, beside `type`
    dependent: ClassVar[Mapping[str, Need]] = {}  # options that another one gives an effect
    in_training: ClassVar[frozenset[str]] = frozenset()  # options that encode no row otherwise
    encoded: ClassVar[Encoding]  # how a column enters a model, where no option changes it
    json_types: ClassVar[Any] = Any  # msgspec type of a request's values that are not null
    json_schema: ClassVar[dict[str, Any]] = {}  # the same in OpenAPI 3.0
    tensor: ClassVar[str] = "BYTES"  # its datatype in the Open Inference Protocol
    markers: ClassVar[frozenset[str]] = values.PLACEHOLDERS  # of missing values, in lower case
    is_input: ClassVar[bool] = True  # whether a model learns from the column
    takes_any_text: ClassVar[bool] = False  # whether it reads every text; inference tries it last
    target: ClassVar[str | None] = None  # kind as which a target is read; None: never predicted
    is_ordered: ClassVar[bool] = False  # whether `data.split.time` can sort rows by it
    is_time: ClassVar[bool] = False  # whether values are points in time
    has_outliers: ClassVar[bool] = False  # whether a value may be too far from all others
    is_rich: ClassVar[bool] = False  # whether two equal values are hardly equal by chance
    holds_paths: ClassVar[bool] = False  # whether values in a text file may be paths of other files
    # of values that are parsed before a request is queued; None where JSON types suffice
    parsed_dtype: ClassVar[type[np.generic] | None] = None
    # share of a training column's values that may be unreadable: they become missing, with a note
    most_unreadable: ClassVar[float] = 0.0
    measured: ClassVar[str] = "{}"  # what `quantity` is of a column, such as `length of {}`
    is_slow: ClassVar[bool] = False  # whether parsing a text takes too long for the event loop

    def holds(self, types: Collection[type]) -> bool:
        """Whether values of these types are of this kind."""
        return all(issubclass(one, self.native) for one in types)

    def infer(self, texts: Distinct, *, named: bool) -> Guess | None:
        """How texts, at least one, are values of this kind; None where they are not.

        `named` allows more exceptions: the experiment file names the kind.
        """
        return None

    def plain(self, column: Column) -> str:
        """The key of `arrow.PLAIN` for texts that Arrow parses; empty for none."""
        return ""

    def raw_fields(self, name: str, raw: Raw) -> dict[str, Any]:
        """Fields of `Column` that parsing needs; DataError for a value of another kind."""
        return {}

    def parsed_fields(self, array: np.ndarray, texts: Distinct) -> dict[str, Any]:
        """Fields of `Column` that follow from its canonical values, of which one is not missing."""
        return {}

    def is_key(self, column: Column, array: np.ndarray, *, hinted: bool) -> bool:
        """Whether distinct values may only identify rows; `hinted` where the name suggests it."""
        return False

    def parse(self, column: Column, raw: Raw, tolerance: Tolerance | None = None) -> np.ndarray:
        """Canonical values of B raw ones; DataError for a faulty one, unless `tolerance` is set."""
        ...

    def parser(self, columns: Sequence[Column]) -> Parser:
        """Return a function that parses several columns at once; made once for many requests."""
        return lambda raw: list(map(self.parse, columns, raw))

    def with_gaps(self, column: Column, numbers: np.ndarray) -> np.ndarray:
        """Replace the numbers that stand for a missing value, such as -999, by NaN."""
        return numbers

    def to_json(self, array: np.ndarray) -> list[Any]:
        """JSON values, from which `parse` gives the array again."""
        ...

    def encoding(self, options: Any) -> Encoding:
        """How a column enters a model, from an instance of `options`."""
        return self.encoded

    def quantity(self, array: np.ndarray) -> np.ndarray:
        """Number (NaN where missing) or name (None) of each value (B), for statistics."""
        return array

    def traits(self, array: np.ndarray) -> np.ndarray:
        """A few numbers for each value (B, K), NaN where missing, for models that are made fast."""
        return np.empty((len(array), 0))

    def blurred(self, array: np.ndarray) -> np.ndarray:
        """Values (B, …) that are equal where those of `array` nearly are."""
        return array

    def simplified(self, text: str) -> str:
        """What spellings of one name have in common."""
        return text

    def mixture(self, column: Column, array: np.ndarray) -> tuple[float, list[str]] | None:
        """Share of values of another kind, and the values that are not; None for one kind."""
        return None

    def statistics(self, array: np.ndarray) -> dict[str, Any]:
        """Statistics of the training part, see `features.reference`."""
        return reference.statistics(self.quantity(array))

    def shares(self, statistics: Mapping[str, Any], array: np.ndarray) -> list[float]:
        """Shares of other rows in the bins or names of `statistics`."""
        return reference.shares(statistics, self.quantity(array))

    def remarks(
        self, column: Column, array: np.ndarray, train: np.ndarray, options: Any | None
    ) -> Iterator[str]:
        """Describe what looks unintended in an input, and name the setting that changes it.

        `train` are the rows of the training part; `options` is None where the file names no kind.
        """
        yield from ()

    def misfits(self, column: Column, options: Any) -> Iterator[str]:
        """Yield each option, as `option: law, but got …`, that does not fit the column's values."""
        yield from ()

    def wire(self, column: Column) -> Any:
        """`json_types` of one column."""
        return self.json_types

    def openapi(self, column: Column) -> dict[str, Any]:
        """`json_schema` of one column."""
        return self.json_schema

    def field(
        self, column: Column, examples: Sequence[Any], extremes: fields.Range | None
    ) -> fields.Field:
        """How a person enters a value: filled with the first of `examples`, which are JSON values.

        `extremes` are those of the training part, where they are on record.
        """
        return fields.Field(hint=self.need, value=fields.written(examples[0]))


REGISTRY: plugins.Registry[ColumnKind] = plugins.Registry("column kind")


def register(kind: ColumnKind) -> None:
    """Add a kind; UserError where another has its name."""
    REGISTRY.register(kind.name, kind)


def candidates() -> list[ColumnKind]:
    """Kinds that inference tries, in order: as registered, those that take any text last."""
    kinds = [REGISTRY[name] for name in REGISTRY if REGISTRY[name].is_input]
    return sorted(kinds, key=lambda kind: kind.takes_any_text)
